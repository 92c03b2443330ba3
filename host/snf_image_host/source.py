"""Where the bytes of an image come from."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import Protocol

from snf_image_host.deployment import ImageSource
from snf_image_host.disks import OpenDisk
from snf_image_host.errors import ImageError, NodeError, UserError
from snf_image_host.extents import Extent, extents
from snf_image_host.image_header import check_header
from snf_image_host.partition_header import HEADER_SIZE, partition_header


class ImageStream(Protocol):
    """An image that is read once, from its first byte to its last.

    ``shown``: its name in messages. ``size`` in bytes. ``header``: what is written to the disk before it.
    """

    @property
    def shown(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def header(self) -> bytes: ...

    @property
    def total(self) -> int:
        """Bytes that arrive on the disk, the header's too (R-FMT-7)."""

    def extents(self) -> Iterator[Extent]:
        """Data and holes in order, without gaps."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read what follows ``offset`` into ``view``; how many bytes, 0 only at the end of the image.

        Called with rising offsets. :class:`NodeError` if it cannot be read.
        """

    def check_whole(self) -> None:
        """After the last byte: :class:`ImageError` if what was read is not one state of the image."""


class LocalImage:
    """An image in a regular file or on a block device."""

    def __init__(self, fd: int, shown: str, header: bytes, size: int) -> None:
        self.shown = shown
        self.size = size
        self.header = header
        self._fd = fd
        self._state = _state(fd)

    @property
    def total(self) -> int:
        return len(self.header) + self.size

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

    def check_whole(self) -> None:
        if _state(self._fd) != self._state:
            raise ImageError(
                f"the image {self.shown} was changed while it was copied",
                hint="put new images in place by renaming them",
            )


@contextlib.contextmanager
def open_image(source: ImageSource) -> Iterator[ImageStream]:
    """Open a local image and look at its first bytes; never at its name (R-FMT-1).

    :class:`UserError` if it cannot be opened, or is a disk of a deployment that runs: open the disks first,
    and an image is never copied onto itself. :class:`ImageError` if it is not what its format says.
    """
    if source.path is None:
        raise UserError("there is no image to copy")
    fd = _open(source, source.path)
    try:
        _lock(source, fd)
        size = os.lseek(fd, 0, os.SEEK_END)
        check_header(fd, size, source.format, source.shown)
        header = partition_header(source.format, size) if source.format.needs_partition_header else b""
        yield LocalImage(fd, source.shown, header, size)
    finally:
        os.close(fd)


def _open(source: ImageSource, path: str) -> int:
    try:
        # O_NONBLOCK: a FIFO in the place of an image must not hang us.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"the image {source.shown} cannot be read: {error.strerror}") from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        os.close(fd)
        raise UserError(f"the image {source.shown} is neither a regular file nor a block device")
    return fd


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


def _state(fd: int) -> tuple[int, int]:
    """What changes whenever a file's content does."""
    status = os.fstat(fd)
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else (0, 0)


def refuse_too_large(image: ImageStream, disk: OpenDisk) -> None:
    """:class:`UserError` before the first byte if the image does not fit (R-DST-LOCAL-2)."""
    if image.total > disk.size:
        with_header = f" (with {HEADER_SIZE} bytes for a partition table)" if image.header else ""
        raise UserError(
            f"the image {image.shown} has {image.size} bytes{with_header}, "
            f"the disk {disk.path} has only {disk.size}",
            hint="give it a larger disk",
        )
