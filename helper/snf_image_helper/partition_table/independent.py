"""A second opinion: what libparted reads from a disk, with none of our code (R-TASK-FIX-11).

Only the C module of python3-parted is imported: its Python layer doubles the time, which under emulation
is worth saving.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from snf_image_helper.errors import TaskError
from snf_image_helper.partition_table.table import Partition

_NO_PARTITION = -1


def check(device: str, expected: Iterable[Partition]) -> str | None:
    """Compare libparted's view of a disk or file with what should be there.

    :class:`TaskError` if numbers or sectors differ; a text if libparted cannot read such a table, which it
    refuses in some forms that the kernel takes.
    """
    import _ped  # noqa: PLC0415 - only where a table was written

    try:
        disk = _ped.disk_new(_ped.device_get(device))
    except (_ped.PartedException, _ped.DiskException, _ped.DiskLabelException, _ped.IOException) as error:
        return f"libparted cannot read the partition table: {error}"
    wanted = {(entry.number, entry.start, entry.end) for entry in expected}
    found = set(_partitions(disk))
    if found != wanted:
        difference = ", ".join(f"{number} ({start}-{end})" for number, start, end in sorted(found ^ wanted))
        raise TaskError(f"the partition table reads back differently through libparted: {difference}")
    return None


def _partitions(disk: Any) -> Iterable[tuple[int, int, int]]:
    partition = disk.next_partition()
    while partition is not None:
        if partition.num != _NO_PARTITION:
            yield partition.num, partition.geom.start, partition.geom.end
        partition = disk.next_partition(partition)
