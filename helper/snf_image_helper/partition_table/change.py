"""A decided edit on the disk: written in order, flushed step by step, checked by reading it again."""

from __future__ import annotations

import os

from snf_image_helper.disks import Disk
from snf_image_helper.errors import TaskError
from snf_image_helper.partition_table import gpt, independent, kernel, mbr, parse, reader
from snf_image_helper.partition_table.gpt import GptTable
from snf_image_helper.partition_table.mbr import MbrTable
from snf_image_helper.partition_table.table import SECTOR, Edit, Steps, Table, by_number


def steps(table: Table, edit: Edit) -> Steps:
    """The writes that make ``edit`` true; none if the disk is as it should be already."""
    if isinstance(table, GptTable):
        return gpt.apply(table, edit)
    if isinstance(table, MbrTable):
        return mbr.apply(table, edit)
    raise TypeError(f"unknown table {type(table).__name__}")


def write(fd: int, writes: Steps) -> None:
    """Write the steps; each is on the disk before the next one begins (R-TASK-FIX-11)."""
    for step in writes:
        for item in step:
            _write_all(fd, item.data, item.lba * SECTOR)
        os.fsync(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def change(disk: Disk, table: Table, edit: Edit) -> tuple[str, ...] | None:
    """Make ``edit`` true on the disk and known to the kernel.

    None if there was nothing to do, else warnings. :class:`TaskError` if the disk fails, or if what is
    read back is not what was decided.
    """
    writes = steps(table, edit)
    if not writes:
        return None
    try:
        fd = os.open(disk.device, os.O_RDWR | os.O_CLOEXEC)
        try:
            write(fd, writes)
            after = parse(reader(fd), table.disk_sectors)
        finally:
            os.close(fd)
    except OSError as error:
        raise TaskError(f"cannot write the partition table: {error.strerror}") from None
    expected = edit.applied(table.partitions)
    if by_number(after.partitions) != expected:
        raise TaskError("the partition table reads back differently from what was written")
    doubt = independent.check(disk.device, expected)
    kernel.reread(disk, after)
    return (doubt,) if doubt else ()
