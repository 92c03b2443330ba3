"""Writing to a disk: direct where it can be, zeros without writing them where the kernel can."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final, Self

from snf_image_host.disks import OpenDisk
from snf_image_host.errors import NodeError

ALIGNMENT: Final = 4096
MIB: Final = 1024 * 1024
_ZERO_STEP: Final = 64 * MIB
"""Zeroed at once: a disk without a command for it takes as long as for writing so many bytes."""
_DISCARD_STEP: Final = 1024 * MIB
_DIRTY_LIMIT: Final = 64 * MIB
"""What may wait in the page cache where the disk cannot be written directly."""
_BLKDISCARD: Final = 0x1277
_BLKZEROOUT: Final = 0x127F
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_ZERO_RANGE: Final = 0x10
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EPERM)
_CANNOT_ZERO: Final = (*_UNSUPPORTED, errno.EREMOTEIO, errno.EIO)
"""Block devices: also what drivers say that promised a command their disk does not have."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


class Target:
    """A disk while an image is written to it. A context manager that closes its direct descriptor.

    Methods raise :class:`NodeError` for a disk that fails or is full. ``check`` is called between two steps
    and may raise to end them.
    """

    def __init__(self, disk: OpenDisk, *, check: Callable[[], None] = lambda: None) -> None:
        self.disk = disk
        self._check = check
        self._direct = _open_direct(disk.fd)
        self._zeros = bytes(MIB)
        self._dirty = 0
        # A file that has all its blocks keeps them: it was made so that it can never run out of space.
        mode = _ZERO_RANGE if _has_all_blocks(disk) else _PUNCH_HOLE
        self._zero_modes = (mode | _KEEP_SIZE, (_ZERO_RANGE | _PUNCH_HOLE) & ~mode | _KEEP_SIZE)

    @property
    def is_direct(self) -> bool:
        """Whether writes pass the page cache by."""
        return self._direct is not None

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` through the page cache."""
        self._write(self.disk.fd, data, offset)
        self._dirty += len(data)
        if self._dirty > _DIRTY_LIMIT:
            self.flush()

    def write_direct(self, data: memoryview, offset: int) -> None:
        """Like :meth:`write`, past the page cache as far as offset and length allow.

        ``data`` begins at a page of memory.
        """
        whole = len(data) // ALIGNMENT * ALIGNMENT if offset % ALIGNMENT == 0 else 0
        if self._direct is not None and whole:
            try:
                self._write(self._direct, data[:whole], offset)
                data, offset = data[whole:], offset + whole
            except _NotDirectError:
                self._close_direct()
        if data:
            self.write(data, offset)

    def zero(self, offset: int, length: int) -> int:
        """Make a range read as zeros (D-10): by the kernel if it can, else by writing them.

        Returns how many bytes were written. A discard is no zeroing: what follows it is undefined.
        """
        written = 0
        for start, part in steps(offset, length, _ZERO_STEP):
            self._check()
            if not self._zero_by_kernel(start, part):
                self._write_zeros(start, part)
                written += part
        return written

    def discard(self, offset: int, length: int) -> None:
        """Give a range back to the storage, if that is known there; nobody may rely on what it then reads."""
        if not self.disk.is_block:
            for start, part in steps(offset, length, _DISCARD_STEP):
                self._check()
                if not self._zero_by_kernel(start, part):
                    return
            return
        first = -(-offset // ALIGNMENT) * ALIGNMENT
        for start, part in steps(first, (offset + length - first) // ALIGNMENT * ALIGNMENT, _DISCARD_STEP):
            self._check()
            if not _range_ioctl(self.disk.fd, _BLKDISCARD, start, part):
                return

    def flush(self) -> None:
        """Return when all that was written is on the disk."""
        self._check()
        try:
            os.fdatasync(self.disk.fd)
        except OSError as error:
            raise self._failed(error, None) from None
        self._dirty = 0

    def abandon(self) -> None:
        """From another thread: what waits for the kernel ends by itself."""

    def _write(self, fd: int, data: memoryview, offset: int) -> None:
        while data:
            self._check()
            try:
                count = os.pwrite(fd, data, offset)
            except OSError as error:
                if error.errno == errno.EINVAL and fd == self._direct:
                    raise _NotDirectError from None
                raise self._failed(error, offset) from None
            data, offset = data[count:], offset + count

    def _write_zeros(self, offset: int, length: int) -> None:
        for start, part in steps(offset, length, len(self._zeros)):
            self.write(memoryview(self._zeros)[:part], start)

    def _zero_by_kernel(self, offset: int, length: int) -> bool:
        try:
            if self.disk.is_block:
                return _range_ioctl(self.disk.fd, _BLKZEROOUT, offset, length)
            return any(_fallocate(self.disk.fd, mode, offset, length) for mode in self._zero_modes)
        except OSError as error:
            raise self._failed(error, offset) from None

    def _failed(self, error: OSError, offset: int | None) -> NodeError:
        at = "" if offset is None else f" at byte {offset}"
        hint = "look at the kernel's log: the storage of the disk fails"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space where the disk is stored"
        return NodeError(f"{self.disk.path} cannot be written{at}: {error.strerror}", hint=hint)

    def _close_direct(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close_direct()


class _NotDirectError(Exception):
    """This disk wants direct writes to be aligned in another way."""


def steps(offset: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    """Offset and length of parts of a range, at most ``step`` bytes each."""
    for at in range(offset, offset + length, step):
        yield at, min(step, offset + length - at)


def _has_all_blocks(disk: OpenDisk) -> bool:
    return not disk.is_block and os.fstat(disk.fd).st_blocks * 512 >= disk.size


def _open_direct(fd: int) -> int | None:
    """The same disk once more, past the page cache; None where the file system cannot."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        return None


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """False if the file system does not know the mode."""
    if _libc.fallocate(fd, mode, offset, length) == 0:
        return True
    number = ctypes.get_errno()
    if number not in _UNSUPPORTED:
        raise OSError(number, os.strerror(number))
    return False


def _range_ioctl(fd: int, request: int, offset: int, length: int) -> bool:
    """False if the device cannot, or not for this range."""
    try:
        fcntl.ioctl(fd, request, struct.pack("QQ", offset, length))
    except OSError as error:
        if error.errno not in _CANNOT_ZERO:
            raise
        return False
    return True
