"""Images that this node has: a path opened with the caller's rights, or a name below IMAGE_DIR."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping

from snf_image_host.deployment import ImageSource
from snf_image_host.errors import ImageError, NodeError, UserError
from snf_image_host.extents import Extent, extents
from snf_image_host.image_directory import open_image_file
from snf_image_host.reporter import Reporter
from snf_image_host.sources.verification import Verifier


class LocalImage:
    """An image in a regular file or on a block device, taken as it is."""

    source_digests: Mapping[str, str] = {}

    def __init__(self, fd: int, shown: str, header: bytes, size: int, *, verifier: Verifier) -> None:
        self.shown = shown
        self.size = size
        self.header = header
        self.digests = verifier.algorithms
        self._verifier = verifier
        self._fd = fd
        self._state = file_state(fd)

    def extents(self) -> Iterator[Extent]:
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return extents(self._fd, self.size)

    def read_into(self, view: memoryview, offset: int) -> int:
        # Through the page cache: the same image is often deployed again, the disk never read again.
        try:
            return os.preadv(self._fd, [view], offset)
        except OSError as error:
            raise NodeError(
                f"the image {self.shown} cannot be read at byte {offset}: {error.strerror}",
                hint="look at the kernel's log: the storage of the image fails",
            ) from None

    def check_whole(self, length: int, digests: Mapping[str, str]) -> None:  # noqa: ARG002 - a file's length is seen
        refuse_changed(self._fd, self._state, self.shown)
        self._verifier.check(digests)

    def abandon(self) -> None:
        pass  # what a file reads ends by itself


@contextlib.contextmanager
def reading(shown: str) -> Iterator[None]:
    """A look at parts of an image: storage that fails is a :class:`NodeError` that names it."""
    try:
        yield
    except OSError as error:
        raise NodeError(
            f"the image {shown} cannot be read: {error.strerror}",
            hint="look at the kernel's log: the storage of the image fails",
        ) from None


def open_local(source: ImageSource, path: str, reporter: Reporter) -> int:
    """A descriptor of a local image, locked against those who would write to it.

    :class:`UserError` if it cannot be opened, or is a disk of a deployment that runs.
    """
    fd = _open_in_image_dir(source, path, reporter) if source.kind == "image-dir" else _open(source, path)
    try:
        _refuse_wrong_kind(source, fd)
        _lock(source, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_wrong_kind(source: ImageSource, fd: int) -> None:
    mode = os.fstat(fd).st_mode
    if source.kind == "image-dir" and not stat.S_ISREG(mode):
        raise UserError(f"the image {source.shown} is not a regular file")
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise UserError(f"the image {source.shown} is neither a regular file nor a block device")


def _open(source: ImageSource, path: str) -> int:
    try:
        # O_NONBLOCK: a FIFO in the place of an image must not hang us.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"the image {source.shown} cannot be read: {error.strerror}") from None


def _open_in_image_dir(source: ImageSource, name: str, reporter: Reporter) -> int:
    links = source.settings.allow_symlinks
    for candidate in (name, f"{name}.{source.format}"):
        with (
            contextlib.suppress(FileNotFoundError),
            open_image_file(source.settings.image_dir, candidate, allow_links=links) as fd,
        ):
            if candidate != name:
                reporter.warn(f"{source.shown} is there as {candidate} only: give the whole name")
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    raise UserError(f"there is no image {source.shown} on this node")


def _lock(source: ImageSource, fd: int) -> None:
    """Shared with other readers; whoever writes to it holds it alone (:mod:`snf_image_host.disks`)."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"the image {source.shown} is the disk of a deployment that is running",
            hint="an image cannot be copied onto itself, nor while it is written",
        ) from None
    except OSError:
        pass  # a file system without locks: nobody can hold it alone there


def file_state(fd: int) -> tuple[int, int] | None:
    """What changes whenever a file's content does; None for a block device, of which nothing tells."""
    status = os.fstat(fd)
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


def refuse_changed(fd: int, state: tuple[int, int] | None, shown: str) -> None:
    """:class:`ImageError` if the file is not as it was when ``state`` was taken."""
    if file_state(fd) != state:
        raise ImageError(
            f"the image {shown} was changed while it was copied",
            hint="put new images in place by renaming them",
        )
