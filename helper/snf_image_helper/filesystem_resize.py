"""Tasks FilesystemResizeUnmounted and FilesystemResizeAfterUmount: a file system grows to its partition."""

from __future__ import annotations

import os
from typing import Final

from snf_image_contract.events import Change
from snf_image_contract.names import OsFamily
from snf_image_helper import partition_table
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.ext_superblock import ExtSuperblock, read_superblock
from snf_image_helper.filesystems import Volume, opened, volume_of, window
from snf_image_helper.machine import Machine
from snf_image_helper.signatures import Kind
from snf_image_process import ProcessError, run

_CHECK_TIMEOUT: Final = 3600
_RESIZE_TIMEOUT: Final = 3600
_CORRECTED: Final = 1
"""e2fsck: there were errors, and there are none now (T-59)."""


def unmounted(machine: Machine) -> None:
    """Grow ext2, ext3, ext4 and UFS (R-TASK-FSU-1 to R-TASK-FSU-4); tell what grows later or not at all."""
    volume = _volume(machine)
    if volume is None:
        return
    if volume.kind is not None and volume.kind.is_ext:
        _grow_ext(machine, volume)
    elif volume.kind is Kind.NTFS:
        from snf_image_helper import ntfs  # noqa: PLC0415 - for few images

        ntfs.demand_fits(volume)
        machine.report.warn(f"{volume.name}: NTFS is not resized in this task")
    elif volume.kind is not None and volume.kind.is_ufs and machine.os_family.is_bsd:
        from snf_image_helper.ufs import writing  # noqa: PLC0415 - five modules that few images need

        writing.grow_volume(machine, volume)
    elif volume.kind not in (Kind.XFS, Kind.BTRFS):
        machine.report.warn(f"{volume.name}: {_name(volume)} is not resized")


def after_umount(machine: Machine) -> None:
    """Grow NTFS offline, if that is asked for or the guest would not do it (R-TASK-NTFS-1, R-TASK-NTFS-2)."""
    volume = _volume(machine)
    if volume is None:
        return
    if volume.kind is not Kind.NTFS:
        if machine.os_family.is_windows:
            machine.report.warn(f"{volume.name}: {_name(volume)} is not resized")
        return
    from snf_image_helper import ntfs  # noqa: PLC0415 - for few images

    ntfs.demand_fits(volume)
    asked = machine.job.filesystem_resize_after_umount
    if machine.os_family is OsFamily.WINDOWS and not asked.offline_ntfs:
        machine.report.warn(
            f"{volume.name}: the NTFS is not resized offline; Windows grows it at its first start"
        )
        return
    before, after = ntfs.grow(volume, clear_dirty=asked.skip_check)
    _flush(volume.device())
    if after > before:
        detail = f"{volume.kind} grown from {before} to {after} bytes"
        machine.report.change(Change(path=volume.name, change="filesystem", detail=detail))
        machine.report.warn(_after_growing(volume, skip_check=asked.skip_check))


def _after_growing(volume: Volume, *, skip_check: bool) -> str:
    if skip_check:
        return f"{volume.name}: the NTFS was grown and is not marked for a check; run CHKDSK in the guest"
    return f"{volume.name}: the NTFS was grown; Windows will check it at its first start"


def _name(volume: Volume) -> str:
    return str(volume.kind or "unknown contents") + f" (partition type {volume.type})"


def _volume(machine: Machine) -> Volume | None:
    """What lies on the partition that grows; None, with a warning, if none does."""
    disk, number = machine.disks.first, machine.resize_partition
    if number is None:
        machine.report.warn("no partition was enlarged, so that no file system is")
        return None
    partition = partition_table.read(disk).find(number)
    if partition is None:
        raise TaskError(f"partition {number} is no longer in the partition table")
    if machine.os_family.is_bsd:
        from snf_image_helper import slices  # noqa: PLC0415 - for few images

        inside = slices.last_volume(machine, number)
        if isinstance(inside, str):
            machine.report.warn(f"{inside}: no file system is resized")
            return None
        if inside is not None:
            return inside
    return volume_of(disk, partition)


def _superblock(volume: Volume) -> ExtSuperblock:
    with opened(volume.disk) as fd:
        return read_superblock(window(fd, volume.offset, volume.size))


def _grow_ext(machine: Machine, volume: Volume) -> None:
    before = _superblock(volume)
    _demand_sound(machine, volume, before)
    device = volume.device()
    if _check(volume, device, everything=before.mounted_since_check or before.needs_recovery):
        machine.report.warn(f"{volume.name}: e2fsck corrected errors of the {volume.kind} file system")
    target = volume.size // before.block_size * before.block_size
    if target > before.max_size:
        machine.report.warn(f"{volume.name}: {volume.kind} without feature 64bit grows to 16 TiB at most")
        target = before.max_size
    if before.size < target:
        _resize(volume, device, target // before.block_size)
        after = _superblock(volume)
        _record(machine, volume, before, after)
    _flush(device)


def _demand_sound(machine: Machine, volume: Volume, superblock: ExtSuperblock) -> None:
    """:class:`ImageError` if the file system must not be touched (R-TASK-FSU-2)."""
    where = f"{volume.name}: {volume.kind} file system"
    if superblock.unknown:
        raise ImageError(f"{where} has features this helper does not know: {', '.join(superblock.unknown)}")
    if superblock.errors:
        raise ImageError(f"{where} is marked as having errors; check it and publish the image again")
    if not superblock.clean:
        raise ImageError(f"{where} is not clean: it was in use when the image was made")
    if superblock.size > volume.size:
        raise ImageError(
            f"{where} of {superblock.size} bytes is larger than its partition of {volume.size}:"
            " the image seems to be truncated"
        )
    if superblock.needs_recovery:
        machine.report.warn(f"{where} has a journal that needs recovery; it is replayed")


def _check(volume: Volume, device: str, *, everything: bool) -> bool:
    """e2fsck in preen mode; whether it corrected anything.

    ``everything``: whatever the superblock says, for resize2fs trusts what it reads. That takes a second
    under emulation for a gigabyte of files, which a file system is spared that was checked since it was last
    in use: the rule by which resize2fs itself asks for it.
    """
    argv = ["e2fsck", *(["-f"] if everything else []), "-p", device]
    try:
        return run(argv, timeout=_CHECK_TIMEOUT, accept=(0, _CORRECTED)).status == _CORRECTED
    except ProcessError as error:
        raise ImageError(f"{volume.name}: the check of the file system failed: {_tail(error)}") from None


def _resize(volume: Volume, device: str, blocks: int) -> None:
    try:
        run(_resize_argv(device, blocks), timeout=_RESIZE_TIMEOUT)
    except ProcessError as error:
        raise TaskError(f"{volume.name}: the file system cannot be enlarged: {_tail(error)}") from None


def _resize_argv(device: str, blocks: int) -> list[str]:
    """Forced: the check just before is what resize2fs would ask for."""
    return ["resize2fs", "-f", device, str(blocks)]


def _tail(error: ProcessError) -> str:
    return "; ".join((error.reason, *error.stderr_tail[-3:]))


def _record(machine: Machine, volume: Volume, before: ExtSuperblock, after: ExtSuperblock) -> None:
    if after.size <= before.size:
        raise TaskError(f"{volume.name}: the file system did not grow")
    detail = f"{volume.kind} grown from {before.size} to {after.size} bytes"
    machine.report.change(Change(path=volume.name, change="filesystem", detail=detail))


def _flush(device: str) -> None:
    """What was written must be on the disk before the task ends; errors of writing show here."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
