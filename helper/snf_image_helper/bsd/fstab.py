"""fstab of the BSDs: which entries are mounted, and what their names lead to.

R-TASK-MNT-7, R-TASK-MNT-10, R-TASK-MNT-11.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper import fstab, slices
from snf_image_helper.bsd.disklabel import Disklabel
from snf_image_helper.errors import ImageError
from snf_image_helper.filesystems import Volume, find_volume
from snf_image_helper.fstab import Entry, Selection, Source, Wanted
from snf_image_helper.partition_table import Partition
from snf_image_helper.signatures import Kind

TYPES: Final = {
    OsFamily.FREEBSD: frozenset(("ufs", "msdosfs", "ntfs")),
    OsFamily.OPENBSD: frozenset(("ffs", "msdos", "ntfs", "ext2fs")),
    OsFamily.NETBSD: frozenset(("ffs", "ufs", "msdos", "ext2fs", "ntfs")),
}
"""File system types that are mounted."""
_PARTITION: Final = re.compile(r"/dev/[a-z]+(?P<unit>[0-9]{1,4})p(?P<number>[0-9]{1,4})")

_DUID: Final = re.compile(r"([0-9a-f]{16})\.([a-z])")
_LETTERED: Final = re.compile(r"/dev/[a-z]+(?P<unit>[0-9]{1,4})(?P<letter>[a-z])")
_ROOT_LETTER: Final = re.compile(r"ROOT\.([a-z])")

Matches = Callable[[Volume], bool]


def select(entries: tuple[Entry, ...], family: OsFamily) -> Selection:
    """Which entries are mounted, parents first; what their sources lead to is found out one by one."""
    wanted: list[Wanted] = []
    warnings: list[str] = []
    for entry in entries:
        if fstab.is_root(entry):
            continue
        reason = fstab.left_out(entry, TYPES[family])
        if reason is not None:
            warnings.append(f"{entry.where}: not mounted: {reason}")
        else:
            wanted.append(Wanted(entry=entry, source=Source(tag="DEVICE", value=entry.source)))
    return Selection(wanted=fstab.by_depth(wanted), warnings=tuple(warnings))


def find_freebsd(name: str, among: tuple[Volume, ...]) -> Volume | None:
    """What a device name of FreeBSD leads to; None if it is on a disk that we do not know.

    :class:`ImageError` for a name that cannot be resolved (T-62, T-63).
    """
    match = _PARTITION.fullmatch(name)
    if match is not None:
        if int(match["unit"]) != 0:
            return None
        number = int(match["number"])
        return _one(name, among, lambda volume: volume.disk.index == 0 and volume.number == number)
    if name.startswith("/dev/gpt/"):
        return find_volume(Source(tag="PARTLABEL", value=name.removeprefix("/dev/gpt/")), among)
    if name.startswith("/dev/gptid/"):
        return find_volume(Source(tag="PARTUUID", value=name.removeprefix("/dev/gptid/")), among)
    label = re.fullmatch(r"/dev/(ufs|ufsid|msdosfs)/(.+)", name, re.DOTALL)
    if label is None:
        raise ImageError(f"{name} cannot be resolved; use /dev/gpt/NAME, /dev/ufs/LABEL or /dev/DISKpN")
    kind, value = label.groups()
    if kind == "ufsid":
        return _one(name, among, lambda volume: _is_ufs(volume) and _uuid(volume) == value.lower())
    kinds = (Kind.VFAT,) if kind == "msdosfs" else (Kind.UFS1, Kind.UFS2)
    return _one(name, among, lambda volume: volume.kind in kinds and _label(volume) == value)


def find_by_letter(
    name: str, among: tuple[Volume, ...], labels: tuple[tuple[Partition, Disklabel], ...]
) -> Volume | None:
    """What a name of OpenBSD or NetBSD leads to; None if it is on a disk that we do not know.

    Letters are looked up in the disklabel (T-61). ``labels``: of disk 0, the root's slice first.
    """
    if name.startswith("NAME="):
        return find_volume(Source(tag="PARTLABEL", value=name.removeprefix("NAME=")), among)
    for partition, label in labels:
        letter = _letter(name, label)
        if letter is not None:
            disk = next(volume.disk for volume in among if volume.disk.index == 0)
            found = [v for v in slices.volumes_of(disk, partition, label) if v.letter == letter]
            if not found:
                raise ImageError(f"{name}: the disklabel has no partition {letter} on this disk")
            return found[0]
    return None


def _letter(name: str, label: Disklabel) -> str | None:
    """The letter that a name means in this label, None if it means another disk."""
    if match := _DUID.fullmatch(name):
        return match[2] if match[1] == label.duid else None
    if match := _LETTERED.fullmatch(name):
        return match["letter"] if int(match["unit"]) == 0 else None
    match = _ROOT_LETTER.fullmatch(name)
    return match[1] if match else None


def _one(name: str, among: tuple[Volume, ...], matches: Matches) -> Volume:
    found = [volume for volume in among if matches(volume)]
    found = [volume for volume in found if volume.disk.index == 0] or found
    if len(found) != 1:
        what = "ambiguous: " + ", ".join(v.name for v in found) if found else "on no disk of the instance"
        raise ImageError(f"{name} is {what}")
    return found[0]


def _is_ufs(volume: Volume) -> bool:
    return volume.kind is not None and volume.kind.is_ufs


def _label(volume: Volume) -> str:
    return volume.signature.label if volume.signature else ""


def _uuid(volume: Volume) -> str:
    return volume.signature.uuid.lower() if volume.signature else ""
