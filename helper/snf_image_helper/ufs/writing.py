"""UFS file systems that Linux is to write to: made ready before they are mounted, set right afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from snf_image_contract.events import Change
from snf_image_contract.names import OsFamily
from snf_image_helper.errors import ImageError
from snf_image_helper.filesystems import Volume
from snf_image_helper.machine import Machine
from snf_image_helper.ufs import hashes
from snf_image_helper.ufs.grow import grow
from snf_image_helper.ufs.layout import Superblock, read_superblock
from snf_image_helper.ufs.soundness import demand_growable, demand_sound, demand_sound_groups

_INODE: Final = {1: (128, 100, None), 2: (256, 88, 92)}
"""By version: size of an inode, where its file flags are, and the length of its extended attributes."""


@contextlib.contextmanager
def _opened(device: str) -> Iterator[int]:
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _superblock(fd: int, volume: Volume) -> Superblock:
    superblock = read_superblock(fd)
    if superblock is None:
        raise ImageError(f"{volume.name}: no UFS superblock where one is expected")
    return superblock


def grow_volume(machine: Machine, volume: Volume) -> None:
    """Grow the file system to its partition (R-TASK-FSU-3, R-TASK-FSU-4), its check hashes kept valid."""
    freebsd = machine.os_family is OsFamily.FREEBSD
    with _opened(volume.device()) as fd:
        superblock = _superblock(fd, volume)
        demand_sound(superblock, volume.name, machine.os_family)
        demand_growable(superblock, volume.name, machine.os_family)
        demand_sound_groups(fd, superblock, volume.name)
        kinds = hashes.switch_off(fd, superblock) if freebsd else 0
        try:
            growth = grow(fd, volume.size, provider_size=freebsd)
        except ImageError as error:
            raise ImageError(f"{volume.name}: {error}") from None
        finally:
            if kinds:
                hashes.switch_on(fd, _superblock(fd, volume), kinds, inodes=False)
        os.fsync(fd)
    if growth is not None:
        size, kind = superblock["fsize"], f"UFS{superblock.version}"
        detail = f"{kind} grown from {growth.old_fragments * size} to {growth.fragments * size} bytes"
        machine.report.change(Change(path=volume.name, change="filesystem", detail=detail))


class Writing:
    """The UFS file systems that are mounted for writing."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._hashed: list[tuple[Volume, int]] = []
        self._volumes: dict[int, tuple[Volume, Superblock]] = {}

    def prepare(self, volume: Volume) -> None:
        """Before the mount: :class:`ImageError` if it must not be written to; check hashes off (U-9)."""
        if volume.kind is None or not volume.kind.is_ufs:
            return
        device = volume.device()
        with _opened(device) as fd:
            superblock = _superblock(fd, volume)
            demand_sound(superblock, volume.name, self._machine.os_family)
            demand_sound_groups(fd, superblock, volume.name)
            if self._machine.os_family is OsFamily.FREEBSD:
                kinds = hashes.switch_off(fd, superblock)
                if kinds:
                    self._hashed.append((volume, kinds))
        self._volumes[os.stat(device).st_rdev] = (volume, superblock)

    def carries_more(self, status: os.stat_result) -> bool:
        """Whether a file has extended attributes or file flags, which the driver does not show (U-7)."""
        known = self._volumes.get(status.st_dev)
        if known is None:
            return False
        volume, superblock = known
        size, flags, attributes = _INODE[superblock.version]
        group, index = divmod(status.st_ino, superblock["ipg"])
        place = superblock.byte_address(group, "iblkno") + index * size
        with _opened(volume.device()) as fd:
            inode = os.pread(fd, size, place)
        fields = [inode[flags : flags + 4]]
        if attributes is not None:
            fields.append(inode[attributes : attributes + 4])
        return any(any(field) for field in fields)

    def finish(self) -> None:
        """After the last unmount: the check hashes computed anew and on again (U-10)."""
        while self._hashed:
            volume, kinds = self._hashed.pop()
            with _opened(volume.device()) as fd:
                hashes.switch_on(fd, _superblock(fd, volume), kinds)
            change = Change(path=volume.name, change="filesystem", detail="check hashes renewed")
            self._machine.report.change(change)
