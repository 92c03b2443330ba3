"""Task FixPartitionTable: the last partition grows to the disk's end, a swap partition is added."""

from __future__ import annotations

from snf_image_contract.events import Change
from snf_image_contract.names import OsFamily
from snf_image_helper import partition_table
from snf_image_helper.machine import Machine
from snf_image_helper.partition_table.change import change
from snf_image_helper.partition_table.plan import plan
from snf_image_helper.partition_table.table import Edit, Table


def run(machine: Machine) -> None:
    """Plan, write, check and tell the kernel (R-TASK-FIX-1 to R-TASK-FIX-13)."""
    disk = machine.disks.first
    table = partition_table.read(disk)
    swap = machine.job.fix_partition_table.swap
    if swap is not None and machine.os_family is not OsFamily.LINUX:
        machine.report.warn(f"property SWAP does not apply to {machine.os_family} and is ignored")
        swap = None
    edit = plan(table, swap)
    for warning in edit.warnings:
        machine.report.warn(warning)
    doubts = change(disk, table, edit)
    if doubts is not None:
        for doubt in doubts:
            machine.report.warn(doubt)
        _record(machine, table, edit)
    if machine.os_family.is_bsd:
        from snf_image_helper import slices  # noqa: PLC0415 - for few images

        slices.enlarge(machine, machine.resize_partition)


def _record(machine: Machine, table: Table, edit: Edit) -> None:
    """Tell the receipt what changed."""
    where = f"disk {machine.disks.first.index}"
    for number, end in edit.ends:
        old = table.find(number)
        text = f"end moved from sector {old.end if old else 0} to {end}"
        machine.report.change(Change(path=f"{where} partition {number}", change="partition", detail=text))
    for new in edit.added:
        text = f"new, {new.kind}, type {new.type}, sectors {new.start} to {new.end}"
        machine.report.change(Change(path=f"{where} partition {new.number}", change="partition", detail=text))
    if not edit.changes:
        machine.report.change(
            Change(path=where, change="partition", detail="damaged or misplaced copy of the GPT renewed")
        )
