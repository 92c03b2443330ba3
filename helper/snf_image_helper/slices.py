"""Partitions inside a disklabel as volumes; the helper's kernel knows no disklabels."""

from __future__ import annotations

import dataclasses
import os
from typing import Final

from snf_image_contract.events import Change
from snf_image_contract.names import OsFamily
from snf_image_helper import filesystems, partition_table
from snf_image_helper.bsd import disklabel
from snf_image_helper.bsd.disklabel import FS_SWAP, Disklabel
from snf_image_helper.disks import Disk
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.filesystems import Volume
from snf_image_helper.machine import Machine
from snf_image_helper.partition_table import Partition
from snf_image_helper.partition_table.kernel import partition_device
from snf_image_helper.partition_table.table import SECTOR
from snf_image_helper.partition_table.types import GPT_OPENBSD, MBR_NETBSD, MBR_OPENBSD, mbr_type
from snf_image_helper.signatures import identify
from snf_image_process import ProcessError, run

_SLICE_TYPES: Final = {
    OsFamily.OPENBSD: (mbr_type(MBR_OPENBSD), GPT_OPENBSD),
    OsFamily.NETBSD: (mbr_type(MBR_NETBSD),),
}
_LOOP_CONTROL: Final = "/dev/loop-control"
_TIMEOUT: Final = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelVolume(Volume):
    """One partition of the disklabel in slice ``partition``."""

    letter: str

    @property
    def name(self) -> str:
        """What messages and the receipt call it."""
        return f"disk {self.disk.index} partition {self.number}{self.letter}"

    def device(self) -> str:
        """The slice's device where both begin at one place, else a loop device upon the disk."""
        if self.partition is not None and self.offset == self.partition.start * SECTOR:
            return partition_device(self.disk, self.partition)
        _load_driver()
        found = _loop(self.disk.device, "--associated", self.disk.device, "--output", "NAME,OFFSET,SIZELIMIT")
        for line in found.splitlines():
            words = line.split()
            if words[1:] == [str(self.offset), str(self.size)]:
                return words[0]
        extent = ("--offset", str(self.offset), "--sizelimit", str(self.size))
        return _loop(self.disk.device, "--find", "--show", *extent, self.disk.device)


def _load_driver() -> None:
    """Nothing else asks the kernel for loop devices: without udev there is no node whose use would."""
    if os.path.exists(_LOOP_CONTROL):
        return
    try:
        run(["modprobe", "loop"], timeout=_TIMEOUT)
    except ProcessError as error:
        raise TaskError(f"a partition of a disklabel cannot be reached: {error.reason}") from None


def _loop(disk: str, *words: str) -> str:
    try:
        options = ["--noheadings", "--raw"] if "--associated" in words else []
        return run(["losetup", *words, *options], timeout=_TIMEOUT).text.strip()
    except ProcessError as error:
        raise TaskError(f"{disk}: no loop device can be made: {error}") from None


def label_of(disk: Disk, partition: Partition, family: OsFamily) -> Disklabel | None:
    """The label of a slice; None if it is no slice of this family, or has none (R-TASK-FIX-13)."""
    if partition.type not in _SLICE_TYPES.get(family, ()):
        return None
    with filesystems.opened(disk) as fd:
        read = filesystems.window(fd, partition.start * SECTOR, partition.sectors * SECTOR)
        data = read(disklabel.LABEL_SECTOR * SECTOR, disklabel.LABEL_BYTES)
    try:
        return disklabel.parse(data, family)
    except ImageError as error:
        raise ImageError(f"disk {disk.index} partition {partition.number}: {error}") from None


def volumes_of(disk: Disk, partition: Partition, label: Disklabel) -> tuple[LabelVolume, ...]:
    """The partitions of a label that lie inside of the disk."""
    found = []
    with filesystems.opened(disk) as fd:
        for entry in label.partitions:
            offset, size = entry.start * SECTOR, entry.sectors * SECTOR
            if entry.end * SECTOR > disk.size:
                continue
            signature = identify(filesystems.window(fd, offset, size), size)
            found.append(
                LabelVolume(
                    disk=disk,
                    partition=partition,
                    offset=offset,
                    size=size,
                    signature=signature,
                    letter=entry.letter,
                )
            )
    return tuple(found)


def labels(machine: Machine) -> tuple[tuple[Partition, Disklabel], ...]:
    """Every slice of disk 0 with its label, that of the root first."""
    disk = machine.disks.first
    found = []
    for partition in partition_table.read(disk).usable:
        label = label_of(disk, partition, machine.os_family)
        if label is not None:
            found.append((partition, label))
    found.sort(key=lambda pair: pair[0].number != machine.root_partition)
    return tuple(found)


def last_volume(machine: Machine, number: int) -> Volume | str | None:
    """What grows inside slice ``number``: its last partition, or why none does; None if it has no label."""
    disk = machine.disks.first
    partition = partition_table.read(disk).find(number)
    label = None if partition is None else label_of(disk, partition, machine.os_family)
    if partition is None or label is None:
        return None
    last = label.last()
    if last is None:
        return f"the disklabel of partition {number} has no partitions"
    if last.fstype == FS_SWAP:
        return f"partition {last.letter}, the last one of the disklabel, is swap"
    for volume in volumes_of(disk, partition, label):
        if volume.letter == last.letter:
            return volume
    raise ImageError(f"disklabel: partition {last.letter} lies outside of the disk")


def enlarge(machine: Machine, number: int | None) -> None:
    """Renew the disk's size in the label of slice ``number`` and enlarge its last partition."""
    disk = machine.disks.first
    partition = partition_table.read(disk).find(number) if number is not None else None
    label = None if partition is None else label_of(disk, partition, machine.os_family)
    if partition is None or label is None:
        return
    new = disklabel.enlarged(
        label, disk_sectors=disk.size // SECTOR, slice_start=partition.start, slice_end=partition.end + 1
    )
    if new == label.data:
        return
    last = label.last()
    if last is not None and last.fstype == FS_SWAP:
        machine.report.warn(f"partition {last.letter} of the disklabel is swap and is not enlarged")
    _write(disk, (partition.start + disklabel.LABEL_SECTOR) * SECTOR, new)
    again = label_of(disk, partition, machine.os_family)
    if again is None or again.data != new:
        raise TaskError("the disklabel reads back differently from what was written")
    after = again.find(last.letter) if last is not None else None
    detail = "size of the disk renewed"
    if last is not None and after is not None and after.sectors != last.sectors:
        detail += f", partition {last.letter} enlarged from {last.sectors} to {after.sectors} sectors"
    where = f"disk {disk.index} partition {partition.number} disklabel"
    machine.report.change(Change(path=where, change="partition", detail=detail))


def _write(disk: Disk, offset: int, data: bytes) -> None:
    fd = os.open(disk.device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    except OSError as error:
        raise TaskError(f"cannot write the disklabel: {error.strerror}") from None
    finally:
        os.close(fd)
