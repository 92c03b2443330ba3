"""What the kernel knows of a disk's partitions, and making it know what the table says."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import time
from typing import Final

from snf_image_helper.disks import BLKRRPART, SYS_BLOCK, Disk
from snf_image_helper.errors import ImageError
from snf_image_helper.partition_table.table import SECTOR, Partition, Table

_BLKPG: Final = 0x1269
_BLKPG_ADD: Final = 1
_BLKPG_DELETE: Final = 2
_POLL_SECONDS: Final = 0.01


class _BlkpgPartition(ctypes.Structure):
    """``struct blkpg_partition`` of linux/blkpg.h; bytes."""

    _fields_ = (
        ("start", ctypes.c_longlong), ("length", ctypes.c_longlong), ("number", ctypes.c_int),
        ("device_name", ctypes.c_char * 64), ("volume_name", ctypes.c_char * 64),
    )  # fmt: skip


class _BlkpgArgument(ctypes.Structure):
    """``struct blkpg_ioctl_arg`` of linux/blkpg.h."""

    _fields_ = (
        ("operation", ctypes.c_int), ("flags", ctypes.c_int), ("length", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )  # fmt: skip


def reread(disk: Disk, table: Table, timeout: float = 10) -> None:
    """Make the kernel read a changed table, and wait for the device of every partition."""
    fd = os.open(disk.device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            return
        # Busy: something holds a partition open; then each one is told to the kernel by itself.
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, BLKRRPART)
    finally:
        os.close(fd)
    for partition in table.partitions:
        # Of an extended partition the kernel shows its first sectors only.
        if partition.kind != "extended":
            partition_device(disk, partition, timeout)


def partition_device(disk: Disk, partition: Partition, timeout: float = 2) -> str:
    """The device node of a partition, once the kernel shows it with the right extent.

    The kernel is told if it differs from the table: it looks for the backup of a GPT only at the end of
    the disk, where an image that was copied to a larger disk does not have it.
    :class:`ImageError` if the kernel refuses the partition.
    """
    device = disk.partition_device(partition.number)
    fd = os.open(disk.device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            return device
        end = time.monotonic() + timeout
        while not _shown(disk, partition, device):
            if time.monotonic() >= end:
                raise ImageError(f"partition {partition.number}: the kernel makes no device for it")
            _tell(fd, disk, partition)
            time.sleep(_POLL_SECONDS)
    finally:
        os.close(fd)
    return device


def _extent(disk: Disk, device: str) -> tuple[int, int] | None:
    """Start and length, in sectors, of a partition as the kernel has it; None if it has none."""
    directory = f"{SYS_BLOCK}/{os.path.basename(disk.device)}/{os.path.basename(device)}"
    try:
        with open(f"{directory}/start", "rb") as start, open(f"{directory}/size", "rb") as size:
            return int(start.read(32)), int(size.read(32))
    except OSError:
        return None


def _shown(disk: Disk, partition: Partition, device: str) -> bool:
    return _extent(disk, device) == (partition.start, partition.sectors) and os.path.exists(device)


def _tell(fd: int, disk: Disk, partition: Partition) -> None:
    """Add the partition to the kernel's list, in place of a wrong one of its number."""
    extent = _extent(disk, disk.partition_device(partition.number))
    if extent == (partition.start, partition.sectors):
        return
    if extent is not None:
        _blkpg(fd, _BLKPG_DELETE, partition)
    _blkpg(fd, _BLKPG_ADD, partition)


def _blkpg(fd: int, operation: int, partition: Partition) -> None:
    data = _BlkpgPartition(partition.start * SECTOR, partition.sectors * SECTOR, partition.number)
    argument = _BlkpgArgument(operation, 0, ctypes.sizeof(data), ctypes.addressof(data))
    try:
        fcntl.ioctl(fd, _BLKPG, argument)
    except OSError as error:
        # Busy: the kernel may be reading the table at this moment.
        if error.errno not in (errno.EBUSY, errno.ENXIO):
            raise ImageError(
                f"partition {partition.number}: the kernel refuses sectors {partition.start} to"
                f" {partition.end}: {error.strerror}"
            ) from None
