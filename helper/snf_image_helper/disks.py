"""The disks of the instance as this VM sees them, and what lies on them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One whole disk: its device node, its size in bytes, and its place in the instance."""

    index: int
    device: str
    size: int
    read_only: bool = False

    def partition_device(self, number: int) -> str:
        """Device node of partition ``number`` as the kernel names it."""
        infix = "p" if self.device[-1].isdigit() else ""
        return f"{self.device}{infix}{number}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Every disk of the instance in order; the first one holds the image."""

    all: tuple[Disk, ...]

    @property
    def first(self) -> Disk:
        return self.all[0]
