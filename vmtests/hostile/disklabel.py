"""Damage to disklabels of OpenBSD and NetBSD.

disklabel(5): in the second sector of the slice; little-endian; magic at 0 and 132, checksum at 136, number of
partitions at 138, from 148 on 16 bytes each: size, start, fragment size, type. All words together XOR to 0.
"""

from __future__ import annotations

import functools
import operator
import struct
from typing import Final

from hostile.image import EITHER, HostileImage
from hostile.region import SECTOR, ImageFile, Region

_OPENBSD: Final = "openbsd-mbr-ffs2"
_NETBSD: Final = "netbsd-mbr-ffs1-big-endian"
_CHECKSUM, _COUNT, _ROWS, _ROW = 136, 138, 148, 16


def _label(image: ImageFile) -> Region:
    return image.root.part(SECTOR, SECTOR)


def _seal(label: Region) -> None:
    label.put(_CHECKSUM, "<H", 0)
    count = min(label.number(_COUNT, "<H"), (SECTOR - _ROWS) // _ROW)
    length = _ROWS + _ROW * count
    words = struct.unpack(f"<{length // 2}H", label.read(0, length))
    label.put(_CHECKSUM, "<H", functools.reduce(operator.xor, words))


def _flip(image: ImageFile) -> None:
    """All but the magic numbers."""
    _label(image).flip(4, 128)


def _half_a_magic(image: ImageFile) -> None:
    """Only the second magic number is left."""
    _label(image).flip(0, 4)


def _no_magic(image: ImageFile) -> None:
    _label(image).fill(0, 4, 0)


def _many_partitions(image: ImageFile) -> None:
    label = _label(image)
    label.put(_COUNT, "<H", 0xFFFF)
    _seal(label)


def _empty_sectors(image: ImageFile) -> None:
    label = _label(image)
    label.put(40, "<I", 0)
    _seal(label)


def _behind_the_disk(image: ImageFile) -> None:
    label = _label(image)
    label.put(_ROWS, "<II", 0xFFFFFFFF, 0xFFFFFFFF)
    _seal(label)


def _overlapping(image: ImageFile) -> None:
    """Every partition of the label is the same, and all are file systems: labels may overlap."""
    label = _label(image)
    row = label.read(_ROWS, _ROW)
    label.put(_COUNT, "<H", 16)
    label.write(_ROWS, row * 16)
    _seal(label)


IMAGES: Final = (
    HostileImage(
        id="disklabel-flipped", base=_OPENBSD, structure="disklabel: header", damage=_flip, sampled=True
    ),
    HostileImage(
        id="disklabel-without-magic", base=_NETBSD, structure="disklabel: header", damage=_no_magic,
        ends=EITHER,
    ),
    HostileImage(
        id="disklabel-with-half-a-magic", base=_OPENBSD, structure="disklabel: header", damage=_half_a_magic,
        ends=EITHER,
    ),
    HostileImage(
        id="disklabel-65535-partitions", base=_OPENBSD, structure="disklabel: header", damage=_many_partitions
    ),
    HostileImage(
        id="disklabel-sectors-of-no-bytes", base=_OPENBSD, structure="disklabel: header",
        damage=_empty_sectors, ends=EITHER,
    ),
    HostileImage(
        id="disklabel-partition-behind-the-disk", base=_NETBSD, structure="disklabel: entries",
        damage=_behind_the_disk,
    ),
    HostileImage(
        id="disklabel-overlapping-partitions", base=_OPENBSD, structure="disklabel: entries",
        damage=_overlapping, ends=EITHER,
    ),
)  # fmt: skip
