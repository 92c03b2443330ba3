"""Images from servers, kept on the node: each use asks the server whether its copy is still the right one.

Contents are files named by their sha256, so that equal ones are kept once; what a URL led to, and by which
validators that can be asked again, is in small files named by the URL's sha256. Nothing secret of a URL is
kept, and nobody gets an image that the server would not give to this very request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from snf_image_host.deployment import SourceSettings
from snf_image_host.errors import NodeError
from snf_image_host.fetching import Condition, Transfer
from snf_image_host.reporter import Reporter

_MIB: Final = 1024 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAX_NOTE: Final = 16 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is known of a URL. ``digest``: sha256 of what it led to; ``condition``: how to ask for another."""

    digest: str
    condition: Condition


def open_cache(settings: SourceSettings, reporter: Reporter) -> ImageCache | None:
    """The node's cache; None if the operator wants none. :class:`NodeError` if it is not safe."""
    if settings.cache_dir is None:
        return None
    try:
        for directory in (settings.cache_dir, *ImageCache.places(settings.cache_dir)):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        state = os.stat(settings.cache_dir)
    except OSError as error:
        raise NodeError(f"IMAGE_CACHE_DIR {settings.cache_dir}: {error.strerror}") from None
    if state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise NodeError(
            f"IMAGE_CACHE_DIR {settings.cache_dir} can be changed by others",
            hint="it must belong to who deploys, and be writable by nobody else",
        )
    return ImageCache(settings.cache_dir, settings.cache_size, reporter)


class ImageCache:
    """The files of the cache. Whatever is wrong with one of them counts as if it were not there."""

    def __init__(self, directory: str, limit: int, reporter: Reporter) -> None:
        """``limit``: bytes of all contents together."""
        self._directory = directory
        self._contents, self._urls = self.places(directory)
        self._limit = limit
        self._reporter = reporter

    @staticmethod
    def places(directory: str) -> tuple[str, str]:
        """Where contents are, and what is known of URLs."""
        return os.path.join(directory, "contents"), os.path.join(directory, "urls")

    def find(self, url: str) -> Kept | None:
        """What ``url`` led to, if that is still there."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(self._note(url), "rb") as file:
                note = json.loads(file.read(_MAX_NOTE))
            digest = note.pop("digest")
            if _DIGEST.fullmatch(digest) and os.path.exists(os.path.join(self._contents, digest)):
                condition = Condition(**{name: str(value) for name, value in note.items()})
                return Kept(digest=digest, condition=condition)
        return None

    def open(self, kept: Kept) -> int | None:
        """A descriptor of the content, None if it has gone meanwhile; whoever reads it keeps it alive."""
        path = os.path.join(self._contents, kept.digest)
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            os.utime(fd)
            return fd
        return None

    def drop(self, kept: Kept) -> None:
        """Forget a content that has turned out to be damaged."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._contents, kept.digest))

    def keep(self, url: str, transfer: Transfer, condition: Condition) -> Keeping:
        """The body of ``transfer``, which is kept as it passes."""
        fd: int | None = None
        try:
            fd = os.open(self._contents, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._reporter.warn(f"the image is not kept: IMAGE_CACHE_DIR: {error.strerror}")
        return Keeping(self, url, transfer, condition, fd=fd, limit=self._limit)

    def add(self, fd: int, digest: str, url: str, condition: Condition) -> None:
        """Give the file without a name its name, after room was made. A failure costs a warning."""
        try:
            with self._locked():
                path = os.path.join(self._contents, digest)
                if not os.path.exists(path):
                    self._make_room(os.fstat(fd).st_size)
                    # With a descriptor of a directory it follows links, and needs none for this path.
                    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
                self._write_note(url, {"digest": digest} | dataclasses.asdict(condition))
        except OSError as error:
            self._reporter.warn(f"the image is not kept: IMAGE_CACHE_DIR: {error.strerror}")

    def not_kept(self, reason: str) -> None:
        self._reporter.warn(f"the image is not kept: {reason}")

    def _note(self, url: str) -> str:
        return os.path.join(self._urls, hashlib.sha256(url.encode()).hexdigest())

    def _write_note(self, url: str, note: dict[str, str]) -> None:
        path = self._note(url)
        fd = os.open(
            f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(note, file)
        os.rename(f"{path}.new", path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(os.path.join(self._directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest, and what is known of URLs that led to it."""
        entries = [(entry.stat(), entry.path) for entry in os.scandir(self._contents)]
        entries = [entry for entry in entries if stat.S_ISREG(entry[0].st_mode)]
        total = sum(state.st_size for state, _ in entries)
        for state, path in sorted(entries, key=lambda entry: entry[0].st_mtime_ns):
            if total + size <= self._limit:
                break
            os.unlink(path)
            total -= state.st_size
        left = set(os.listdir(self._contents))
        for entry in os.scandir(self._urls):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                with open(entry.path, "rb") as file:
                    digest = json.loads(file.read(_MAX_NOTE))["digest"]
                if digest not in left:
                    os.unlink(entry.path)


class Keeping:
    """A body on its way to the disk, and into the cache."""

    def __init__(
        self,
        cache: ImageCache,
        url: str,
        transfer: Transfer,
        condition: Condition,
        *,
        fd: int | None,
        limit: int,
    ) -> None:
        self.size = transfer.size
        self._cache = cache
        self._url = url
        self._transfer = transfer
        self._condition = condition
        self._fd = fd
        self._limit = limit
        self._digest = hashlib.sha256()
        self._length = 0
        self._is_whole = False
        if self.size is not None and self.size > limit:
            self._give_up("it is larger than IMAGE_CACHE_SIZE")

    def read_into(self, view: memoryview) -> int:
        count = self._transfer.read_into(view)
        if count == 0:
            self._is_whole = True
        elif self._fd is not None:
            self._write(self._fd, view[:count])
        return count

    def abandon(self) -> None:
        self._is_whole = False
        self._transfer.abandon()

    def keep(self) -> None:
        """All of it has come and is the right image."""
        if self._fd is not None and self._is_whole:
            self._cache.add(self._fd, self._digest.hexdigest(), self._url, self._condition)
            self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _write(self, fd: int, view: memoryview) -> None:
        self._length += len(view)
        if self._length > self._limit:
            self._give_up("it is larger than IMAGE_CACHE_SIZE")
            return
        self._digest.update(view)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            self._give_up(f"IMAGE_CACHE_DIR: {error.strerror}")

    def _give_up(self, reason: str) -> None:
        self._cache.not_kept(reason)
        self.close()
