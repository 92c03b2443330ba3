"""The one door to the untrusted tree (R-TASK-5, R-TASK-6).

Tasks get a :class:`Root` and name files by the path the guest would use. Every path is resolved beneath
the root by openat2(2): absolute links are relative to it, ``..`` stops at it, magic links are refused.
Every change made through the door is recorded, so that a receipt cannot forget one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from typing import Final

from snf_image_contract.events import Change, ChangeKind
from snf_image_helper import ntfs_security, replacing
from snf_image_helper.blame import ABSENT, blame, blaming, demand_regular
from snf_image_helper.errors import ImageError
from snf_image_helper.openat2 import open_in_root
from snf_image_helper.replacing import Attributes

MAX_CONFIG_FILE: Final = 16 * 1024 * 1024
MAX_ENTRIES: Final = 100_000
"""Names in one directory that are listed at most."""
MAX_LINKS: Final = 40


@dataclasses.dataclass(frozen=True, slots=True)
class LinkOnPath:
    """A symbolic link that a path leads through: where it stands, and whose it is."""

    path: str
    uid: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """The last component of a path, its directory, and what is there now (None: nothing)."""

    parent: int
    name: str
    status: os.stat_result | None


class Root:
    """A directory descriptor of the mounted root file system, and everything one may do beneath it.

    Paths are the guest's, absolute. ``record`` gets each :class:`Change`; it names the file that changed,
    also where a link led there. ``warn`` gets text.
    Errors that the image causes are :class:`ImageError` and name the guest's path.
    """

    def __init__(
        self,
        fd: int,
        *,
        record: Callable[[Change], None],
        warn: Callable[[str], None],
        rewrite_in_place: bool | Callable[[os.stat_result], bool] = False,
    ) -> None:
        """``rewrite_in_place``: a file with extended attributes is not replaced (UFS, D-29).

        As a function it tells by its status whether a file has what the kernel does not show.
        """
        self._fd = fd
        self._record_change = record
        self._warn = warn
        self._rewrite_in_place = rewrite_in_place
        self._touched: dict[str, None] = {}

    @property
    def touched(self) -> tuple[str, ...]:
        """Paths of what was made or changed so far, links resolved; some may be gone again."""
        return tuple(self._touched)

    # -- looking ----------------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result | None:
        """Status of ``path`` itself, a last link not followed; None if it is absent."""
        return self._status(path, os.O_PATH | os.O_NOFOLLOW)

    def stat(self, path: str) -> os.stat_result | None:
        """Status of what ``path`` leads to; None if it, or what a link names, is absent."""
        return self._status(path, os.O_PATH)

    def exists(self, path: str) -> bool:
        return self.stat(path) is not None

    def is_dir(self, path: str) -> bool:
        status = self.stat(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: str) -> bool:
        status = self.stat(path)
        return status is not None and stat.S_ISREG(status.st_mode)

    def is_executable(self, path: str) -> bool:
        status = self.stat(path)
        return status is not None and stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)

    def list(self, path: str) -> list[str]:
        """Names in a directory in byte order; an absent directory has none."""
        if self.stat(path) is None:
            return []
        with self._open(path, os.O_RDONLY | os.O_DIRECTORY) as fd, os.scandir(fd) as entries:
            names = []
            for entry in entries:
                names.append(entry.name)
                if len(names) > MAX_ENTRIES:
                    raise ImageError(f"{path}: more than {MAX_ENTRIES} names in this directory")
        return sorted(names, key=os.fsencode)

    def readlink(self, path: str) -> str:
        """What the link ``path`` says; :class:`ImageError` if it is no link."""
        with self._parent(path) as (parent, name), blaming(path):
            return os.readlink(name, dir_fd=parent)

    def links(self, path: str) -> tuple[LinkOnPath, ...]:
        """Every symbolic link that resolving ``path`` goes through, in order (R-TASK-KEY-3)."""
        found: list[LinkOnPath] = []
        resolved = "/"
        pending = _components(path)
        while pending:
            name = pending.pop()
            if name == "..":
                resolved = posixpath.dirname(resolved)
                continue
            current = posixpath.join(resolved, name)
            status = self.lstat(current)
            if status is None or not stat.S_ISLNK(status.st_mode):
                resolved = current
                continue
            found.append(LinkOnPath(current, status.st_uid))
            if len(found) > MAX_LINKS:
                raise ImageError(f"{path}: too many links")
            target = self.readlink(current)
            resolved = "/" if target.startswith("/") else resolved
            pending += _components(target)
        return tuple(found)

    def read(self, path: str, limit: int = MAX_CONFIG_FILE) -> bytes:
        """Contents of a regular file of at most ``limit`` bytes; FileNotFoundError if it is absent."""
        with self.open_file(path) as fd:
            data = replacing.read_at_most(fd, limit + 1)
        if len(data) > limit:
            raise ImageError(f"{path}: larger than {limit} bytes")
        return data

    def read_optional(self, path: str, limit: int = MAX_CONFIG_FILE) -> bytes | None:
        """Like :meth:`read`, None if the file is absent."""
        try:
            return self.read(path, limit)
        except FileNotFoundError:
            return None

    def read_head(self, path: str, size: int) -> bytes:
        """The first ``size`` bytes of a regular file of any length; FileNotFoundError if it is absent."""
        with self.open_file(path) as fd:
            return replacing.read_at_most(fd, size)

    def extended_attribute(self, path: str, name: str) -> bytes | None:
        """An extended attribute of ``path`` itself; None if it has none of that name."""
        try:
            with self._open(path, os.O_PATH | os.O_NOFOLLOW) as fd:
                return os.getxattr(replacing.of_itself(fd), name)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            blame(path, error)

    @contextlib.contextmanager
    def open_directory(self, path: str) -> Iterator[int]:
        """A descriptor of a directory, for programs that need a mount point (``/proc/self/fd/N``)."""
        with self._open(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
            yield fd

    # -- changing ---------------------------------------------------------------------------------

    def write(
        self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, force: bool = False,
        detail: str = "",
    ) -> None:  # fmt: skip
        """Replace or create a file atomically.

        An existing file keeps owner, group, mode and extended attributes (unless ``force`` gives it the
        stated ones); a new one gets those stated. If ``path`` is a link, what it leads to is replaced and
        the link stays. Unchanged contents are not written, except with ``force``.
        """
        stated = Attributes(mode, uid, gid)
        with self._final(path) as place, blaming(path):
            old = place.status
            if old is not None:
                demand_regular(path, old)
                if not force and replacing.holds(place.parent, place.name, data):
                    return
            was = replacing.description(place.parent, place.name) if old is not None and force else None
            if old is not None and self._must_rewrite(path, place.parent, place.name, old):
                replacing.overwrite(place.parent, place.name, data, stated if force else None)
            else:
                keep = old is not None and not force
                attributes = replacing.attributes_of(old) if old is not None and keep else stated
                replacing.replace(place.parent, place.name, data, attributes, keep_extended=keep)
            self._record_at(path, place, "created" if old is None else "modified", detail)
            if was is not None and was != replacing.description(place.parent, place.name):
                self._record_at(path, place, "attributes")

    def mkdir(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make a directory and its missing parents, all with the same owner and mode.

        A link that leads nowhere is followed, and the directory made where it leads.
        """
        missing: list[str] = []
        current = posixpath.normpath(path)
        while not self.exists(current):
            missing.append(current)
            current = posixpath.dirname(current)
        if not self.is_dir(current):
            raise ImageError(f"{current}: is not a directory")
        for directory in reversed(missing):
            with self._final(directory) as place, blaming(directory):
                replacing.make_directory(place.parent, place.name, Attributes(mode, uid, gid))
                self._record_at(directory, place, "directory")

    def remove(self, path: str) -> bool:
        """Remove a file or link (the link itself); False if there was none."""
        if self.lstat(path) is None:
            return False
        with self._parent(path) as (parent, name), blaming(path):
            os.unlink(name, dir_fd=parent)
            self._record_at(path, _Place(parent, name, None), "removed")
        return True

    def remove_tree(self, path: str) -> bool:
        """Remove a directory and what is below it on the same file system; a link is just removed."""
        status = self.lstat(path)
        if status is None:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return self.remove(path)
        with self._parent(path) as (parent, name), blaming(path):
            replacing.remove_directory(parent, name)
            self._record_at(path, _Place(parent, name, None), "removed", "directory")
        return True

    def rename(self, old: str, new: str) -> None:
        """Rename ``old`` (a link itself) to ``new``, which must not exist."""
        with self._parent(old) as (old_parent, old_name), self._parent(new) as (new_parent, new_name):
            if self.lstat(new) is not None:
                raise ImageError(f"{new}: exists already")
            with blaming(old):
                os.rename(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent)
                self._record_at(old, _Place(old_parent, old_name, None), "renamed", f"to {new}")

    def symlink(self, target: str, path: str) -> None:
        """Make ``path`` a link that says ``target``; it must not exist, except as that very link."""
        with self._parent(path) as (parent, name), blaming(path):
            status = self.lstat(path)
            if status is not None:
                if stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=parent) == target:
                    return
                raise ImageError(f"{path}: exists already")
            os.symlink(target, name, dir_fd=parent)
            self._record_at(path, _Place(parent, name, None), "link", f"to {target}")

    def set_attributes(
        self, path: str, *, mode: int | None = None, uid: int | None = None, gid: int | None = None
    ) -> None:
        """Change mode and owner of what ``path`` leads to; a FIFO or device is refused."""
        with self._final(path) as place, blaming(path):
            old = place.status
            if old is None or not (stat.S_ISREG(old.st_mode) or stat.S_ISDIR(old.st_mode)):
                raise ImageError(f"{path}: neither a regular file nor a directory")
            was = replacing.attributes_of(old)
            wanted = Attributes(
                was.mode if mode is None else mode,
                was.uid if uid is None else uid,
                was.gid if gid is None else gid,
            )
            with replacing.opened(place.name, os.O_RDONLY, place.parent) as fd:
                replacing.set_attributes(fd, wanted)
            self._record_at(path, place, "attributes")

    def set_extended_attribute(self, path: str, name: str, value: bytes, detail: str = "") -> None:
        """Give ``path`` itself, whatever it is, an extended attribute; nothing where none can be."""
        with blaming(path), self._open(path, os.O_PATH | os.O_NOFOLLOW) as fd:
            try:
                os.setxattr(replacing.of_itself(fd), name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                return
        self._record_change(Change(path=path, change="attributes", detail=detail or name))

    # -- inside -----------------------------------------------------------------------------------

    def _record_at(self, path: str, place: _Place, change: ChangeKind, detail: str = "") -> None:
        """Record a change under the path at which the tree now differs, links resolved."""
        real = self._real_path(place, path)
        if real != posixpath.normpath(path):
            detail = f"{detail}, asked for as {path}".removeprefix(", ")
        self._record_change(Change(path=real, change=change, detail=detail))
        if change not in ("removed", "renamed"):
            self._touched[real] = None

    def _real_path(self, place: _Place, path: str) -> str:
        try:
            top = os.readlink(f"/proc/self/fd/{self._fd}")
            directory = os.readlink(f"/proc/self/fd/{place.parent}")
        except OSError:  # no /proc: the asked path must do
            return path
        relative = posixpath.relpath(directory, top)
        return path if relative.startswith("..") else posixpath.normpath(f"/{relative}/{place.name}")

    @contextlib.contextmanager
    def _open(self, path: str, flags: int, *, blamed: str | None = None) -> Iterator[int]:
        with blaming(blamed or path):
            fd = open_in_root(self._fd, path, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def _status(self, path: str, flags: int) -> os.stat_result | None:
        try:
            fd = open_in_root(self._fd, path, flags)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            blame(path, error)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def open_file(self, path: str) -> Iterator[int]:
        """A descriptor of a regular file, for reading; FileNotFoundError if it is absent.

        What it is is known before it is opened: a device may act on that.
        """
        if self.stat(path) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        with self._final(path) as place:
            if place.status is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            demand_regular(path, place.status)
            with blaming(path), replacing.opened(place.name, os.O_RDONLY, place.parent) as fd:
                yield fd

    @contextlib.contextmanager
    def _parent(self, path: str, *, blamed: str | None = None) -> Iterator[tuple[int, str]]:
        """Descriptor of the directory that holds the last component, and that component."""
        directory, name = posixpath.split(path.rstrip("/"))
        if name in ("", ".", ".."):
            raise ImageError(f"{blamed or path}: not the name of a file")
        with self._open(directory or "/", os.O_PATH | os.O_DIRECTORY, blamed=blamed or path) as fd:
            yield fd, name

    @contextlib.contextmanager
    def _final(self, path: str) -> Iterator[_Place]:
        """Where ``path`` leads, a last component that is a link followed."""
        current = path
        for _ in range(MAX_LINKS):
            with contextlib.ExitStack() as stack:
                parent, name = stack.enter_context(self._parent(current, blamed=path))
                try:
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                except FileNotFoundError:
                    yield _Place(parent, name, None)
                    return
                if not stat.S_ISLNK(status.st_mode):
                    yield _Place(parent, name, status)
                    return
                target = os.readlink(name, dir_fd=parent)
            # Left as it is, ".." included: openat2 resolves it where it leads, not as text.
            current = target if target.startswith("/") else f"{posixpath.dirname(current)}/{target}"
        raise ImageError(f"{path}: too many links")

    def _must_rewrite(self, path: str, parent: int, name: str, status: os.stat_result) -> bool:
        short = status.st_nlink == 2 and ntfs_security.short_name(parent, name) is not None
        if status.st_nlink > 1 and not short:
            self._warn(f"{path}: has {status.st_nlink} names; rewritten in place, so all show the change")
            return True
        hidden = self._rewrite_in_place
        if hidden(status) if callable(hidden) else hidden and replacing.loses_attributes(parent, name):
            self._warn(f"{path}: rewritten in place, to keep its extended attributes")
            return True
        return False


def _components(path: str) -> list[str]:
    """The components of a path, last first, to be popped."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
