"""BSD disklabels of OpenBSD and NetBSD: read, enlarged (R-TASK-FIX-12, R-TASK-FIX-13).

The label is the second sector of its slice: an MBR partition of type a6 or a9, or OpenBSD's GPT partition.
Its offsets count from the start of the disk. Only what changes is written; all else stays byte for byte.
"""

from __future__ import annotations

import dataclasses
import string
import struct
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.errors import ImageError

LABEL_SECTOR: Final = 1
LABEL_BYTES: Final = 512
FS_UNUSED: Final = 0
FS_SWAP: Final = 1
FS_BSDFFS: Final = 7
_MAGIC: Final = 0x82564557
_MAGIC_OFFSETS: Final = (0, 132)
_CHECKSUM: Final = 136
_COUNT: Final = 138
_TABLE: Final = 148
_ENTRY: Final = 16
_MAX_PARTITIONS: Final = 22
_SECTORS, _TRACKS, _CYLINDERS, _PER_CYLINDER, _PER_UNIT = 44, 48, 52, 56, 60
_DUID: Final = slice(64, 72)
_END_HIGH: Final = 78
_END: Final = 84
_PER_UNIT_HIGH: Final = 112
_C, _D = 2, 3
_OPENBSD_ROUNDING: Final = 32
_NETBSD_LARGE: Final = 16514064
_NETBSD_MOST_CYLINDERS: Final = 16383


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelPartition:
    """One partition of a label; ``start`` and ``sectors`` as the disk counts them."""

    index: int
    start: int
    sectors: int
    fstype: int

    @property
    def letter(self) -> str:
        return string.ascii_lowercase[self.index]

    @property
    def end(self) -> int:
        """The sector behind the last one."""
        return self.start + self.sectors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disklabel:
    """A label as it was read: its sector, whose system it is of, its partitions that are not empty."""

    data: bytes
    family: OsFamily
    partitions: tuple[LabelPartition, ...]

    @property
    def duid(self) -> str:
        """What OpenBSD calls the disk: 16 hexadecimal digits; empty on others."""
        return self.data[_DUID].hex() if self.family is OsFamily.OPENBSD else ""

    def find(self, letter: str) -> LabelPartition | None:
        return next((entry for entry in self.partitions if entry.letter == letter), None)

    @property
    def inner(self) -> tuple[LabelPartition, ...]:
        """The partitions that do not stand for the whole disk or slice."""
        whole = (_C, _D) if self.family is OsFamily.NETBSD else (_C,)
        return tuple(entry for entry in self.partitions if entry.index not in whole)

    def last(self) -> LabelPartition | None:
        """The partition that ends last, of those that hold something."""
        held = [entry for entry in self.inner if entry.fstype != FS_UNUSED]
        return max(held, key=lambda entry: (entry.end, entry.start), default=None)


def parse(data: bytes, family: OsFamily) -> Disklabel | None:
    """The label in a sector; None if there is none. :class:`ImageError` if it is damaged."""
    if len(data) < LABEL_BYTES or any(_word(data, at) != _MAGIC for at in _MAGIC_OFFSETS):
        return None
    (count,) = struct.unpack_from("<H", data, _COUNT)
    if not 0 < count <= _MAX_PARTITIONS or checksum(data) != struct.unpack_from("<H", data, _CHECKSUM)[0]:
        raise ImageError("the disklabel is damaged: its checksum or its number of partitions is wrong")
    entries = (_entry(data, index, family) for index in range(count))
    found = tuple(entry for entry in entries if entry.sectors)
    return Disklabel(data=bytes(data[:LABEL_BYTES]), family=family, partitions=found)


def _word(data: bytes | bytearray, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])


def checksum(data: bytes | bytearray) -> int:
    """XOR of the 16-bit words up to the last partition, the checksum itself taken as 0."""
    (count,) = struct.unpack_from("<H", data, _COUNT)
    value = 0
    for at in range(0, _TABLE + _ENTRY * count, 2):
        if at != _CHECKSUM:
            value ^= int.from_bytes(data[at : at + 2], "little")
    return value


def _entry(data: bytes, index: int, family: OsFamily) -> LabelPartition:
    at = _TABLE + _ENTRY * index
    size, start, start_high, size_high, fstype = struct.unpack_from("<IIHHB", data, at)
    if family is OsFamily.OPENBSD:
        size, start = size | size_high << 32, start | start_high << 32
    return LabelPartition(index=index, start=start, sectors=size, fstype=fstype)


def enlarged(label: Disklabel, *, disk_sectors: int, slice_start: int, slice_end: int) -> bytes:
    """The label's sector for a disk of that size and a slice that ends before ``slice_end``.

    The last partition grows unless it is swap (T-65). :class:`ImageError` for a partition outside of the
    disk.
    """
    data = bytearray(label.data)
    outside = [entry.letter for entry in label.inner if entry.end > disk_sectors]
    if outside:
        raise ImageError(f"disklabel: partition {outside[0]} lies outside of the disk")
    per_cylinder = max(1, _word(data, _SECTORS) * _word(data, _TRACKS))
    if label.family is OsFamily.OPENBSD:
        usable = _set_disk_of_openbsd(data, disk_sectors, slice_end, per_cylinder)
    else:
        usable = _set_disk_of_netbsd(data, disk_sectors, slice_start, slice_end, per_cylinder)
    last = label.last()
    if last is not None and last.fstype != FS_SWAP:
        size = usable - last.start
        if label.family is OsFamily.OPENBSD:
            size = size // _OPENBSD_ROUNDING * _OPENBSD_ROUNDING
        if size > last.sectors:
            _set_size(data, last.index, size, label.family)
    struct.pack_into("<H", data, _CHECKSUM, checksum(data))
    return bytes(data)


def _set_disk_of_openbsd(data: bytearray, disk: int, slice_end: int, per_cylinder: int) -> int:
    cylinders = disk // per_cylinder
    struct.pack_into("<I", data, _CYLINDERS, min(cylinders, 0xFFFFFFFF))
    struct.pack_into("<I", data, _PER_UNIT, disk & 0xFFFFFFFF)
    struct.pack_into("<H", data, _PER_UNIT_HIGH, disk >> 32)
    usable = min(slice_end, cylinders * per_cylinder)
    usable = usable // per_cylinder * per_cylinder
    struct.pack_into("<I", data, _END, usable & 0xFFFFFFFF)
    struct.pack_into("<H", data, _END_HIGH, usable >> 32)
    _set_size(data, _C, disk, OsFamily.OPENBSD)
    return usable


def _set_disk_of_netbsd(
    data: bytearray, disk: int, slice_start: int, slice_end: int, per_cylinder: int
) -> int:
    size = min(disk, 0xFFFFFFFF)
    cylinders = _NETBSD_MOST_CYLINDERS if disk >= _NETBSD_LARGE else disk // per_cylinder
    struct.pack_into("<I", data, _CYLINDERS, cylinders)
    struct.pack_into("<I", data, _PER_UNIT, size)
    _set_size(data, _C, slice_end - slice_start, OsFamily.NETBSD)
    _set_size(data, _D, size, OsFamily.NETBSD)
    return min(slice_end, size)


def _set_size(data: bytearray, index: int, size: int, family: OsFamily) -> None:
    (count,) = struct.unpack_from("<H", data, _COUNT)
    if index >= count:
        return
    at = _TABLE + _ENTRY * index
    struct.pack_into("<I", data, at, size & 0xFFFFFFFF)
    if family is OsFamily.OPENBSD:
        struct.pack_into("<H", data, at + 10, size >> 32)
