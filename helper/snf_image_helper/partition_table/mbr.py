"""MBR partition tables: read, and edited byte by byte (T-50, T-51, T-58).

Facts: the boot sector has boot code (440 bytes), the disk signature (4), two bytes, four entries of 16
bytes, and 55 AA. Logical partitions are a chain of extended boot records (EBR) inside the container; each
record describes one partition relative to itself and names the next record relative to the container.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

from snf_image_helper.errors import ImageError
from snf_image_helper.partition_table.table import SECTOR, Edit, Partition, ReadSectors, Steps, Table, Write
from snf_image_helper.partition_table.types import MBR_EBR_LINK, MBR_EXTENDED, mbr_type

MAX_CHAIN: Final = 128
"""Records of a chain that are followed (R-TASK-FIX-4)."""
_ENTRIES_AT: Final = 446
_ENTRY: Final = struct.Struct("<B3sB3sII")
_SIGNATURE: Final = b"\x55\xaa"
_HEADS: Final = 255
_TRACK: Final = 63
_CHS_CAP: Final = (1023, 254, 63)
FIRST_LOGICAL: Final = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One of the four entries of a record, as it stands there; ``start`` is relative to whatever applies."""

    status: int
    type: int
    start: int
    sectors: int

    @property
    def used(self) -> bool:
        return self.type != 0 and self.sectors != 0

    @property
    def extended(self) -> bool:
        return self.used and self.type in MBR_EXTENDED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One extended boot record: where it is, its bytes, what it describes, and where it names the next.

    ``slot`` is that of ``partition``. A record may describe nothing.
    """

    lba: int
    data: bytes
    slot: int = 0
    partition: Partition | None = None
    link_slot: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MbrTable(Table):
    """An MBR with its boot sector and its chain of extended boot records."""

    sector: bytes
    chain: tuple[Record, ...] = ()

    def partition_uuid(self, number: int) -> str:
        """What PARTUUID= names: the disk signature and the number."""
        return _partition_uuid(self.sector, number)


def _partition_uuid(sector: bytes, number: int) -> str:
    return f"{struct.unpack_from('<I', sector, 440)[0]:08x}-{number:02x}"


def entries(sector: bytes) -> tuple[Entry, ...]:
    """The four entries of a boot sector or an extended boot record."""
    found = (_ENTRY.unpack_from(sector, _ENTRIES_AT + 16 * slot) for slot in range(4))
    return tuple(Entry(status=e[0], type=e[2], start=e[4], sectors=e[5]) for e in found)


def looks_like_mbr(sector: bytes) -> bool:
    """Whether a first sector is an MBR and not the boot sector of a file system.

    The kernel's rule: the signature, no FAT or NTFS boot sector, and only 0 and 0x80 as status bytes.
    """
    if len(sector) < SECTOR or sector[510:512] != _SIGNATURE:
        return False
    if sector[3:11] in (b"NTFS    ", b"EXFAT   ", b"-FVE-FS-"):
        return False
    if sector[54:57] == b"FAT" or sector[82:85] == b"FAT":
        return False
    return all(entry.status in (0, 0x80) for entry in entries(sector))


def parse(read: ReadSectors, disk_sectors: int) -> MbrTable:
    """The table whose boot sector was found at sector 0; :class:`ImageError` if its chain is broken."""
    sector = read(0, 1)
    partitions = [
        Partition(
            number=slot + 1,
            start=entry.start,
            end=entry.start + entry.sectors - 1,
            type=mbr_type(entry.type),
            kind="extended" if entry.extended else "primary",
            uuid=_partition_uuid(sector, slot + 1),
        )
        for slot, entry in enumerate(entries(sector))
        if entry.used
    ]
    containers = [entry for entry in partitions if entry.kind == "extended"]
    if len(containers) > 1:
        numbers = ", ".join(str(entry.number) for entry in containers)
        raise ImageError(f"partition table: more than one extended partition ({numbers})")
    chain: tuple[Record, ...] = ()
    if containers:
        chain = _follow(read, containers[0], sector)
        partitions += [record.partition for record in chain if record.partition is not None]
    return MbrTable(
        label="mbr", disk_sectors=disk_sectors, partitions=tuple(partitions), sector=sector, chain=chain
    )


def _follow(read: ReadSectors, container: Partition, boot: bytes) -> tuple[Record, ...]:
    """The chain of extended boot records, numbered as the kernel does: in the order of the chain."""
    chain: list[Record] = []
    seen: set[int] = set()
    lba, number = container.start, FIRST_LOGICAL
    while True:
        where = f"partition {container.number}: extended boot record at sector {lba}"
        if lba in seen or len(chain) >= MAX_CHAIN:
            raise ImageError(f"{where}: the chain of logical partitions does not end")
        if not container.start <= lba <= container.end:
            raise ImageError(f"{where}: outside of the extended partition")
        seen.add(lba)
        data = read(lba, 1)
        if len(data) < SECTOR:
            raise ImageError(f"{where}: beyond the end of the disk")
        record = _read_record(data, lba, number, boot)
        chain.append(record)
        number += record.partition is not None
        if record.link_slot is None:
            return tuple(chain)
        lba = container.start + entries(record.data)[record.link_slot].start


def _read_record(data: bytes, lba: int, number: int, boot: bytes) -> Record:
    if data[510:512] != _SIGNATURE:
        # Some programs leave it so: an extended partition without a first record is empty.
        return Record(lba=lba, data=bytes(SECTOR))
    slots = entries(data)
    held = [slot for slot, entry in enumerate(slots) if entry.used and not entry.extended]
    links = [slot for slot, entry in enumerate(slots) if entry.extended]
    if len(held) > 1:
        raise ImageError(f"extended boot record at sector {lba}: describes {len(held)} partitions, not one")
    link_slot = links[0] if links else None
    if not held:
        return Record(lba=lba, data=data, link_slot=link_slot)
    entry = slots[held[0]]
    start = lba + entry.start
    partition = Partition(
        number=number,
        start=start,
        end=start + entry.sectors - 1,
        type=mbr_type(entry.type),
        kind="logical",
        uuid=_partition_uuid(boot, number),
    )
    return Record(lba=lba, data=data, slot=held[0], partition=partition, link_slot=link_slot)


# -- editing --------------------------------------------------------------------------------------


def chs(lba: int) -> bytes:
    """The three bytes of a cylinder-head-sector address, capped (R-TASK-FIX-2)."""
    cylinder, rest = divmod(lba, _HEADS * _TRACK)
    head, sector = divmod(rest, _TRACK)
    cylinder, head, sector = (cylinder, head, sector + 1) if cylinder <= _CHS_CAP[0] else _CHS_CAP
    return bytes((head, sector | (cylinder >> 2) & 0xC0, cylinder & 0xFF))


def _place(record: bytearray, slot: int, partition: Partition, *, base: int) -> None:
    """Write a new entry, its start relative to sector ``base``."""
    _ENTRY.pack_into(
        record, _ENTRIES_AT + 16 * slot,
        0, chs(partition.start), int(partition.type, 16), chs(partition.end),
        partition.start - base, partition.sectors,
    )  # fmt: skip


def _stretch(record: bytearray, slot: int, start: int, end: int) -> None:
    """Give an existing entry a new absolute last sector; all its other bytes stay."""
    at = _ENTRIES_AT + 16 * slot
    record[at + 5 : at + 8] = chs(end)
    struct.pack_into("<I", record, at + 12, end - start + 1)


def free_slot(sector: bytes) -> int | None:
    """Lowest slot of a record that is not in use."""
    return next((slot for slot, entry in enumerate(entries(sector)) if entry.type == 0), None)


def apply(table: MbrTable, edit: Edit) -> Steps:
    """The writes that make the edit true: new and changed records first, the boot sector last."""
    boot = bytearray(table.sector)
    records = {record.lba: bytearray(record.data) for record in table.chain}
    ends = dict(edit.ends)
    for entry in table.partitions:
        if entry.number in ends and entry.kind != "logical":
            _stretch(boot, entry.number - 1, entry.start, ends[entry.number])
    for index, record in enumerate(table.chain):
        if record.partition is not None and record.partition.number in ends:
            end = ends[record.partition.number]
            _stretch(records[record.lba], record.slot, record.partition.start, end)
            _stretch_link(table, records, index, end)
    for added in edit.added:
        if added.kind == "logical":
            _append_logical(table, records, added, _record_for(edit))
        else:
            _place(boot, added.number - 1, added, base=0)
    # A record that is not linked yet harms nobody, so the end of the chain is written first.
    old = {record.lba: record.data for record in table.chain}
    changed = sorted((lba for lba, data in records.items() if old.get(lba, b"") != data), reverse=True)
    changed.sort(key=lambda lba: lba in old)
    steps = [(Write(lba=lba, data=bytes(records[lba])),) for lba in changed]
    if boot != table.sector:
        steps.append((Write(lba=0, data=bytes(boot)),))
    return tuple(steps)


def _stretch_link(table: MbrTable, records: dict[int, bytearray], index: int, end: int) -> None:
    """The link to record ``index`` says how far that reaches."""
    before = table.chain[index - 1] if index else None
    if before is not None and before.link_slot is not None:
        _stretch(records[before.lba], before.link_slot, table.chain[index].lba, end)


def _record_for(edit: Edit) -> int:
    if edit.ebr is None:
        raise ValueError("a logical partition needs a record")
    return edit.ebr


def _append_logical(table: MbrTable, records: dict[int, bytearray], added: Partition, lba: int) -> None:
    """Describe a new logical partition at the chain's end, or in the first record if that is unused."""
    record = records.setdefault(lba, bytearray(SECTOR))
    record[510:512] = _SIGNATURE
    _place(record, 0, added, base=lba)
    if table.chain and lba != table.chain[-1].lba:
        last = table.chain[-1]
        slot = 0 if last.partition is not None and last.slot == 1 else 1
        link = Partition(number=0, start=lba, end=added.end, type=mbr_type(MBR_EBR_LINK))
        _place(records[last.lba], slot, link, base=table.chain[0].lba)
