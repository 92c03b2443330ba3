"""Memory that an image passes through: a few large, aligned buffers that know what in them is zeros."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator
from typing import Final

from snf_image_host.extents import GRANULE

_HUGE_PAGE: Final = 2 * 1024 * 1024
_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_zeros = mmap.mmap(-1, GRANULE)
_zeros_address = ctypes.addressof(ctypes.c_char.from_buffer(_zeros))


class Buffer:
    """A part of the memory, aligned for direct I/O."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(view))

    def runs(self, length: int) -> Iterator[tuple[int, int, bool]]:
        """Start, end and whether it is zeros, of the first ``length`` bytes in maximal runs.

        Runs begin and end at multiples of :data:`GRANULE`; the last one ends at ``length``.
        """
        start, kind = 0, None
        for at in range(0, length, GRANULE):
            is_zero = self._is_zero(at, min(GRANULE, length - at))
            if kind is not None and is_zero is not kind:
                yield start, at, kind
                start = at
            kind = is_zero
        if kind is not None:
            yield start, length, kind

    def is_zero(self, length: int) -> bool:
        """Whether the first ``length`` bytes are zeros."""
        return all(is_zero for _, _, is_zero in self.runs(length))

    def _is_zero(self, at: int, length: int) -> bool:
        # memcmp lets other threads run meanwhile, and stops at the first byte that differs.
        return bool(_libc.memcmp(self._address + at, _zeros_address, length) == 0)


def make_buffers(count: int, size: int) -> tuple[Buffer, ...]:
    """``count`` buffers of ``size`` bytes each, in huge pages where the kernel has them to give."""
    memory = mmap.mmap(-1, count * size + _HUGE_PAGE)
    with contextlib.suppress(OSError):
        # Direct I/O pins every page it uses: there are 512 times fewer huge ones.
        memory.madvise(mmap.MADV_HUGEPAGE)
    first = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _HUGE_PAGE
    whole = memoryview(memory)
    starts = range(first, first + count * size, size)
    return tuple(Buffer(whole[start : start + size]) for start in starts)
