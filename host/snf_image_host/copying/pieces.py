"""What of an image is data and what is zeros, without reading more than needed."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import mmap
import os
from collections.abc import Iterator
from typing import Final

GRANULE: Final = 64 * 1024
"""Runs of zeros are looked for in units of this many bytes."""

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclasses.dataclass(frozen=True, slots=True)
class Extent:
    """A range of a file: data to be read, or a hole that reads as zeros."""

    offset: int
    length: int
    is_hole: bool


def extents(fd: int, size: int) -> Iterator[Extent]:
    """Data and holes of a file in order, by SEEK_DATA and SEEK_HOLE; all data where these are unknown."""
    offset = 0
    while offset < size:
        try:
            data = min(os.lseek(fd, offset, os.SEEK_DATA), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                data = size  # nothing but a hole up to the end
            else:
                yield Extent(offset, size - offset, is_hole=False)
                return
        if data > offset:
            yield Extent(offset, data - offset, is_hole=True)
        if data == size:
            return
        end = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        yield Extent(data, end - data, is_hole=False)
        offset = end


class Buffer:
    """Page-aligned memory that data is read into; knows where in it nothing but zeros lies."""

    _zeros = mmap.mmap(-1, GRANULE)

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size)
        self.view = memoryview(self._memory)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._zero_address = ctypes.addressof(ctypes.c_char.from_buffer(self._zeros))

    def runs(self, length: int) -> Iterator[tuple[int, int, bool]]:
        """Start, end and whether it is zeros, of the first ``length`` bytes in maximal runs."""
        start, kind = 0, None
        for at in range(0, length, GRANULE):
            is_zero = self._is_zero(at, min(GRANULE, length - at))
            if kind is not None and is_zero is not kind:
                yield start, at, kind
                start = at
            kind = is_zero
        if kind is not None:
            yield start, length, kind

    def _is_zero(self, at: int, length: int) -> bool:
        # memcmp lets other threads run meanwhile, and stops at the first byte that differs.
        return bool(_libc.memcmp(self._address + at, self._zero_address, length) == 0)
