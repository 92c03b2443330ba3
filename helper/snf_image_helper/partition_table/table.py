"""A partition table as it was read: which partitions there are, and the bytes that say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final, Literal

from snf_image_helper.partition_table.types import Purpose, purpose

SECTOR: Final = 512
MEBIBYTE: Final = 2048
"""Sectors in a mebibyte."""

ReadSectors = Callable[[int, int], bytes]
"""``read(lba, count)``: bytes of whole sectors; fewer where the disk ends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition. ``start`` and ``end`` (inclusive) in sectors of 512 bytes.

    ``number`` as the Linux kernel counts. ``type`` is ``0x83`` style or an upper-case type GUID. ``uuid`` is
    what PARTUUID= names, lower case. ``name`` is the image's: anything may be in it.
    """

    number: int
    start: int
    end: int
    type: str
    kind: Literal["primary", "extended", "logical"] = "primary"
    name: str = ""
    uuid: str = ""

    @property
    def sectors(self) -> int:
        return self.end - self.start + 1

    @property
    def purpose(self) -> Purpose | None:
        """Why the partition is never enlarged, None if it may be."""
        return purpose(self.type)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Bytes for the disk, from sector ``lba`` on."""

    lba: int
    data: bytes


Steps = tuple[tuple[Write, ...], ...]
"""Groups of writes; each group is on the disk before the next one begins (R-TASK-FIX-11)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What every kind of partition table has. ``warnings``: what is odd about it, for the user.

    ``disk_sectors`` is the size of the disk, which may be larger than the image was.
    """

    label: Literal["mbr", "gpt"]
    disk_sectors: int
    partitions: tuple[Partition, ...]
    warnings: tuple[str, ...] = ()

    def find(self, number: int) -> Partition | None:
        return next((entry for entry in self.partitions if entry.number == number), None)

    @property
    def container(self) -> Partition | None:
        """The extended partition of an MBR."""
        return next((entry for entry in self.partitions if entry.kind == "extended"), None)

    @property
    def logical(self) -> tuple[Partition, ...]:
        """Logical partitions in the order of their numbers."""
        return tuple(entry for entry in self.partitions if entry.kind == "logical")

    @property
    def usable(self) -> tuple[Partition, ...]:
        """Partitions that can hold something, in ascending order of their start."""
        held = (entry for entry in self.partitions if entry.kind != "extended")
        return tuple(sorted(held, key=lambda entry: entry.start))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What is to change: new last sectors of existing partitions, and new partitions.

    ``ebr``: sector of the record that describes a new logical partition.
    """

    ends: tuple[tuple[int, int], ...] = ()
    added: tuple[Partition, ...] = ()
    ebr: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        return bool(self.ends or self.added)

    def applied(self, partitions: tuple[Partition, ...]) -> tuple[Partition, ...]:
        """The partitions after the edit, by number."""
        ends = dict(self.ends)
        kept = tuple(
            dataclasses.replace(entry, end=ends.get(entry.number, entry.end)) for entry in partitions
        )
        return by_number(kept + self.added)


def by_number(partitions: tuple[Partition, ...]) -> tuple[Partition, ...]:
    return tuple(sorted(partitions, key=lambda entry: entry.number))
