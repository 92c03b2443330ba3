"""mount(2), umount2(2), and what is mounted: called directly, because a program costs time and a parser."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
from typing import Final

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_UMOUNT_NOFOLLOW: Final = 8
MOUNTINFO: Final = "/proc/self/mountinfo"

_libc = ctypes.CDLL(None, use_errno=True)


def mount(device: str, target: str, driver: str, *, read_only: bool, options: str = "") -> None:
    """Mount with an explicit driver, always nosuid, nodev and noexec (R-TASK-7); OSError as mount(2).

    ``options`` are the driver's own. ``target`` may be ``/proc/self/fd/N``: then there is no race between
    finding the directory and mounting on it.
    """
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | (_MS_RDONLY if read_only else 0)
    result = _libc.mount(
        os.fsencode(device), os.fsencode(target), driver.encode(), ctypes.c_ulong(flags), os.fsencode(options)
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def umount(target: str) -> None:
    """Unmount what is on top at ``target``, a link not followed; OSError as umount2(2)."""
    if _libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def write_out(mount_point: str) -> None:
    """Write out what is mounted there; OSError also for a write that failed before and nobody was told of.

    syncfs(2), which tells that since Linux 5.8. What a program of the operator mounted may be a file.
    """
    try:
        fd = os.open(mount_point, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        os.sync()  # a socket or a device: it cannot be asked, and holds no files
        return
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), mount_point)
    finally:
        os.close(fd)


def size(mount_point: str) -> int:
    """Bytes of the file system that is mounted there, as it says itself."""
    status = os.statvfs(mount_point)
    return status.f_blocks * status.f_frsize


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """One line of mountinfo. ``source`` is what was given as the device."""

    path: str
    device: tuple[int, int]
    driver: str
    source: str


def parse_mountinfo(data: bytes) -> tuple[MountPoint, ...]:
    """Every mount of this process's namespace, in the order in which they were made."""
    found = []
    for line in data.splitlines():
        before, _, after = line.partition(b" - ")
        fields, rest = before.split(b" "), after.split(b" ")
        major, _, minor = fields[2].partition(b":")
        found.append(
            MountPoint(
                path=os.fsdecode(unescape(fields[4])),
                device=(int(major), int(minor)),
                driver=os.fsdecode(unescape(rest[0])),
                source=os.fsdecode(unescape(rest[1])),
            )
        )
    return tuple(found)


def unescape(field: bytes) -> bytes:
    r"""Decode ``\040`` style escapes, as in fstab and mountinfo; never to a NUL, which no path can have."""
    return re.sub(rb"\\(?!000)([0-3][0-7]{2})", lambda match: bytes((int(match[1], 8),)), field)


def mounted_below(target: str) -> tuple[MountPoint, ...]:
    """What is mounted at ``target`` and below it, what was mounted last first."""
    with open(MOUNTINFO, "rb") as stream:
        everything = parse_mountinfo(stream.read())
    below = [point for point in everything if point.path == target or point.path.startswith(f"{target}/")]
    return tuple(reversed(below))
