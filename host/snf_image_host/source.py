"""Where the bytes of an image come from."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator

from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource
from snf_image_host.disks import OpenDisk
from snf_image_host.errors import UserError
from snf_image_host.image_header import check_header
from snf_image_host.partition_header import HEADER_SIZE, partition_header


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageStream:
    """An open image. ``size`` in bytes; ``header``: what is written to the disk before it."""

    fd: int
    size: int
    shown: str
    header: bytes = b""

    @property
    def total(self) -> int:
        """Bytes that arrive on the disk (R-FMT-7)."""
        return len(self.header) + self.size


@contextlib.contextmanager
def open_image(source: ImageSource) -> Iterator[ImageStream]:
    """Open a local image and look at its first bytes; never at its name (R-FMT-1).

    :class:`UserError` if it cannot be read, :class:`ImageError` if it is not what its format says.
    """
    if source.path is None:
        raise UserError("there is no image to copy")
    fd = _open(source, source.path)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        check_header(fd, size, source.format, source.shown)
        header = _header(source, size)
        yield ImageStream(fd=fd, size=size, shown=source.shown, header=header)
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


def _header(source: ImageSource, size: int) -> bytes:
    if source.format is ImageFormat.DISKDUMP:
        return b""
    return partition_header(source.format, size)


def refuse_too_large(image: ImageStream, disk: OpenDisk) -> None:
    """:class:`UserError` before the first byte if the image does not fit (R-DST-LOCAL-2)."""
    if image.total > disk.size:
        with_header = f" (with {HEADER_SIZE} bytes for a partition table)" if image.header else ""
        raise UserError(
            f"the image {image.shown} has {image.size} bytes{with_header}, "
            f"the disk {disk.path} has only {disk.size}"
        )
