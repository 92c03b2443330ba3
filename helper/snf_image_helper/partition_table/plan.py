"""Which partition grows, where it ends, and where a new swap partition goes: decided, not yet written."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Final

from snf_image_contract.job import SwapPartition
from snf_image_helper import uuids
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.partition_table.gpt import GptTable
from snf_image_helper.partition_table.mbr import FIRST_LOGICAL, MbrTable, free_slot
from snf_image_helper.partition_table.table import MEBIBYTE, Edit, Partition, Table
from snf_image_helper.partition_table.types import GPT_SWAP, MBR_NEW_CONTAINER, MBR_SWAP, Purpose, mbr_type

MBR_LIMIT: Final = 1 << 32
"""Sectors an MBR can address."""
KERNEL_PARTITIONS: Final = 255
"""Highest partition number the kernel gives a device to."""


def last_sector(table: Table) -> int:
    """The last sector partitions may have: mebibyte-aligned, a mebibyte stays free (R-TASK-FIX-1)."""
    end = (table.disk_sectors - MEBIBYTE) // MEBIBYTE * MEBIBYTE - 1
    return min(end, MBR_LIMIT - 1) if table.label == "mbr" else end


def resize_partition(table: Table) -> int | None:
    """Number of the partition whose file system is to grow, None if none may (R-GROW-1 to R-GROW-3).

    A partition that reaches the end already still counts: its file system may not fill it.
    """
    if not table.partitions:
        return None
    last = _growing(table)[-1]
    return None if last.kind == "extended" or last.purpose is not None else last.number


def _growing(table: Table) -> tuple[Partition, ...]:
    """The partition with the highest end; or an MBR's container and its physically last logical one."""
    last = max(table.partitions, key=lambda entry: entry.end)
    container = table.container
    if container is None or last.kind == "primary":
        return (last,)
    return (container, *sorted(table.logical, key=lambda entry: entry.end)[-1:])


def check(table: Table) -> None:
    """:class:`ImageError` if entries overlap each other or the table, or leave the disk (R-TASK-FIX-4)."""
    if not table.partitions:
        raise ImageError("no partition found on the disk")
    first = _reserved_start(table)
    for entry in table.partitions:
        where = f"partition {entry.number}: sectors {entry.start} to {entry.end}"
        if entry.start < first:
            raise ImageError(f"{where}: overlaps the partition table")
        if entry.end >= table.disk_sectors:
            raise ImageError(f"{where}: beyond the disk, which has {table.disk_sectors} sectors")
        if isinstance(table, GptTable) and entry.end > table.last_usable:
            raise ImageError(f"{where}: no room for the backup of the partition table behind it")
    _check_apart([entry for entry in table.partitions if entry.kind != "logical"])
    _check_apart(list(table.logical))
    if isinstance(table, MbrTable):
        _check_logical(table)


def _reserved_start(table: Table) -> int:
    """First sector that is not the table's own."""
    if isinstance(table, GptTable):
        return table.primary_array_lba + table.copy.array_sectors
    return 1


def _check_apart(partitions: list[Partition]) -> None:
    ordered = sorted(partitions, key=lambda entry: entry.start)
    for one, two in itertools.pairwise(ordered):
        if two.start <= one.end:
            raise ImageError(f"partitions {one.number} and {two.number} overlap at sector {two.start}")


def _check_logical(table: MbrTable) -> None:
    container = table.container
    for entry in table.logical:
        if container is None or not container.start < entry.start <= entry.end <= container.end:
            raise ImageError(f"partition {entry.number}: leaves the extended partition")
        for record in table.chain:
            if entry.start <= record.lba <= entry.end:
                raise ImageError(f"partition {entry.number}: covers the extended boot record {record.lba}")


def plan(table: Table, swap: SwapPartition | None) -> Edit:
    """What FixPartitionTable changes.

    :class:`ImageError`: the table is unusable. :class:`RequestError`: the swap partition cannot be made.
    """
    check(table)
    warnings = list(table.warnings)
    if table.label == "mbr" and table.disk_sectors - MEBIBYTE > MBR_LIMIT:
        warnings.append("the disk is larger than an MBR can address: only its first 2 TiB are used")
    if swap is not None and _has(table, swap):
        warnings.append(f"partition {swap.number} is a swap partition already and is kept")
        swap = None
    place = _Place.none(last_sector(table)) if swap is None else _place(table, swap)
    ends = _ends(table, place, warnings)
    return Edit(ends=tuple(ends.items()), added=place.added, ebr=place.ebr, warnings=tuple(warnings))


def _asked(swap: SwapPartition) -> str:
    return f"SWAP={swap.number}:{swap.megabytes}"


def _has(table: Table, swap: SwapPartition) -> bool:
    """Whether the wanted swap partition exists (R-TASK-FIX-10)."""
    found = table.find(swap.number)
    if found is None:
        return False
    if found.purpose is not Purpose.SWAP:
        raise RequestError(
            f"{_asked(swap)}: partition {swap.number} exists and is no swap partition (type {found.type})"
        )
    if found.sectors < swap.megabytes * MEBIBYTE:
        raise RequestError(
            f"{_asked(swap)}: partition {swap.number} exists and has {found.sectors // MEBIBYTE} MiB only"
        )
    return True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the new partitions go, and what that leaves for the old ones.

    ``first``: first sector that must be free. ``limit``: last sector for what grows. ``inside``: the new
    partition goes into the container that exists, which then ends at ``container_end``.
    """

    first: int
    limit: int
    container_end: int
    inside: bool = False
    added: tuple[Partition, ...] = ()
    ebr: int | None = None

    @classmethod
    def none(cls, end: int) -> _Place:
        """Nothing new: everything up to ``end`` is for what grows."""
        return cls(first=end + 1, limit=end, container_end=end)

    @classmethod
    def behind(cls, *new: Partition, ebr: int | None = None) -> _Place:
        """The first of the new partitions begins behind all that exist."""
        first = new[0].start
        return cls(first=first, limit=first - 1, container_end=first - 1, added=new, ebr=ebr)


def _place(table: Table, swap: SwapPartition) -> _Place:
    """Where the new swap partition goes, if there is room (R-TASK-FIX-5 to R-TASK-FIX-9)."""
    end = last_sector(table)
    start = end - swap.megabytes * MEBIBYTE + 1
    new = Partition(number=swap.number, start=start, end=end, type=mbr_type(MBR_SWAP))
    if isinstance(table, MbrTable):
        new = dataclasses.replace(new, uuid=table.partition_uuid(swap.number))
        place = _place_in_mbr(table, swap, new)
    elif isinstance(table, GptTable):
        if not 1 <= swap.number <= min(table.copy.count, KERNEL_PARTITIONS):
            raise RequestError(f"{_asked(swap)}: the partition table has {table.copy.count} entries")
        new = dataclasses.replace(new, type=GPT_SWAP, name="swap", uuid=uuids.new())
        place = _Place.behind(new)
    else:
        raise TypeError(f"unknown table {type(table).__name__}")
    _demand_room(table, swap, place)
    return place


def _place_in_mbr(table: MbrTable, swap: SwapPartition, new: Partition) -> _Place:
    if swap.number < FIRST_LOGICAL:
        return _Place.behind(new)
    logical = dataclasses.replace(new, kind="logical")
    if table.container is None:
        return _new_container(table, swap, logical)
    return _in_container(table, table.container, swap, logical)


def _new_container(table: MbrTable, swap: SwapPartition, new: Partition) -> _Place:
    """An extended partition for the swap partition alone (R-TASK-FIX-7)."""
    if swap.number != FIRST_LOGICAL:
        raise RequestError(f"{_asked(swap)}: the first logical partition gets number {FIRST_LOGICAL}")
    slot = free_slot(table.sector)
    if slot is None:
        raise RequestError(f"{_asked(swap)}: none of the four primary entries is free for an extended one")
    container = Partition(
        number=slot + 1,
        start=new.start - MEBIBYTE,
        end=new.end,
        type=mbr_type(MBR_NEW_CONTAINER),
        kind="extended",
        uuid=table.partition_uuid(slot + 1),
    )
    return _Place.behind(container, new, ebr=container.start)


def _in_container(table: Table, container: Partition, swap: SwapPartition, new: Partition) -> _Place:
    """One more logical partition in the extended one that exists (R-TASK-FIX-8, T-50)."""
    for entry in table.partitions:
        if entry.kind == "primary" and entry.start > container.end:
            raise RequestError(
                f"{_asked(swap)}: extended partition {container.number} cannot be enlarged:"
                f" partition {entry.number} lies behind it"
            )
    number = FIRST_LOGICAL + len(table.logical)
    if swap.number != number:
        raise RequestError(f"{_asked(swap)}: a new logical partition would get number {number}")
    if table.logical:
        ebr = first = new.start - MEBIBYTE
    else:
        # The first record of a chain is always in the first sector of its container.
        ebr, first = container.start, new.start
    return _Place(first=first, limit=first - 1, container_end=new.end, inside=True, added=(new,), ebr=ebr)


def _demand_room(table: Table, swap: SwapPartition, place: _Place) -> None:
    """The new partitions must begin behind everything that exists (R-TASK-FIX-5)."""
    taken = [
        (entry.end, f"partition {entry.number}")
        for entry in table.partitions
        if not (place.inside and entry.kind == "extended")
    ]
    if place.inside and isinstance(table, MbrTable):
        taken += [(record.lba, "an extended boot record") for record in table.chain]
    end, what = max(taken)
    if place.first > end:
        return
    missing = -(-(end + 1 - place.first) // MEBIBYTE)
    raise RequestError(
        f"{_asked(swap)}: not enough space: {swap.megabytes} MiB of swap would have to begin at sector"
        f" {place.first}, but {what} ends at sector {end} of {table.disk_sectors};"
        f" the disk is {missing} MiB too small"
    )


def _ends(table: Table, place: _Place, warnings: list[str]) -> dict[int, int]:
    """New last sectors by partition; what is not enlarged is told as a warning (R-GROW-2)."""
    growing = _growing(table)
    last, container = growing[-1], table.container
    ends: dict[int, int] = {}
    reason = _why_fixed(table, last, place)
    if reason is not None:
        warnings.append(f"partition {last.number} is not enlarged: {reason}")
    elif last.kind != "extended":
        ends[last.number] = place.limit
    if container is not None and container in growing and (place.inside or reason is None):
        ends[container.number] = max(container.end, place.container_end)
    return {number: end for number, end in ends.items() if end != _end_of(table, number)}


def _end_of(table: Table, number: int) -> int:
    return next(entry.end for entry in table.partitions if entry.number == number)


def _why_fixed(table: Table, last: Partition, place: _Place) -> str | None:
    """Why the partition that should grow keeps its end, None if it grows."""
    if last.purpose is not None:
        return f"it is a partition for {last.purpose}"
    if last.end >= place.limit:
        return f"it ends at sector {last.end}, and the end for it would be sector {place.limit}"
    if isinstance(table, MbrTable) and last.kind == "logical":
        for record in table.chain:
            if record.lba > last.end:
                return f"an unused extended boot record lies behind it, at sector {record.lba}"
    return None
