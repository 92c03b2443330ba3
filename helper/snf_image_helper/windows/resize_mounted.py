"""Task FilesystemResizeMounted for Windows: the script by which it extends its volume (R-TASK-FSM-1)."""

from __future__ import annotations

from snf_image_helper import partition_table
from snf_image_helper.errors import TaskError
from snf_image_helper.filesystems import volume_of
from snf_image_helper.guest import Guest
from snf_image_helper.partition_table import Table
from snf_image_helper.signatures import Kind
from snf_image_helper.windows.layout import EXTEND, PRIVATE, PRIVATE_DIRECTORY, SCRIPTS, lines


def resize_mounted(guest: Guest) -> None:
    number = guest.resize_partition
    if number is None:
        guest.warn("no partition was enlarged, so that no file system is")
        return
    if guest.job.filesystem_resize_mounted.offline_ntfs:
        guest.warn("the file system is enlarged offline (OFFLINE_NTFSRESIZE), not at the first start")
        return
    table = partition_table.read(guest.disks.first)
    partition = table.find(number)
    if partition is None:
        raise TaskError(f"partition {number} is no longer in the partition table")
    volume = volume_of(guest.disks.first, partition)
    if volume.kind is not Kind.NTFS:
        guest.warn(f"{volume.name}: {volume.kind or 'unknown contents'} is not resized")
        return
    guest.root.mkdir(SCRIPTS, mode=PRIVATE_DIRECTORY)
    system = number == guest.root_partition
    guest.root.write(
        EXTEND, script(table, number, system=system), mode=PRIVATE, detail=f"extends {volume.name}"
    )


def script(table: Table, number: int, *, system: bool) -> bytes:
    """What diskpart is told. It counts partitions by their place on the disk, whatever their number in the
    table, and an extended one not at all (T-73)."""
    if system:
        return lines("select volume C", "extend filesystem", "exit")
    place = [partition.number for partition in table.usable].index(number) + 1
    return lines("select disk 0", f"select partition {place}", "extend filesystem", "exit")
