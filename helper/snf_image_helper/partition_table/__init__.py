"""Partition tables: read from untrusted disks, planned as pure functions, written in one order."""

from __future__ import annotations

import os

from snf_image_helper.disks import Disk
from snf_image_helper.errors import ImageError
from snf_image_helper.partition_table import gpt, mbr
from snf_image_helper.partition_table.plan import resize_partition
from snf_image_helper.partition_table.table import SECTOR, Partition, ReadSectors, Table
from snf_image_helper.signatures import identify

__all__ = ["Partition", "Table", "parse", "read", "resize_partition"]


class NoTableError(ImageError):
    """There is no partition table, or no partition in it."""


def read(disk: Disk) -> Table:
    """The partition table of a disk.

    :class:`ImageError` if it has none, then saying what is there instead (R-DET-2, T-46), or if it cannot
    be understood.
    """
    fd = os.open(disk.device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return parse(reader(fd), disk.size // SECTOR)
    except NoTableError as error:
        found = identify(lambda offset, length: os.pread(fd, length, offset), disk.size)
        if found is None:
            raise
        raise ImageError(f"{error}; a file system without partitions fills it: {found.kind}") from None
    finally:
        os.close(fd)


def reader(fd: int) -> ReadSectors:
    """Reading whole sectors of an open disk or file."""

    def read_sectors(lba: int, count: int) -> bytes:
        data = b""
        while len(data) < count * SECTOR:
            chunk = os.pread(fd, count * SECTOR - len(data), lba * SECTOR + len(data))
            if not chunk:
                break
            data += chunk
        return data[: len(data) // SECTOR * SECTOR]

    return read_sectors


def parse(read_sectors: ReadSectors, disk_sectors: int) -> Table:
    """The partition table that the kernel would see, read through ``read_sectors``.

    Like the kernel, a GPT is looked for only behind a protective MBR. What lies on a disk without a table
    is the business of whoever asked.
    """
    sector = read_sectors(0, 1)
    if not mbr.looks_like_mbr(sector):
        raise NoTableError("no partition found on the disk: its first sector is no partition table")
    if gpt.is_protective(sector):
        return gpt.parse(read_sectors, disk_sectors)
    table = mbr.parse(read_sectors, disk_sectors)
    if not table.partitions:
        raise NoTableError("no partition found on the disk: the partition table is empty")
    return table
