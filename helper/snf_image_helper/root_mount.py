"""Mounting one volume where the root file system goes, to look at it or to change it; and undoing it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import posixpath
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from snf_image_helper import fstab, kernel_mount
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.filesystems import DRIVERS, Volume, mount_options
from snf_image_helper.openat2 import open_in_root
from snf_image_helper.root import Root
from snf_image_helper.signatures import Kind

LOOK: Final = "/run/snf-image/look"
"""Where a volume is mounted only to be looked at."""
_BUSY_SECONDS: Final = 10.0
_BUSY_POLL: Final = 0.1
BTRFS_ROOTS: Final = ("root", "@", "@rootfs")
"""Subvolumes that usually hold a root file system."""
_BTRFS_TOP: Final = "subvolid=5"
_MAX_SUBVOLUMES: Final = 64
_FUSE: Final = ("fuseblk", "fuse")
"""What the kernel calls a file system that a process serves: here always NTFS."""
_BLKROSET: Final = 0x125D
_BLKROGET: Final = 0x125E


def mount_volume(
    volume: Volume,
    target: str,
    *,
    read_only: bool,
    extra: str = "",
    among: Sequence[Volume] = (),
    allow_unclean_ntfs: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Mount a volume with the driver its signature names; ``extra`` are more of the driver's options.

    ``among``: all volumes of the instance, for Btrfs of several devices. ``warn`` is told of an NTFS that
    was not left in order.
    :class:`ImageError` if there is no driver, or the kernel refuses.
    """
    if volume.kind is Kind.NTFS:
        from snf_image_helper import ntfs  # noqa: PLC0415 - for few images

        ntfs.mount(volume, target, read_only=read_only, allow_unclean=allow_unclean_ntfs, warn=warn)
        return
    driver = DRIVERS.get(volume.kind) if volume.kind else None
    if driver is None or volume.kind is None:
        what = volume.kind or "an unknown file system"
        raise ImageError(f"{volume.name}: {what} cannot be mounted")
    options = [mount_options(volume.kind, read_only=read_only), extra, *_members(volume, among)]
    try:
        kernel_mount.mount(
            volume.device(), target, driver, read_only=read_only, options=",".join(filter(None, options))
        )
    except OSError as error:
        raise ImageError(f"{volume.name}: cannot mount {volume.kind}: {_meaning(error)}") from None


def _meaning(error: OSError) -> str:
    return {
        errno.EINVAL: "the kernel refuses it: damaged, or with features it does not know",
        errno.ENODEV: "this helper has no driver for it",
        errno.EUCLEAN: "its structures are damaged",
    }.get(error.errno or 0, error.strerror or str(error))


def _members(volume: Volume, among: Sequence[Volume]) -> list[str]:
    """Options that name the other devices of a Btrfs."""
    if volume.kind is not Kind.BTRFS or volume.signature is None or volume.signature.devices == 1:
        return []
    same = [other for other in among if other.kind is Kind.BTRFS and other.signature is not None]
    return [
        f"device={other.device()}"
        for other in same
        if other.signature is not None and other.signature.uuid == volume.signature.uuid and other != volume
    ]


def mount_root(
    volume: Volume,
    target: str,
    *,
    read_only: bool,
    among: Sequence[Volume] = (),
    allow_unclean_ntfs: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> int:
    """Mount the volume that holds the root file system; a descriptor of its top directory.

    Of a Btrfs, the subvolume that has an ``/etc`` is taken (R-TASK-MNT-4). The caller closes the
    descriptor before unmounting.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    mount_volume(
        volume,
        target,
        read_only=read_only,
        among=among,
        allow_unclean_ntfs=allow_unclean_ntfs,
        warn=warn,
    )
    if volume.kind is Kind.BTRFS and not _has_etc(target):
        kernel_mount.umount(target)
        _mount_subvolume(volume, target, read_only=read_only, among=among)
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _has_etc(target: str) -> bool:
    with _directory(target) as fd:
        try:
            os.close(open_in_root(fd, "/etc", os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _mount_subvolume(volume: Volume, target: str, *, read_only: bool, among: Sequence[Volume]) -> None:
    """Mount the first subvolume with an ``/etc``, or else the default one again."""
    mount_volume(volume, target, read_only=True, extra=_BTRFS_TOP, among=among)
    try:
        names = list(dict.fromkeys((*BTRFS_ROOTS, *_named_roots(target))))
    finally:
        kernel_mount.umount(target)
    for name in names:
        try:
            mount_volume(volume, target, read_only=read_only, extra=f"subvol={name}", among=among)
        except ImageError:
            continue
        if _has_etc(target):
            return
        kernel_mount.umount(target)
    mount_volume(volume, target, read_only=read_only, among=among)


def _named_roots(target: str) -> Iterator[str]:
    """Subvolumes that any fstab in a top-level directory names for ``/``."""
    with _directory(target) as fd:
        root = Root(fd, record=lambda _: None, warn=lambda _: None)
        for name in root.list("/")[:_MAX_SUBVOLUMES]:
            try:
                data = root.read_optional(posixpath.join("/", name, "etc/fstab"))
            except ImageError:
                continue
            for entry in fstab.parse(data or b""):
                subvolume = entry.option("subvol")
                if fstab.is_root(entry) and subvolume is not None:
                    yield subvolume


@contextlib.contextmanager
def looked_at(volume: Volume, among: Sequence[Volume] = ()) -> Iterator[Root]:
    """The volume mounted read-only, with its device write-protected meanwhile: nothing can change.

    A driver asked for read-only may still write: ext4 cleans up orphaned inodes.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_write_protected(volume.device()))
        fd = mount_root(volume, LOOK, read_only=True, among=among)
        # Undone in the opposite order: the descriptor first, or the unmount finds it busy.
        stack.callback(unmount_below, LOOK)
        stack.callback(os.close, fd)
        yield Root(fd, record=_refuse_change, warn=lambda _: None)


def _refuse_change(_: object) -> None:
    raise TaskError("a volume that is only looked at was changed")


@contextlib.contextmanager
def _write_protected(device: str) -> Iterator[None]:
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        before = fcntl.ioctl(fd, _BLKROGET, struct.pack("i", 0))
        fcntl.ioctl(fd, _BLKROSET, struct.pack("i", 1))
        try:
            yield
        finally:
            fcntl.ioctl(fd, _BLKROSET, before)
    finally:
        os.close(fd)


def unmount_below(target: str) -> None:
    """Write everything out and unmount what is at and below ``target``, deepest first (R-TASK-UMO-1).

    What is busy is tried again for ten seconds. :class:`TaskError` names what cannot be unmounted, or has
    lost a write; :class:`ImageError` what is full. Tasks leave it to this place to write their files out.
    """
    lost: list[TaskError] = []
    for point in kernel_mount.mounted_below(target):
        where = point.path.removeprefix(target) or "/"
        try:
            kernel_mount.write_out(point.path)
        except OSError as error:
            lost.append(_lost(where, error))
        _unmount(point.path, where)
        if point.driver in _FUSE:
            from snf_image_helper import ntfs  # noqa: PLC0415 - for few images

            ntfs.wait_until_ended(point.source)
    if lost:
        raise lost[0]


def _lost(where: str, error: OSError) -> TaskError:
    """Some file systems find out only now that there is no room for what they have accepted."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ImageError(f"{where}: the file system is full")
    if error.errno in (errno.EUCLEAN, errno.EBADMSG):
        return ImageError(f"{where}: the file system is damaged")
    return TaskError(f"{where}: not everything could be written: {error.strerror}")


def _unmount(path: str, where: str) -> None:
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            kernel_mount.umount(path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                raise TaskError(f"cannot unmount {where}: {error.strerror}") from None
        else:
            return
        time.sleep(_BUSY_POLL)
