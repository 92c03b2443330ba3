"""Whether a UFS file system may be mounted for writing and grown; told before the first write.

Linux checks little of this itself: an unclean file system can be remounted for writing, snapshots are
written through, and a log of NetBSD's is not replayed.
"""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.errors import ImageError
from snf_image_helper.ufs.layout import Superblock, read_group

_CLEAN: Final = 1
_NEEDS_CHECK: Final = 0x04
_NETBSD_LOG: Final = 0x100
"""In ``fs_flags`` of NetBSD: a log that needs replay. FreeBSD means NFSv4 ACLs by it."""
_LARGEST_FRAGMENT: Final = 4096
_SMALLEST_BLOCK: Final = 4096
_LOG_LOCATION: Final = 868
"""Where NetBSD says where its log is: 0 nowhere, 1 behind the file system, 2 in a file."""
_LOG_IN_FILE: Final = 2


def demand_sound(superblock: Superblock, name: str, family: OsFamily) -> None:
    """:class:`ImageError` if the file system called ``name`` must not be written to (U-2 to U-6)."""
    where = f"{name}: UFS{superblock.version} file system"
    if superblock["clean"] != _CLEAN or superblock["flags"] & _NEEDS_CHECK:
        raise ImageError(
            f"{where} is not marked clean: it was in use when the image was made;"
            " shut the system down (or run fsck) and publish the image again"
        )
    if superblock["snapinum0"]:
        raise ImageError(f"{where} has snapshots, which would not survive a change: remove them first")
    if superblock["fsize"] > _LARGEST_FRAGMENT or superblock["bsize"] < _SMALLEST_BLOCK:
        raise ImageError(
            f"{where} has blocks of {superblock['bsize']} and fragments of {superblock['fsize']} bytes:"
            f" blocks from {_SMALLEST_BLOCK} and fragments of at most {_LARGEST_FRAGMENT} are supported"
        )
    if superblock.version == 2 and superblock["sblockloc"] != superblock.location:
        raise ImageError(f"{where} has its superblock at byte {superblock['sblockloc']}: not supported")
    if family is OsFamily.NETBSD and superblock["flags"] & _NETBSD_LOG:
        raise ImageError(f"{where} has a log (WAPBL) that needs replay: shut the system down cleanly")


def demand_sound_groups(fd: int, superblock: Superblock, name: str) -> None:
    """:class:`ImageError` if a cylinder group is damaged: the driver would search its maps without end."""
    try:
        for group in range(superblock["ncg"]):
            read_group(fd, superblock, group)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def demand_growable(superblock: Superblock, name: str, family: OsFamily) -> None:
    """:class:`ImageError` if growing would overwrite what lies behind the file system."""
    if family is OsFamily.NETBSD and superblock.word(_LOG_LOCATION) not in (0, _LOG_IN_FILE):
        raise ImageError(
            f"{name}: UFS{superblock.version} file system has its log (WAPBL) behind it, where it would grow:"
            " remove the log with tunefs -l 0 and publish the image again"
        )
