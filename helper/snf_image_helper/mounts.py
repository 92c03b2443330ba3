"""Tasks MountImage and UmountImage: the guest's tree, mounted beneath one directory, and undone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from snf_image_contract.events import Change
from snf_image_contract.names import OsFamily
from snf_image_helper import fstab, partition_table
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.filesystems import Volume, all_volumes, find_volume, volume_of
from snf_image_helper.linux import ostree
from snf_image_helper.machine import Machine
from snf_image_helper.root import Root
from snf_image_helper.root_mount import mount_root, mount_volume, unmount_below
from snf_image_helper.signatures import Kind

if TYPE_CHECKING:
    from snf_image_helper.ufs.writing import Writing as UfsWriting

TARGET: Final = "/run/snf-image/target"
MAX_MOUNTS: Final = 256
"""Entries of an fstab that are mounted."""


class Mounted:
    """The mounted tree. ``root`` is the door to it; ``target`` the directory where it is mounted."""

    def __init__(
        self, target: str, root_fd: int, machine: Machine, devices: list[str], ufs: UfsWriting
    ) -> None:
        self.target = target
        self.root = Root(
            root_fd,
            record=machine.report.change,
            warn=machine.report.warn,
            rewrite_in_place=ufs.carries_more if machine.os_family.is_bsd else False,
        )
        self._root_fd: int | None = root_fd
        self._devices = devices
        self._ufs = ufs

    def unmount(self) -> None:
        """Undo every mount beneath the target, deepest first; doing it again does nothing.

        :class:`TaskError` names the mount that cannot be undone, or the device that lost a write
        (R-TASK-UMO-1, T-76).
        """
        if self._root_fd is None:
            return
        os.close(self._root_fd)
        self._root_fd = None
        unmount_below(self.target)
        for device in self._devices:
            _demand_written(device)
        self._ufs.finish()


def _demand_written(device: str) -> None:
    """umount(2) does not tell about writes that failed; the device does."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise TaskError(f"{device}: not everything could be written: {error.strerror}") from None
    finally:
        os.close(fd)


def mount_image(machine: Machine) -> Mounted:
    """Mount the root file system and what its fstab names (R-TASK-MNT-1 to R-TASK-MNT-12).

    On any failure everything is unmounted again before the error is raised.
    """
    volume = _root_volume(machine)
    from snf_image_helper.ufs.writing import Writing as UfsWriting  # noqa: PLC0415 - after the first task

    ufs = UfsWriting(machine)
    ufs.prepare(volume)
    several = volume.signature is not None and volume.signature.devices > 1
    among = all_volumes(machine.disks) if several else ()
    devices = [volume.device()]
    try:
        root_fd = mount_root(
            volume,
            TARGET,
            read_only=False,
            among=among,
            allow_unclean_ntfs=machine.job.mount_image.allow_unclean_ntfs,
            warn=machine.report.warn,
        )
    except BaseException:
        unmount_below(TARGET)
        raise
    mounted = Mounted(TARGET, root_fd, machine, devices, ufs)
    try:
        _record(machine, "/", volume)
        _demand_writable(mounted.root, "/")
        if machine.os_family.is_windows:
            _demand_windows(machine, mounted.root, volume)
        else:
            _demand_etc(machine, mounted.root, volume)
            _FstabMounter(machine, mounted.root, devices, ufs).mount()
    except BaseException:
        mounted.unmount()
        raise
    return mounted


def _root_volume(machine: Machine) -> Volume:
    disk, number = machine.disks.first, machine.root_partition
    table = partition_table.read(disk)
    partition = table.find(number)
    if partition is None or partition.kind == "extended":
        present = ", ".join(str(entry.number) for entry in table.usable)
        raise RequestError(f"ROOT_PARTITION={number}: there is no such partition; there are: {present}")
    volume = volume_of(disk, partition)
    if volume.kind is None or volume.kind.is_layer or volume.kind is Kind.SWAP:
        what = volume.kind or "an unknown file system"
        raise ImageError(f"{volume.name} (ROOT_PARTITION): {what} cannot be mounted as root")
    if volume.kind.is_ufs != machine.os_family.is_bsd:
        raise ImageError(f"{volume.name} (ROOT_PARTITION): {volume.kind} is no root of {machine.os_family}")
    return volume


def _record(machine: Machine, path: str, volume: Volume) -> None:
    machine.report.change(Change(path=path, change="mount", detail=f"{volume.name}, {volume.kind}"))


def _demand_writable(root: Root, path: str) -> None:
    """A kernel may mount read-only what it was asked to mount for writing (R-TASK-MNT-5, T-70)."""
    with root.open_directory(path) as fd:
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY or not os.access(".", os.W_OK, dir_fd=fd):
            raise ImageError(f"{path}: the file system can be mounted read-only only")


def _demand_etc(machine: Machine, root: Root, volume: Volume) -> None:
    if ostree.is_ostree(root, volume.kind):
        raise ImageError(f"{volume.name}: {ostree.REFUSAL}")
    if not root.is_dir("/etc"):
        raise ImageError(
            f"{volume.name}: has no directory /etc; is ROOT_PARTITION={machine.root_partition} right?"
        )


def _demand_windows(machine: Machine, root: Root, volume: Volume) -> None:
    if not root.is_dir("/Windows/System32"):
        raise ImageError(
            f"{volume.name}: has no directory \\Windows\\System32; "
            f"is ROOT_PARTITION={machine.root_partition} right?"
        )


# -- fstab ----------------------------------------------------------------------------------------


class _FstabMounter:
    """Mounts what the guest's fstab names; every device that is mounted is added to ``devices``."""

    def __init__(self, machine: Machine, root: Root, devices: list[str], ufs: UfsWriting) -> None:
        self._machine = machine
        self._ufs = ufs
        self._root = root
        self._devices = devices
        self._taken = {TARGET}
        self._among: tuple[Volume, ...] = ()

    def mount(self) -> None:
        warn = self._machine.report.warn
        data = self._root.read_optional("/etc/fstab")
        entries = fstab.parse(data or b"")
        if not entries:
            problem = "is missing" if data is None else "has no usable entries"
            warn(f"/etc/fstab {problem}; only the root file system is mounted")
            return
        selection = self._select(entries)
        for warning in selection.warnings:
            warn(warning)
        if len(selection.wanted) > MAX_MOUNTS:
            raise ImageError(f"/etc/fstab: {len(selection.wanted)} entries to mount, at most {MAX_MOUNTS}")
        self._among = all_volumes(self._machine.disks) if selection.wanted else ()
        for wanted in selection.wanted:
            try:
                reason = self._mount(wanted)
            except ImageError as error:
                if not wanted.entry.nofail:
                    raise ImageError(f"{wanted.entry.where}: {error}") from None
                reason = str(error)
            if reason is None:
                _demand_writable(self._root, wanted.entry.target)
            else:
                warn(f"{wanted.entry.where}: not mounted: {reason}")

    def _select(self, entries: tuple[fstab.Entry, ...]) -> fstab.Selection:
        family = self._machine.os_family
        if not family.is_bsd:
            return fstab.select(entries)
        from snf_image_helper.bsd import fstab as bsd_fstab  # noqa: PLC0415 - for few images

        return bsd_fstab.select(entries, family)

    def _find(self, source: fstab.Source) -> Volume | None:
        if source.tag != "DEVICE":
            return find_volume(source, self._among)
        from snf_image_helper import slices  # noqa: PLC0415 - for few images
        from snf_image_helper.bsd import fstab as bsd_fstab  # noqa: PLC0415 - for few images

        if self._machine.os_family is OsFamily.FREEBSD:
            return bsd_fstab.find_freebsd(source.value, self._among)
        return bsd_fstab.find_by_letter(source.value, self._among, slices.labels(self._machine))

    def _mount(self, wanted: fstab.Wanted) -> str | None:
        """Mount one volume; None, or why it is left out."""
        entry = wanted.entry
        volume = self._find(wanted.source)
        if volume is None:
            return "on a disk that is not known here"
        if self._root.stat(entry.target) is None:
            raise ImageError(f"the mount point {entry.target} is missing")
        with self._root.open_directory(entry.target) as fd:
            place = os.readlink(f"/proc/self/fd/{fd}")
            reason = _why_not_here(place, self._taken)
            if reason is not None:
                return reason
            self._ufs.prepare(volume)
            # By its descriptor: what was looked at is what is mounted on (R-TASK-MNT-12, T-71).
            mount_volume(
                volume,
                # A program of its own mounts NTFS: the descriptor is not its, and nobody else is here.
                place if volume.kind is Kind.NTFS else f"/proc/self/fd/{fd}",
                read_only=False,
                extra=_subvolume(entry, volume),
                among=self._among,
                allow_unclean_ntfs=self._machine.job.mount_image.allow_unclean_ntfs,
                warn=self._machine.report.warn,
            )
        self._taken.add(place)
        self._devices.append(volume.device())
        _record(self._machine, entry.target, volume)
        return None


def _why_not_here(place: str, taken: set[str]) -> str | None:
    """Why nothing is mounted at the real path ``place``: links may lead to where text does not show."""
    if place in taken:
        return "something is mounted there already"
    if not place.startswith(f"{TARGET}/"):
        raise ImageError("the mount point is outside of the image")
    if fstab.below_kernel_tree(place.removeprefix(TARGET)):
        return "a mount point of the running system"
    return None


def _subvolume(entry: fstab.Entry, volume: Volume) -> str:
    """The options of an fstab entry that say which part of a Btrfs is meant (R-TASK-MNT-4, T-69)."""
    if volume.kind is not Kind.BTRFS:
        return ""
    for name in ("subvol", "subvolid"):
        value = entry.option(name)
        if value is not None:
            return f"{name}={value}"
    return ""
