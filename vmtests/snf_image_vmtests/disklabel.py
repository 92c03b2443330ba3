"""Disklabels of NetBSD and OpenBSD: what partitions a slice of an image has inside.

disklabel(5): the second sector of the slice, in the byte order of the machine that wrote it: a magic number
at 0 and 132, sectors of a track at 44, tracks of a cylinder at 48, the number of partitions at 138, from 148
on 16 bytes for each of them: size, start, on OpenBSD the upper 16 bits of either from 8 on (start first), the
type at 12. Starts count from the disk's own beginning. All 16-bit words up to the last partition XOR to 0.

The image is somebody else's: one sector of it is read, and no number in that is believed uncompared.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import os
import struct
from typing import Final

SECTOR: Final = 512
SLICES: Final = {
    "netbsd": ("a9",),
    "openbsd": ("a6", "824CC7A0-36A8-11E3-890A-952519AD3F61"),
}
"""Types of the MBR's and the GPT's partitions that may have a label, by family, as sfdisk writes them."""
_MAGIC: Final = 0x82564557
_GEOMETRY, _COUNT, _ROWS, _ROW = 44, 138, 148, 16
_MOST: Final = (SECTOR - _ROWS) // _ROW
_WHOLE: Final = {"netbsd": "cd", "openbsd": "c"}
"""Letters that stand for the whole disk or slice."""
_UNUSED: Final = 0


class DisklabelError(Exception):
    """A label that nobody should use; the text says what is wrong with it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Where something is on the disk, in sectors of 512 bytes."""

    start: int
    sectors: int

    @property
    def end(self) -> int:
        """The sector behind the last one."""
        return self.start + self.sectors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disklabel:
    """The partitions in use inside a slice, by letter, and how many sectors a cylinder has."""

    partitions: dict[str, Extent]
    cylinder: int


def read(path: str, place: Extent, family: str) -> Disklabel | None:
    """The label of the slice at ``place``; None if it has none.

    :class:`DisklabelError` for a damaged label, and for partitions that leave the slice or overlap. Those
    that lie elsewhere on the disk are left out: OpenBSD names the partition table's others in its label.
    """
    with open(path, "rb") as file:
        data = os.pread(file.fileno(), SECTOR, (place.start + 1) * SECTOR) if place.sectors > 1 else b""
        disk = os.fstat(file.fileno()).st_size // SECTOR
    order = _byte_order(data)
    if order is None:
        return None
    found = {}
    for letter, extent in _rows(data, order, family).items():
        if extent.end > disk:
            raise DisklabelError(f"partition {letter} of the disklabel lies outside of the disk")
        if extent.end <= place.start or place.end <= extent.start:
            continue
        if extent.start < place.start or place.end < extent.end:
            raise DisklabelError(f"partition {letter} of the disklabel leaves its slice")
        found[letter] = extent
    ordered = sorted(found, key=lambda letter: found[letter].start)
    for one, other in itertools.pairwise(ordered):
        if found[one].end > found[other].start:
            raise DisklabelError(f"partitions {one} and {other} of the disklabel overlap")
    track, tracks = struct.unpack_from(f"{order}II", data, _GEOMETRY)
    if not 0 < track * tracks <= place.sectors:
        raise DisklabelError(f"the disklabel's cylinders have {track * tracks} sectors")
    return Disklabel(partitions=found, cylinder=track * tracks)


def _byte_order(data: bytes) -> str | None:
    """``<`` or ``>`` as in :mod:`struct`; None without both magic numbers."""
    if len(data) < SECTOR:
        return None
    for order in "<>":
        if struct.unpack_from(f"{order}I128xI", data) == (_MAGIC, _MAGIC):
            return order
    return None


def _rows(data: bytes, order: str, family: str) -> dict[str, Extent]:
    """What the label says, by letter, without what is unused or stands for the whole."""
    (count,) = struct.unpack_from(f"{order}H", data, _COUNT)
    if not 0 < count <= _MOST:
        raise DisklabelError(f"the disklabel has {count} partitions, expected 1 to {_MOST}")
    # Which byte of a word comes first is all the same where the result must be 0.
    if functools.reduce(operator.xor, struct.unpack_from(f"{(_ROWS + count * _ROW) // 2}H", data)):
        raise DisklabelError("the disklabel's checksum is wrong")
    found = {}
    for index in range(count):
        at = _ROWS + index * _ROW
        size, start, start_high, size_high, kind = struct.unpack_from(f"{order}IIHHB", data, at)
        if family == "openbsd":
            size, start = size | size_high << 32, start | start_high << 32
        letter = chr(ord("a") + index)
        if size and kind != _UNUSED and letter not in _WHOLE[family]:
            found[letter] = Extent(start=start, sectors=size)
    return found
