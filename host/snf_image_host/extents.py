"""Where a file has data and where it has holes, in parts that are worth a read each."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator
from typing import Final

GRANULE: Final = 64 * 1024
"""Data begins and ends at multiples of this many bytes, so that it can be written past the page cache."""
MIN_HOLE: Final = 1024 * 1024
"""Smaller holes are read like data: that costs less than to end one read and begin another."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extent:
    """A range of an image: data to be read, or a hole that reads as zeros. In bytes."""

    offset: int
    length: int
    is_hole: bool

    def parts(self, longest: int) -> Iterator[tuple[int, int]]:
        """Offset and length of each part of at most ``longest`` bytes, in order."""
        end = self.offset + self.length
        for offset in range(self.offset, end, longest):
            yield offset, min(longest, end - offset)


def extents(fd: int, size: int) -> Iterator[Extent]:
    """The extents of a file of ``size`` bytes in order, without gaps; one of data if holes are not known."""
    at = 0
    for start, end in _worthwhile(_data(fd, size), size):
        if start > at:
            yield Extent(at, start - at, is_hole=True)
        yield Extent(start, end - start, is_hole=False)
        at = end
    if at < size:
        yield Extent(at, size - at, is_hole=True)


def _worthwhile(ranges: Iterator[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """``ranges`` with aligned ends, those with little between them as one."""
    whole: tuple[int, int] | None = None
    for first, last in ranges:
        start = first // GRANULE * GRANULE
        end = min(size, -(-last // GRANULE) * GRANULE)
        if whole is not None and start - whole[1] < MIN_HOLE:
            whole = (whole[0], max(whole[1], end))
            continue
        if whole is not None:
            yield whole
        whole = (start, end)
    if whole is not None:
        yield whole


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each range of data."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            # ENXIO: nothing but a hole up to the end. Anything else: holes are not known here.
            if error.errno != errno.ENXIO:
                yield offset, size
            return
        yield start, min(end, size)
        offset = end
