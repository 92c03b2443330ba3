"""GUID partition tables: read from whichever copy is whole, and edited byte by byte (T-58).

Facts: UEFI specification, chapter "GUID Partition Table Disk Layout". A header of at least 92 bytes in
sector 1 and a copy in the disk's last sector; each names its array of entries and their CRC-32.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Final

from snf_image_helper import uuids
from snf_image_helper.errors import ImageError
from snf_image_helper.partition_table import mbr
from snf_image_helper.partition_table.table import SECTOR, Edit, Partition, ReadSectors, Steps, Table, Write
from snf_image_helper.partition_table.types import MBR_PROTECTIVE, mbr_type

MAGIC: Final = b"EFI PART"
MAX_ARRAY_SECTORS: Final = 2040
"""An array of entries must fit into the mebibyte that stays free at the end of the disk."""
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_PRIMARY_LBA: Final = 1
_FIRST_ARRAY_LBA: Final = 2
_LARGE_SECTOR: Final = 4096
_MAX_MBR_SECTORS: Final = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One whole copy of the table: its header's bytes and fields, and the array of entries."""

    header: bytes
    alternate_lba: int
    first_usable: int
    last_usable: int
    array_lba: int
    count: int
    entry_size: int
    array: bytes

    @property
    def array_sectors(self) -> int:
        return -(-len(self.array) // SECTOR)

    @property
    def meaning(self) -> tuple[object, ...]:
        """What both copies must agree on: bounds, disk GUID, shape and contents of the array."""
        return self.first_usable, self.last_usable, self.header[56:72], self.entry_size, self.array


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GptTable(Table):
    """A GPT. ``copy``: the copy that counts. ``stale``: the other must be written again wherever it is."""

    sector: bytes
    copy: Copy
    stale: bool
    primary_array_lba: int

    @property
    def last_usable(self) -> int:
        """Last sector partitions may have once the backup is at the end of this disk."""
        return self.disk_sectors - 2 - self.copy.array_sectors


def is_protective(sector: bytes) -> bool:
    """Whether an MBR says that a GPT follows (the kernel looks for one only then)."""
    return any(entry.type == MBR_PROTECTIVE for entry in mbr.entries(sector))


def parse(read: ReadSectors, disk_sectors: int) -> GptTable:
    """The table behind the protective MBR at sector 0.

    The primary copy counts if it is whole, else the backup. :class:`ImageError` if none is.
    """
    sector = read(0, 1)
    primary = read_copy(read, _PRIMARY_LBA, disk_sectors)
    places = dict.fromkeys(
        lba
        for lba in (
            primary.alternate_lba if primary else None,
            disk_sectors - 1,
            _protected_end(sector),
        )
        if lba is not None and _FIRST_ARRAY_LBA < lba < disk_sectors
    )
    found = ((lba, read_copy(read, lba, disk_sectors)) for lba in places)
    backup_lba, backup = next(((lba, copy) for lba, copy in found if copy), (None, None))
    chosen = primary or backup
    if chosen is None:
        if read(_LARGE_SECTOR // SECTOR, 1)[:8] == MAGIC:
            raise ImageError(
                "partition table: the GPT is of a disk with sectors of 4096 bytes; not supported"
            )
        raise ImageError("partition table: both copies of the GPT are damaged")
    warnings = _compare(primary, backup)
    at_end = primary is not None and primary.alternate_lba == disk_sectors - 1 == backup_lba
    warnings += _hybrid_warnings(sector)
    return GptTable(
        label="gpt",
        disk_sectors=disk_sectors,
        partitions=_partitions(chosen),
        warnings=warnings,
        sector=sector,
        copy=chosen,
        stale=not at_end or bool(_compare(primary, backup)),
        primary_array_lba=primary.array_lba if primary else _FIRST_ARRAY_LBA,
    )


def _compare(primary: Copy | None, backup: Copy | None) -> tuple[str, ...]:
    if primary is None:
        return ("the primary copy of the GPT is damaged; the backup is used",)
    if backup is None:
        return ("the backup copy of the GPT is damaged or missing; the primary is used",)
    if primary.meaning != backup.meaning:
        return ("the two copies of the GPT differ; the primary is used",)
    return ()


def read_copy(read: ReadSectors, lba: int, disk_sectors: int) -> Copy | None:
    """The copy whose header is at ``lba``, or None if it is damaged; :class:`ImageError` if absurd."""
    header = read(lba, 1)
    if len(header) < SECTOR or header[:8] != MAGIC:
        return None
    (_, _, size, crc, _, my_lba, alternate, first, last, _, array_lba, count, entry_size, array_crc) = (
        _HEADER.unpack_from(header)
    )
    if not _HEADER.size <= size <= SECTOR or my_lba != lba:
        return None
    if zlib.crc32(header[:16] + bytes(4) + header[20:size]) != crc:
        return None
    # From here on the header is what its maker meant.
    length = count * entry_size
    if entry_size < _ENTRY.size or entry_size % 8 or not 0 < length <= MAX_ARRAY_SECTORS * SECTOR:
        raise ImageError(f"partition table: {count} GPT entries of {entry_size} bytes are not supported")
    if array_lba < _FIRST_ARRAY_LBA or array_lba >= disk_sectors:
        return None
    array = read(array_lba, -(-length // SECTOR))[:length]
    if len(array) < length or zlib.crc32(array) != array_crc:
        return None
    return Copy(
        header=header,
        alternate_lba=alternate,
        first_usable=first,
        last_usable=last,
        array_lba=array_lba,
        count=count,
        entry_size=entry_size,
        array=array,
    )


def _partitions(copy: Copy) -> tuple[Partition, ...]:
    found = []
    for index in range(copy.count):
        kind, guid, start, end, _, name = _ENTRY.unpack_from(copy.array, index * copy.entry_size)
        if not any(kind):
            continue
        if end < start:
            raise ImageError(f"partition {index + 1}: ends at sector {end}, before its start {start}")
        found.append(
            Partition(
                number=index + 1,
                start=start,
                end=end,
                type=uuids.text_of_guid(kind).upper(),
                name=name.decode("utf-16-le", "replace").split("\0", 1)[0],
                uuid=uuids.text_of_guid(guid),
            )
        )
    return tuple(found)


def _protective_slot(sector: bytes) -> int | None:
    return next((i for i, entry in enumerate(mbr.entries(sector)) if entry.type == MBR_PROTECTIVE), None)


def _protected_end(sector: bytes) -> int | None:
    """Where the protective MBR says the disk ends: a damaged primary's backup is there."""
    slot = _protective_slot(sector)
    if slot is None:
        return None
    entry = mbr.entries(sector)[slot]
    return entry.start + entry.sectors - 1


def _hybrid_warnings(sector: bytes) -> tuple[str, ...]:
    foreign = [
        f"{slot + 1} ({mbr_type(entry.type)})"
        for slot, entry in enumerate(mbr.entries(sector))
        if entry.used and entry.type != MBR_PROTECTIVE
    ]
    if not foreign:
        return ()
    return (f"hybrid MBR: entries {', '.join(foreign)} are kept as they are beside the GPT",)


# -- editing --------------------------------------------------------------------------------------


def apply(table: GptTable, edit: Edit) -> Steps:
    """The writes that make the edit true: the backup, at the end of the disk, then the primary.

    Nothing is written if nothing changes and both copies are right and in their places.
    """
    boot = _protective(table)
    if not (edit.changes or table.stale or boot != table.sector):
        return ()
    array = _edited_array(table, edit)
    end = table.disk_sectors - 1
    backup_array_lba = end - table.copy.array_sectors
    backup = _header(table, array, lba=end, alternate=_PRIMARY_LBA, array_lba=backup_array_lba)
    primary = _header(table, array, lba=_PRIMARY_LBA, alternate=end, array_lba=table.primary_array_lba)
    padded = array + bytes(-len(array) % SECTOR)
    steps = [
        (Write(lba=backup_array_lba, data=padded),),
        (Write(lba=end, data=backup),),
    ]
    if boot != table.sector:
        steps.append((Write(lba=0, data=boot),))
    steps.append((Write(lba=table.primary_array_lba, data=padded),))
    steps.append((Write(lba=_PRIMARY_LBA, data=primary),))
    return tuple(steps)


def _edited_array(table: GptTable, edit: Edit) -> bytes:
    array = bytearray(table.copy.array)
    size = table.copy.entry_size
    for number, end in edit.ends:
        struct.pack_into("<Q", array, (number - 1) * size + 40, end)
    for added in edit.added:
        _ENTRY.pack_into(
            array, (added.number - 1) * size,
            uuids.bytes_of_guid(added.type), uuids.bytes_of_guid(added.uuid),
            added.start, added.end, 0, added.name.encode("utf-16-le"),
        )  # fmt: skip
    return bytes(array)


def _header(table: GptTable, array: bytes, *, lba: int, alternate: int, array_lba: int) -> bytes:
    """The header for one place; revision, disk GUID, first usable sector and unknown bytes are kept."""
    header = bytearray(table.copy.header)
    size = struct.unpack_from("<I", header, 12)[0]
    struct.pack_into("<QQQQ", header, 24, lba, alternate, table.copy.first_usable, table.last_usable)
    struct.pack_into("<Q", header, 72, array_lba)
    struct.pack_into("<I", header, 88, zlib.crc32(array))
    struct.pack_into("<I", header, 16, 0)
    struct.pack_into("<I", header, 16, zlib.crc32(header[:size]))
    return bytes(header)


def _protective(table: GptTable) -> bytes:
    """The boot sector with a protective entry that covers this disk; boot code and the rest are kept.

    In a hybrid MBR the entry is renewed only if it covered the whole old disk: else it guards just the
    table, and what lies behind belongs to the other entries.
    """
    slot = _protective_slot(table.sector)
    if slot is None:
        return table.sector
    found = mbr.entries(table.sector)
    entry = found[slot]
    alone = not any(other.used for place, other in enumerate(found) if place != slot)
    covered = entry.start + entry.sectors - 1
    sectors = min(table.disk_sectors - 1, _MAX_MBR_SECTORS)
    if (not alone and covered < table.copy.last_usable) or (entry.start, entry.sectors) == (1, sectors):
        return table.sector
    boot = bytearray(table.sector)
    at = 446 + 16 * slot
    if boot[at + 5 : at + 8] != b"\xff\xff\xff":
        boot[at + 5 : at + 8] = mbr.chs(table.disk_sectors - 1)
    struct.pack_into("<II", boot, at + 8, 1, sectors)
    return bytes(boot)
