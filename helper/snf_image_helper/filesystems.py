"""The file systems on the instance's disks: what is where, and how each is mounted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Final

from snf_image_helper import partition_table
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError
from snf_image_helper.fstab import Source
from snf_image_helper.partition_table import Partition, Table
from snf_image_helper.partition_table.kernel import partition_device
from snf_image_helper.partition_table.table import SECTOR
from snf_image_helper.signatures import Kind, Read, Signature, identify

DRIVERS: Final = {
    Kind.EXT2: "ext4",
    Kind.EXT3: "ext4",
    Kind.EXT4: "ext4",
    Kind.XFS: "xfs",
    Kind.BTRFS: "btrfs",
    Kind.JFS: "jfs",
    Kind.REISERFS: "reiserfs",
    Kind.VFAT: "vfat",
    Kind.UFS1: "ufs",
    Kind.UFS2: "ufs",
}
"""The kernel's driver for each kind that Linux itself mounts (R-DET-6)."""

_READ_ONLY_OPTIONS: Final = {"ext4": "noload", "xfs": "norecovery,nouuid", "btrfs": "rescue=nologreplay"}
"""No driver may replay a journal when it only looks."""
_OPTIONS: Final = {
    # The superblock may ask for a panic at the first error: that would be the helper's.
    "ext4": "errors=remount-ro",
    # A copy of the same file system on another disk of the instance is no reason to refuse.
    "xfs": "nouuid",
}


# The driver looks for a superblock only where this says; it was found there before (U-1).
_UFS_OPTIONS: Final = {Kind.UFS1: "ufstype=44bsd", Kind.UFS2: "ufstype=ufs2"}


def mount_options(kind: Kind, *, read_only: bool) -> str:
    """Options of the driver itself, for mount(2)."""
    if kind in _UFS_OPTIONS:
        return _UFS_OPTIONS[kind]
    return (_READ_ONLY_OPTIONS if read_only else _OPTIONS).get(DRIVERS[kind], "")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A partition, or a whole disk without a table, and what lies on it. ``offset``, ``size``: bytes."""

    disk: Disk
    partition: Partition | None
    offset: int
    size: int
    signature: Signature | None

    @property
    def name(self) -> str:
        """What messages and the receipt call it."""
        whole = f"disk {self.disk.index}"
        return whole if self.partition is None else f"{whole} partition {self.partition.number}"

    @property
    def number(self) -> int:
        """Of the partition; 0 for a whole disk."""
        return self.partition.number if self.partition else 0

    @property
    def type(self) -> str:
        """The partition's type; empty for a whole disk."""
        return self.partition.type if self.partition else ""

    @property
    def kind(self) -> Kind | None:
        return self.signature.kind if self.signature else None

    def device(self) -> str:
        """Its device node; :class:`ImageError` if the kernel makes none."""
        if self.partition is None:
            return self.disk.device
        return partition_device(self.disk, self.partition)


@contextlib.contextmanager
def opened(disk: Disk) -> Iterator[int]:
    """The whole disk, opened for reading what is there now.

    The kernel caches a disk and its partitions apart: what a program wrote to a partition would not be
    seen through pages of the disk that were read before.
    """
    fd = os.open(disk.device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        yield fd
    finally:
        os.close(fd)


def window(fd: int, offset: int, size: int) -> Read:
    """Reading inside one partition of an open disk, never outside of it."""

    def read(at: int, length: int) -> bytes:
        if at < 0 or at >= size:
            return b""
        return os.pread(fd, min(length, size - at), offset + at)

    return read


def volume_of(disk: Disk, partition: Partition) -> Volume:
    """A partition with its signature."""
    with opened(disk) as fd:
        return _volume(fd, disk, partition)


def _volume(fd: int, disk: Disk, partition: Partition) -> Volume:
    offset, size = partition.start * SECTOR, partition.sectors * SECTOR
    signature = identify(window(fd, offset, size), size)
    return Volume(disk=disk, partition=partition, offset=offset, size=size, signature=signature)


def volumes(disk: Disk, table: Table) -> tuple[Volume, ...]:
    """Every partition of a disk that can hold something, by its start."""
    with opened(disk) as fd:
        return tuple(_volume(fd, disk, partition) for partition in table.usable)


def whole(disk: Disk) -> Volume:
    """A disk without partitions."""
    with opened(disk) as fd:
        signature = identify(window(fd, 0, disk.size), disk.size)
    return Volume(disk=disk, partition=None, offset=0, size=disk.size, signature=signature)


def all_volumes(disks: Disks) -> tuple[Volume, ...]:
    """Every volume of the instance, disk 0 first; a disk whose table is unreadable counts as a whole."""
    found: list[Volume] = []
    for disk in disks.all:
        try:
            found += volumes(disk, partition_table.read(disk))
        except ImageError:
            found.append(whole(disk))
    return tuple(found)


def find_volume(source: Source, among: tuple[Volume, ...]) -> Volume:
    """What a persistent name leads to, on the disks of the instance only (R-TASK-MNT-9, T-67).

    :class:`ImageError` if nothing has the name, or several have and not exactly one of disk 0.
    """
    found = [volume for volume in among if has_name(volume, source)]
    if len(found) > 1 and not _one_btrfs(found):
        found = [volume for volume in found if volume.disk.index == 0] or found
    if not found:
        raise ImageError(f"no disk of the instance has {source.tag}={source.value}")
    if len(found) > 1 and not _one_btrfs(found):
        names = ", ".join(volume.name for volume in found)
        raise ImageError(f"{source.tag}={source.value} is ambiguous: {names}")
    return found[0]


def _one_btrfs(found: list[Volume]) -> bool:
    """Whether these are the devices of one file system."""
    first = found[0].signature
    return (
        first is not None
        and first.devices == len(found)
        and all(volume.kind is Kind.BTRFS and volume.signature == first for volume in found)
    )


def has_name(volume: Volume, source: Source) -> bool:
    """Whether a volume is called so. UUIDs are compared without regard to case, labels exactly."""
    partition, signature = volume.partition, volume.signature
    name = {
        "UUID": signature.uuid if signature else "",
        "LABEL": signature.label if signature else "",
        "PARTUUID": partition.uuid if partition else "",
        "PARTLABEL": partition.name if partition else "",
        "DEVICE": "",
    }[source.tag]
    if source.tag in ("UUID", "PARTUUID"):
        return bool(name) and name.casefold() == source.value.casefold()
    return bool(name) and name == source.value
