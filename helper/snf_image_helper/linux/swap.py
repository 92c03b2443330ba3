"""Task AddSwap for Linux: signature, line in fstab, resume device (R-TASK-SWAP-1 to R-TASK-SWAP-6)."""

from __future__ import annotations

import os
import re
from typing import Final

from snf_image_contract.events import Change
from snf_image_contract.job import SwapDisk, SwapPartition
from snf_image_contract.names import TaskName
from snf_image_helper import edit, fstab, partition_table, swap_header, uuids
from snf_image_helper.disks import demand_unused
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.filesystems import Volume, all_volumes, has_name, volume_of, whole
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init
from snf_image_helper.partition_table.types import Purpose
from snf_image_helper.signatures import Kind

FSTAB: Final = "/etc/fstab"
RESUME: Final = "/etc/initramfs-tools/conf.d/resume"
_MEBIBYTE: Final = 1 << 20
_KERNEL_NAME: Final = re.compile(r"/dev/(?:[shv]d|xvd)([a-z])([0-9]*)")
_SWAP_FILES: Final = ("/swap.img", "/swap-snf-image.img", "/var/swap-snf-image.img")


def add_swap(guest: Guest) -> None:
    """Make what property SWAP asks for: a partition of disk 0, a whole disk, or cloud-init's swap file."""
    asked = guest.job.add_swap.swap
    if asked is None:
        guest.warn("property SWAP is not set; no swap is added")
        return
    if isinstance(asked, SwapPartition) and guest.job.cloud_init:
        _leave_to_cloud_init(guest, asked)
        return
    volume = _partition(guest, asked) if isinstance(asked, SwapPartition) else _disk(guest, asked)
    data = guest.root.read_optional(FSTAB)
    if data is None:
        raise ImageError(f"{FSTAB}: is missing, so that the swap cannot be entered there")
    identifier = uuids.new()
    _make_swap(guest, volume, identifier)
    guest.root.write(FSTAB, with_swap(data, volume, identifier))
    _forget_absent_resume(guest)


def _leave_to_cloud_init(guest: Guest, asked: SwapPartition) -> None:
    """A swap file of the size asked for; the number is of no use there (R-TASK-SWAP-5, T-75)."""
    name = next((path for path in _SWAP_FILES if guest.root.lstat(path) is None), None)
    if name is None:
        raise ImageError(f"no name is free for cloud-init's swap file: {', '.join(_SWAP_FILES)} exist")
    size = asked.megabytes * _MEBIBYTE
    document = {"swap": {"filename": name, "size": size, "maxsize": size}}
    cloud_init.write_config(guest, TaskName.ADD_SWAP, document)


def _partition(guest: Guest, asked: SwapPartition) -> Volume:
    disk = guest.disks.first
    partition = partition_table.read(disk).find(asked.number)
    what = f"SWAP={asked.number}:{asked.megabytes}"
    if partition is None:
        raise RequestError(f"{what}: there is no partition {asked.number}{_excluded(guest)}")
    if partition.purpose is not Purpose.SWAP:
        raise RequestError(
            f"{what}: partition {asked.number} is no swap partition (type {partition.type}){_excluded(guest)}"
        )
    return volume_of(disk, partition)


def _excluded(guest: Guest) -> str:
    """A hint at the task that would have made the partition (R-TASK-3)."""
    task = TaskName.FIX_PARTITION_TABLE
    return f", because task {task} is excluded" if any(s.task is task for s in guest.job.skipped) else ""


def _disk(guest: Guest, asked: SwapDisk) -> Volume:
    """The whole disk of a letter (R-TASK-SWAP-2, R-TASK-SWAP-3)."""
    what = f"SWAP={chr(ord('a') + asked.index)}"
    if asked.index == 0:
        raise RequestError(f"{what}: disk 0 holds the system")
    disk = next((disk for disk in guest.disks.all if disk.index == asked.index), None)
    if disk is None:
        raise RequestError(f"{what}: the instance has {len(guest.disks.all)} disks")
    if disk.read_only:
        raise RequestError(f"{what}: disk {disk.index} is read-only")
    return whole(disk)


def _make_swap(guest: Guest, volume: Volume, identifier: str) -> None:
    device = volume.device()
    try:
        demand_unused(device)
    except OSError as error:
        raise RequestError(f"{volume.name}: cannot become swap: {error.strerror}") from None
    try:
        swap_header.write_header(device, volume.size, identifier)
    except OSError as error:
        raise TaskError(f"{volume.name}: cannot become swap: {error.strerror}") from None
    except TaskError as error:
        raise TaskError(f"{volume.name}: cannot become swap: {error}") from None
    made = _read_again(volume)
    if made.signature is None or made.kind is not Kind.SWAP or made.signature.uuid != identifier:
        raise TaskError(f"{volume.name}: the swap signature does not read back")
    detail = f"{volume.size // _MEBIBYTE} MiB, UUID={identifier}"
    guest.report.change(Change(path=volume.name, change="swap", detail=detail))


def _read_again(volume: Volume) -> Volume:
    return volume_of(volume.disk, volume.partition) if volume.partition else whole(volume.disk)


def with_swap(data: bytes, old: Volume, identifier: str) -> bytes:
    """fstab with one line for the new swap (R-TASK-SWAP-4, T-74, T-136).

    A swap entry for the same device, as it was known before, gives its place to the new line.
    """
    line = f"UUID={identifier}\tnone\tswap\tsw\t0\t0".encode("ascii")
    lines = edit.Lines(data)
    same = [entry.line - 1 for entry in fstab.parse(data) if "swap" in entry.types and _names(entry, old)]
    if not same:
        lines.append(line)
        return lines.data()
    lines.replace(same[0], line)
    for index in reversed(same[1:]):
        lines.remove(index)
    return lines.data()


def _names(entry: fstab.Entry, volume: Volume) -> bool:
    source = fstab.source_of(entry.source)
    if source is not None:
        return has_name(volume, source)
    match = _KERNEL_NAME.fullmatch(entry.source)
    if match is None:
        return False
    return ord(match[1]) - ord("a") == volume.disk.index and match[2] == str(volume.number or "")


def _forget_absent_resume(guest: Guest) -> None:
    """A resume device that no longer exists would delay the boot (R-TASK-SWAP-6)."""
    data = guest.root.read_optional(RESUME)
    value = edit.assignments(data or b"").get(b"RESUME", b"")
    if data is None or not value.startswith(b"UUID="):
        return
    wanted = os.fsdecode(value.removeprefix(b"UUID=")).casefold()
    present = {
        volume.signature.uuid.casefold()
        for volume in all_volumes(guest.disks)
        if volume.signature is not None
    }
    if wanted in present:
        return
    guest.root.write(RESUME, edit.set_assignments(data, {b"RESUME": b"none"}, path=RESUME))
    guest.warn(f"{RESUME}: the resume device is gone; set to none")
