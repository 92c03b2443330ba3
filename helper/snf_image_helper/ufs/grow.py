"""Grow a clean, unmounted UFS1 or UFS2 file system to its partition, in either byte order.

New cylinder groups are written first, then the group that was the last, the summary and the copies of the
superblock, and the primary superblock last of all: until that moment the old file system is whole.

Check hashes must be off (see :mod:`snf_image_helper.ufs.hashes`). The method follows what ``growfs`` does
on paper: edit the map of free fragments, recount what is derived from it.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Final

from snf_image_helper.errors import ImageError
from snf_image_helper.ufs.layout import (
    FS_METACKHASH,
    Group,
    Superblock,
    read_group,
    read_superblock,
)
from snf_image_helper.ufs.maps import recount, set_free

_SUMMARY: Final = 16
_GROUP_HEADER: Final = 168
_INODE: Final = {1: (128, 108), 2: (256, 80)}
"""By version: size of an inode, and where its generation number is."""
_UFS1_MAX_FRAGMENTS: Final = (1 << 31) - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What growing does: sizes in fragments; ``summary``: new address of the summary, if it moves."""

    old_fragments: int
    fragments: int
    old_groups: int
    groups: int
    summary: int | None
    summary_size: int


def plan_growth(superblock: Superblock, device_bytes: int) -> Growth | None:
    """What fits on a device of that size, None if the file system is as large already."""
    fpg, old_groups = superblock["fpg"], superblock["ncg"]
    fragments = device_bytes // superblock["fsize"]
    if superblock.version == 1:
        fragments = min(fragments, _UFS1_MAX_FRAGMENTS)
    groups = -(-fragments // fpg)
    last = superblock.group_start(groups - 1) + superblock["dblkno"]
    if fragments <= last:  # no room for a single fragment of data in the last group: do without it
        groups -= 1
        fragments = groups * fpg
    if groups > old_groups and not _summary_fits(superblock, fragments, groups):
        groups, fragments = old_groups, old_groups * fpg
    if fragments <= superblock.fragments:
        return None
    needed = _round_up(groups * _SUMMARY, superblock["fsize"])
    moves = needed > superblock["cssize"]
    return Growth(
        old_fragments=superblock.fragments,
        fragments=fragments,
        old_groups=old_groups,
        groups=groups,
        summary=superblock.group_start(old_groups) + superblock["dblkno"] if moves else None,
        summary_size=max(needed, superblock["cssize"]),
    )


def grow(fd: int, device_bytes: int, *, provider_size: bool) -> Growth | None:
    """Grow the file system on ``fd`` to ``device_bytes``; None if there is nothing to do.

    ``provider_size``: keep FreeBSD's record of the device's size. :class:`ImageError` if the structures
    contradict each other; nothing has been written then.
    """
    superblock = read_superblock(fd)
    if superblock is None:
        raise ImageError("UFS: no superblock")
    if superblock["flags"] & FS_METACKHASH and provider_size:
        raise ImageError("UFS: check hashes must be switched off before growing")
    if superblock.fragments * superblock["fsize"] > device_bytes:
        raise ImageError(
            f"UFS: the file system of {superblock.fragments * superblock['fsize']} bytes is larger than its"
            f" partition of {device_bytes}: the image seems to be truncated"
        )
    growth = plan_growth(superblock, device_bytes)
    if growth is None:
        return None
    changed = _changed_groups(fd, superblock, growth)
    fresh = _FreshGroups(read_group(fd, superblock, 0), superblock, growth)
    summaries = _summaries(fd, superblock, growth, changed, fresh)
    _renew(superblock, growth, summaries, device_bytes if provider_size else None)
    for index in range(growth.old_groups, growth.groups):
        fresh.write(fd, index)
    os.fsync(fd)
    for index, group in changed.items():
        _write(fd, bytes(group.data), superblock.byte_address(index, "cblkno"))
    _write(fd, summaries, superblock.summary_address * superblock["fsize"])
    os.fsync(fd)
    _write_superblocks(fd, superblock)
    return growth


def _changed_groups(fd: int, superblock: Superblock, growth: Growth) -> dict[int, Group]:
    """The old last group with its new end, and the group that held a summary which moves."""
    last = growth.old_groups - 1
    changed = {last: read_group(fd, superblock, last)}
    group, old_end = changed[last], changed[last]["ndblk"]
    if old_end != growth.old_fragments - superblock.group_base(last):
        raise ImageError(f"UFS: cylinder group {last} and the superblock disagree about its size")
    group["ndblk"] = _group_size(superblock, growth, last)
    set_free(group, old_end, group["ndblk"])
    if superblock.version == 1:
        group["old_ncyl"] = _cylinders(superblock, group["ndblk"])
    if growth.summary is not None:
        holder, offset = divmod(superblock.summary_address, superblock["fpg"])
        if holder >= growth.old_groups:
            raise ImageError("UFS: the summary lies outside the file system")
        if holder not in changed:
            changed[holder] = read_group(fd, superblock, holder)
        set_free(changed[holder], offset, offset + superblock["cssize"] // superblock["fsize"])
    for group in changed.values():
        recount(group, superblock)
    return changed


class _FreshGroups:
    """New groups. All but the first, which may hold the summary, and the last share one body."""

    def __init__(self, template: Group, superblock: Superblock, growth: Growth) -> None:
        self._template = template
        self._superblock = superblock
        self._growth = growth
        self._bodies: dict[tuple[int, bool, int], Group] = {}

    def header(self, index: int) -> Group:
        """The header of new group ``index``."""
        superblock, growth = self._superblock, self._growth
        size = _group_size(superblock, growth, index)
        holds_summary = growth.summary is not None and index == growth.old_groups
        stagger = superblock.group_start(index) - superblock.group_base(index)
        key = (size, holds_summary, stagger)
        if key not in self._bodies:
            self._bodies[key] = self._body(size, stagger, growth.summary_size if holds_summary else 0)
        group = Group(bytearray(self._bodies[key].data), superblock.order)
        group["cgx"] = index
        return group

    def _body(self, size: int, stagger: int, summary_bytes: int) -> Group:
        superblock = self._superblock
        group = Group(bytearray(self._template.data), superblock.order)
        group.data[_GROUP_HEADER:] = bytes(len(group.data) - _GROUP_HEADER)
        for name in ("ndir", "rotor", "frotor", "irotor", "unrefs", "ckhash"):
            group[name] = 0
        group["ndblk"], group["nifree"] = size, superblock["ipg"]
        if superblock.version == 2:
            group["initediblk"] = min(superblock["ipg"], 2 * superblock["inopb"])
        else:
            group["old_ncyl"] = _cylinders(superblock, size)
        data = stagger + superblock["dblkno"] + summary_bytes // superblock["fsize"]
        set_free(group, 0, stagger + superblock["sblkno"])
        set_free(group, data, size)
        recount(group, superblock)
        return group

    def write(self, fd: int, index: int) -> None:
        """Write group ``index``: its inodes, zeroed because the device may hold old data, and its header."""
        superblock = self._superblock
        size, generation = _INODE[superblock.version]
        group = self.header(index)
        count = group["initediblk"] if superblock.version == 2 else superblock["ipg"]
        inodes = bytearray(count * size)
        random = os.urandom(4 * count)
        for byte in range(4):
            inodes[generation + byte :: size] = random[byte::4]
        _write(fd, bytes(inodes), superblock.byte_address(index, "iblkno"))
        _write(fd, bytes(group.data), superblock.byte_address(index, "cblkno"))


def _summaries(
    fd: int, superblock: Superblock, growth: Growth, changed: dict[int, Group], fresh: _FreshGroups
) -> bytes:
    """The summary of every group: directories, free blocks, free inodes, free fragments.

    It is what the groups say of themselves, as fsck has it, and not what the summary on the disk said.
    """
    if superblock["cssize"] < growth.old_groups * _SUMMARY:
        raise ImageError("UFS: the summary is smaller than its groups")
    summaries = bytearray(growth.summary_size)
    for index in range(growth.groups):
        if index >= growth.old_groups:
            group = fresh.header(index)
        else:
            group = changed.get(index) or read_group(fd, superblock, index)
            _demand_plausible(group, superblock, index)
        summaries[index * _SUMMARY : (index + 1) * _SUMMARY] = group.data[24:40]
    return bytes(summaries)


def _demand_plausible(group: Group, superblock: Superblock, index: int) -> None:
    """:class:`ImageError` if a group claims more than it can have: totals are sums of such numbers."""
    free = group["nbfree"] * superblock["frag"] + group["nffree"]
    if free > group["ndblk"] or max(group["ndir"], group["nifree"]) > superblock["ipg"]:
        raise ImageError(f"UFS: cylinder group {index} is damaged: it counts more than it has")


def _renew(superblock: Superblock, growth: Growth, summaries: bytes, device_bytes: int | None) -> None:
    """Bring the superblock's numbers to those of the grown file system."""
    order = superblock.order
    words = [int.from_bytes(summaries[at : at + 4], order) for at in range(0, growth.groups * _SUMMARY, 4)]
    totals = {name: sum(words[at::4]) for at, name in enumerate(("ndir", "nbfree", "nifree", "nffree"))}
    metadata = superblock["dblkno"] - superblock["sblkno"]
    data = growth.fragments - superblock["sblkno"] - growth.groups * metadata
    data -= growth.summary_size // superblock["fsize"]
    address = superblock.summary_address if growth.summary is None else growth.summary
    superblock["ncg"], superblock["cssize"] = growth.groups, growth.summary_size
    if superblock.has_new_fields:
        superblock["size"], superblock["dsize"], superblock["csaddr"] = growth.fragments, data, address
        for name, total in totals.items():
            superblock[f"cs_{name}"] = total
    if superblock.version == 1:
        superblock["old_size"], superblock["old_dsize"] = growth.fragments, data
        superblock["old_csaddr"], superblock["old_ncyl"] = address, growth.groups
        for name, total in totals.items():
            superblock[f"old_cs_{name}"] = total
    if device_bytes is not None and superblock["providersize"]:
        superblock["providersize"] = device_bytes // superblock["fsize"]


def _write_superblocks(fd: int, superblock: Superblock) -> None:
    """The copy of every group, and the primary when all else is on the disk."""
    size, records_place = superblock["sbsize"], superblock["sblockactualloc"] != 0
    for group in range(superblock["ncg"]):
        place = superblock.byte_address(group, "sblkno")
        if records_place:
            superblock["sblockactualloc"] = place
        _write(fd, bytes(superblock.data[:size]), place)
    os.fsync(fd)
    if records_place:
        superblock["sblockactualloc"] = superblock.location
    _write(fd, bytes(superblock.data[:size]), superblock.location)
    os.fsync(fd)


def _summary_fits(superblock: Superblock, fragments: int, groups: int) -> bool:
    """Whether a summary that must move finds room in the first new group."""
    needed = _round_up(groups * _SUMMARY, superblock["fsize"])
    if needed <= superblock["cssize"]:
        return True
    first = superblock["ncg"]
    end = min(fragments, superblock.group_base(first + 1))
    return superblock.group_start(first) + superblock["dblkno"] + needed // superblock["fsize"] < end


def _group_size(superblock: Superblock, growth: Growth, index: int) -> int:
    return min(superblock["fpg"], growth.fragments - superblock.group_base(index))


def _cylinders(superblock: Superblock, fragments: int) -> int:
    """Old cylinders of a group of that size; meaningless on today's disks, but checked by FreeBSD's fsck."""
    per_group = superblock["old_cpg"]
    if not per_group:
        return 0
    return -(-fragments // max(1, superblock["fpg"] // per_group))


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
