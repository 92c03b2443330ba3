"""The maps of a cylinder group, and what is counted from them.

The map of free fragments is edited; everything else (counters, runs of free fragments, map and runs of
free blocks) is recounted from it, so that no two of them can disagree.
"""

from __future__ import annotations

import collections
import functools
import itertools
from typing import Final

from snf_image_helper.ufs.layout import FRSUM_OFFSET, Group, Superblock

_MAX_FRAG: Final = 8


def set_free(group: Group, start: int, end: int) -> None:
    """Mark fragments ``start`` to ``end - 1`` of a group as free."""
    base, data = group["freeoff"], group.data
    while start < end and start % 8:
        data[base + start // 8] |= 1 << start % 8
        start += 1
    while start < end and end % 8:
        end -= 1
        data[base + end // 8] |= 1 << end % 8
    if start < end:
        data[base + start // 8 : base + end // 8] = b"\xff" * ((end - start) // 8)


@functools.cache
def _byte_counts(frag: int) -> tuple[tuple[int, int, tuple[int, ...], int], ...]:
    """For each byte of the free map: whole free blocks, free fragments of other blocks, runs by length,
    and the bits of the block map."""
    rows = []
    full = (1 << frag) - 1
    for value in range(256):
        blocks, fragments, runs, bits = 0, 0, [0] * _MAX_FRAG, 0
        for index in range(8 // frag):
            part = value >> (index * frag) & full
            if part == full:
                blocks += 1
                bits |= 1 << index
                continue
            pattern = f"{part:0{frag}b}"
            for bit, run in itertools.groupby(pattern):
                if bit == "1":
                    length = len(list(run))
                    runs[length] += 1
                    fragments += length
        rows.append((blocks, fragments, tuple(runs), bits))
    return tuple(rows)


def recount(group: Group, superblock: Superblock) -> None:
    """Renew every count of ``group`` that follows from its map of free fragments; inodes are left alone."""
    frag, count = superblock["frag"], group["ndblk"]
    start = group["freeoff"]
    free = group.data[start : start + (count + 7) // 8]
    table = _byte_counts(frag)
    blocks = fragments = 0
    runs = [0] * _MAX_FRAG
    for value, times in collections.Counter(free).items():
        row = table[value]
        blocks += row[0] * times
        fragments += row[1] * times
        runs = [total + times * more for total, more in zip(runs, row[2], strict=True)]
    group["nbfree"], group["nffree"] = blocks, fragments
    for length, total in enumerate(runs):
        group.set_word(FRSUM_OFFSET + 4 * length, total)
    if superblock["contigsumsize"]:
        _recount_clusters(group, superblock, free)


def _recount_clusters(group: Group, superblock: Superblock, free: bytearray) -> None:
    frag, longest = superblock["frag"], superblock["contigsumsize"]
    blocks = group["ndblk"] // frag
    table, per_byte = _byte_counts(frag), 8 // frag
    pattern = "".join(f"{table[value][3]:0{per_byte}b}"[::-1] for value in free)[:blocks]
    bitmap = bytearray((superblock["fpg"] // frag + 7) // 8)
    packed = int(pattern[::-1] or "0", 2).to_bytes(len(bitmap), "little")
    bitmap[:] = packed
    start = group["clusteroff"]
    group.data[start : start + len(bitmap)] = bitmap
    sums = collections.Counter(min(len(run), longest) for run in pattern.split("0") if run)
    # The count of length 0 is never used: what lies there is the end of the map before it.
    for length in range(1, longest + 1):
        group.set_word(group["clustersumoff"] + 4 * length, sums.get(length, 0))
    group["nclusterblks"] = blocks
