"""Task FilesystemResizeMounted for Linux: XFS and Btrfs grow where they are mounted (R-TASK-FSM-2)."""

from __future__ import annotations

import os
from typing import Final

from snf_image_contract.events import Change
from snf_image_helper import kernel_mount, partition_table
from snf_image_helper.errors import TaskError
from snf_image_helper.filesystems import Volume, all_volumes, opened, volume_of
from snf_image_helper.guest import Guest
from snf_image_helper.signatures import Kind
from snf_image_process import ProcessError, run

_TIMEOUT: Final = 3600
_BTRFS_DEVICE_ID_AT: Final = 0x10000 + 0xC9
"""Of the device item in the superblock."""


def resize_mounted(guest: Guest) -> None:
    """Grow the file system of the partition that was enlarged, if it grows while mounted."""
    volume = _volume(guest)
    if volume is None or (volume.kind is not None and volume.kind.is_ext):
        return
    if volume.kind not in (Kind.XFS, Kind.BTRFS):
        contents = volume.kind or "unknown contents"
        guest.warn(f"{volume.name}: {contents} does not grow while it is mounted")
        return
    place = _mount_point(guest, volume)
    if place is None:
        guest.warn(f"{volume.name}: {volume.kind} is not mounted and therefore not resized")
        return
    before = kernel_mount.size(place)
    _grow(volume, place)
    after = kernel_mount.size(place)
    if after > before:
        detail = f"{volume.kind} grown from {before} to {after} bytes"
        guest.report.change(Change(path=volume.name, change="filesystem", detail=detail))


def _volume(guest: Guest) -> Volume | None:
    disk, number = guest.disks.first, guest.resize_partition
    if number is None:
        guest.warn("no partition was enlarged, so that no file system is")
        return None
    partition = partition_table.read(disk).find(number)
    if partition is None:
        raise TaskError(f"partition {number} is no longer in the partition table")
    return volume_of(disk, partition)


def _mount_point(guest: Guest, volume: Volume) -> str | None:
    """Where in this VM the volume is mounted: the path is the kernel's, without links.

    Of a Btrfs on several devices, the kernel names any one.
    """
    signature = volume.signature
    if signature is not None and signature.devices > 1:
        same = [other for other in all_volumes(guest.disks) if other.signature == signature]
        devices = {other.device() for other in same}
    else:
        devices = {volume.device()}
    points = [point.path for point in kernel_mount.mounted_below(guest.target) if point.source in devices]
    return points[-1] if points else None


def _grow(volume: Volume, place: str) -> None:
    if volume.kind is Kind.XFS:
        argv = ["xfs_growfs", "-d", place]
    else:
        with opened(volume.disk) as fd:
            number = int.from_bytes(os.pread(fd, 8, volume.offset + _BTRFS_DEVICE_ID_AT), "little")
        argv = ["btrfs", "filesystem", "resize", f"{number}:max", place]
    try:
        run(argv, timeout=_TIMEOUT)
    except ProcessError as error:
        reason = "; ".join((error.reason, *error.stderr_tail[-3:]))
        raise TaskError(f"{volume.name}: {volume.kind} cannot be enlarged: {reason}") from None
