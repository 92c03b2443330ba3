"""The disks of the instance as this VM sees them, found by their serials."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Final

from snf_image_contract.job import JobDisk, disk_serial
from snf_image_helper.errors import TaskError

SYS_BLOCK: Final = "/sys/block"
PCI_RESCAN: Final = "/sys/bus/pci/rescan"
BLKRRPART: Final = 0x125F
"""Of linux/fs.h: have the kernel read a disk's partitions anew."""
_SECTOR: Final = 512
_POLL_SECONDS: Final = 0.02


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


def find_disks(wanted: Sequence[JobDisk], timeout: float = 60) -> Disks:
    """The disks with the serials of ``wanted``, waiting up to ``timeout`` seconds for hot-added ones.

    Never by letter: the order in which a kernel names disks is its own business (R-HLP-4).
    """
    end = time.monotonic() + timeout
    while True:
        present = by_serial()
        missing = [disk.index for disk in wanted if disk_serial(disk.index) not in present]
        if not missing:
            return Disks(all=tuple(_describe(disk, present[disk_serial(disk.index)]) for disk in wanted))
        if time.monotonic() >= end:
            numbers = ", ".join(map(str, missing))
            raise TaskError(f"disk {numbers} of the instance did not appear within {timeout:g} seconds")
        _look_for_devices()
        time.sleep(_POLL_SECONDS)


def _look_for_devices() -> None:
    """Have the kernel see what was added to the bus while it ran: without ACPI nobody tells it."""
    with contextlib.suppress(OSError), open(PCI_RESCAN, "w", encoding="ascii") as stream:
        stream.write("1")


def by_serial() -> dict[str, str]:
    """Names of block devices by serial, of those that are ready: with a size and a device node."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(SYS_BLOCK)):
        serial = attribute(name, "serial")
        if serial and attribute(name, "size") not in ("", "0") and os.path.exists(f"/dev/{name}"):
            found[serial] = name
    return found


def demand_unused(device: str) -> None:
    """OSError (EBUSY) if the device, or any part of it, is mounted: an exclusive open fails then."""
    os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))


def attribute(name: str, which: str) -> str:
    """What the kernel says of the block device ``name``; empty if it says nothing."""
    try:
        with open(f"{SYS_BLOCK}/{name}/{which}", encoding="ascii", errors="replace") as stream:
            return stream.read(256).strip()
    except OSError:
        return ""


def _describe(disk: JobDisk, name: str) -> Disk:
    return Disk(
        index=disk.index,
        device=f"/dev/{name}",
        size=int(attribute(name, "size")) * _SECTOR,
        read_only=disk.read_only or attribute(name, "ro") == "1",
    )
