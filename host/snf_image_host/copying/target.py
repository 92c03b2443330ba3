"""Writing to a disk: direct where it can be, zeros without writing them where the kernel can."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from typing import Final, Self

from snf_image_host.disks import OpenDisk
from snf_image_host.errors import NodeError

ALIGNMENT: Final = 4096
MIB: Final = 1024 * 1024
_BLKDISCARD: Final = 0x1277
_BLKZEROOUT: Final = 0x127F
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_SIGNATURE_OFFSET: Final = 510
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


class Target:
    """A disk while an image is written to it. A context manager that closes its direct descriptor."""

    def __init__(self, disk: OpenDisk) -> None:
        self.disk = disk
        self.written = 0
        self.zeroed = 0
        self._direct = _open_direct(disk.fd)
        self._zeros = bytes(MIB)

    @property
    def is_direct(self) -> bool:
        """Whether writes pass the page cache by."""
        return self._direct is not None

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` through the page cache; a failing or full disk is a :class:`NodeError`."""
        self._write(self.disk.fd, data, offset)

    def write_direct(self, data: memoryview, offset: int) -> None:
        """Like :meth:`write`, past the page cache as far as offset and length allow.

        ``data`` begins at a page of memory.
        """
        whole = len(data) // ALIGNMENT * ALIGNMENT if offset % ALIGNMENT == 0 else 0
        if self._direct is None or not whole:
            self.write(data, offset)
            return
        self._write(self._direct, data[:whole], offset)
        self.write(data[whole:], offset + whole)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros (D-10): by the kernel if it can, else by writing them."""
        if length <= 0:
            return
        self.zeroed += length
        if self.disk.is_block:
            done = offset % 512 == 0 == length % 512 and _ioctl_range(
                self.disk.fd, _BLKZEROOUT, offset, length
            )
        else:
            done = _punch(self.disk.fd, offset, length)
        while not done and length:
            part = min(length, len(self._zeros))
            self._write(self.disk.fd, memoryview(self._zeros)[:part], offset)
            offset, length = offset + part, length - part

    def discard(self, offset: int, length: int) -> None:
        """Tell the disk that a range is no longer used; nobody may rely on what it then reads as."""
        if length <= 0:
            return
        if self.disk.is_block:
            start = -(-offset // ALIGNMENT) * ALIGNMENT
            whole = (offset + length - start) // ALIGNMENT * ALIGNMENT
            if whole > 0:
                _ioctl_range(self.disk.fd, _BLKDISCARD, start, whole)
        else:
            _punch(self.disk.fd, offset, length)

    def flush(self) -> None:
        try:
            os.fdatasync(self.disk.fd)
        except OSError as error:
            raise self._failed(error, None) from None

    def _write(self, fd: int, data: memoryview, offset: int) -> None:
        while data:
            try:
                count = os.pwrite(fd, data, offset)
            except OSError as error:
                raise self._failed(error, offset) from None
            self.written += count
            data, offset = data[count:], offset + count

    def _failed(self, error: OSError, offset: int | None) -> NodeError:
        at = "" if offset is None else f" at byte {offset}"
        hint = "free some space there" if error.errno == errno.ENOSPC else ""
        return NodeError(f"{self.disk.path} cannot be written{at}: {error.strerror}", hint=hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._direct is not None:
            os.close(self._direct)


def disarm(disk: OpenDisk) -> None:
    """Clear the boot signature, so that a half-made disk cannot boot (D-12). Never fails."""
    with contextlib.suppress(OSError):
        os.pwrite(disk.fd, bytes(2), _SIGNATURE_OFFSET)
        os.fdatasync(disk.fd)


def _open_direct(fd: int) -> int | None:
    """The same disk once more, past the page cache; None where the file system cannot."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        return None


def _punch(fd: int, offset: int, length: int) -> bool:
    if _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise NodeError(f"the disk cannot be zeroed at byte {offset}: {os.strerror(number)}")


def _ioctl_range(fd: int, request: int, offset: int, length: int) -> bool:
    try:
        fcntl.ioctl(fd, request, struct.pack("QQ", offset, length))
    except OSError as error:
        if error.errno in (*_UNSUPPORTED, errno.EREMOTEIO, errno.EIO):
            return False
        raise NodeError(f"the disk cannot be zeroed at byte {offset}: {error.strerror}") from None
    return True
