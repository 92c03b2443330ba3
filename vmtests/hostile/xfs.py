"""Damage to XFS, much of it with right checksums.

"XFS Algorithms & Data Structures": each allocation group begins with a superblock, AGF, AGI and AGFL, one in
each sector, all big-endian; checksums are CRC-32C over the structure, little-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostile import crc32c
from hostile.image import EITHER, Rows
from hostile.region import ImageFile, Region

_BASE: Final = "rhel9-gpt-xfs"
_SECTOR: Final = 512
_AGF, _AGI, _AGFL = 1, 2, 3
_CRC_AT: Final = {0: 224, _AGF: 216, _AGI: 312, _AGFL: 32}
_INODE_CRC: Final = 100
# Fields of the superblock: (at, form).
_BLOCK_SIZE: Final = (4, ">I")
_DATA_BLOCKS: Final = (8, ">Q")
_LOG_START: Final = (48, ">Q")
_ROOT_INODE: Final = (56, ">Q")
_GROUP_BLOCKS: Final = (84, ">I")
_GROUPS: Final = (88, ">I")
_INODE_SIZE: Final = (104, ">H")
_INODES_PER_BLOCK_LOG: Final = (123, ">B")
_GROUP_BLOCKS_LOG: Final = (124, ">B")
_IN_PROGRESS: Final = (126, ">B")
_READ_ONLY_COMPATIBLE: Final = (212, ">I")
_INCOMPATIBLE: Final = (216, ">I")


def _get(fs: Region, field: tuple[int, str]) -> int:
    return fs.number(*field)


def _seal(fs: Region, at: int, length: int, crc_at: int) -> None:
    """Make the checksum of a structure right again."""
    fs.put(at + crc_at, "<I", 0)
    fs.put(at + crc_at, "<I", crc32c.inverted(fs.read(at, length)))


def _set(field: tuple[int, str], value: int, *, sector: int = 0) -> Callable[[ImageFile], None]:
    """Put a value into a header of the first group, with a right checksum."""

    def damage(image: ImageFile) -> None:
        at = sector * _SECTOR
        image.root.put(at + field[0], field[1], value)
        _seal(image.root, at, _SECTOR, _CRC_AT[sector])

    return damage


def _flip(sector: int, first: int, length: int) -> Callable[[ImageFile], None]:
    def damage(image: ImageFile) -> None:
        image.root.flip(sector * _SECTOR + first, length)

    return damage


def _flip_tree(sector: int, root: int) -> Callable[[ImageFile], None]:
    """The top block of a tree of the first group, whose number is in the header at ``root``."""

    def damage(image: ImageFile) -> None:
        block = image.root.number(sector * _SECTOR + root, ">I")
        image.root.flip(block * _get(image.root, _BLOCK_SIZE) + 4, 200, bits=48)

    return damage


def _inode(fs: Region, number: int) -> int:
    """Byte of an inode: group, block in it, place in that."""
    per_block, per_group = _get(fs, _INODES_PER_BLOCK_LOG), _get(fs, _GROUP_BLOCKS_LOG)
    group, in_group = number >> per_group + per_block, number & (1 << per_group + per_block) - 1
    block = group * _get(fs, _GROUP_BLOCKS) + (in_group >> per_block)
    place = in_group & (1 << per_block) - 1
    at = block * _get(fs, _BLOCK_SIZE) + place * _get(fs, _INODE_SIZE)
    assert fs.read(at, 2) == b"IN", "no inode where the superblock says"
    return at


def _flip_inodes(image: ImageFile) -> None:
    """The first eight: the root directory, the realtime bitmap and summary, files."""
    at, size = _inode(image.root, _get(image.root, _ROOT_INODE)), _get(image.root, _INODE_SIZE)
    for number in range(8):
        image.root.flip(at + number * size + 2, 90, seed=number)


def _root_is(field: tuple[int, str], value: int) -> Callable[[ImageFile], None]:
    """Put a value into the root directory's inode, with a right checksum."""

    def damage(image: ImageFile) -> None:
        at = _inode(image.root, _get(image.root, _ROOT_INODE))
        image.root.put(at + field[0], field[1], value)
        _seal(image.root, at, _get(image.root, _INODE_SIZE), _INODE_CRC)

    return damage


def _flip_log(image: ImageFile) -> None:
    """The first sectors of the log: their cycle and record headers."""
    start = _get(image.root, _LOG_START)
    per_group = _get(image.root, _GROUP_BLOCKS_LOG)
    block = (start >> per_group) * _get(image.root, _GROUP_BLOCKS) + (start & (1 << per_group) - 1)
    image.root.flip(block * _get(image.root, _BLOCK_SIZE), 4096, bits=200)


_row: Final = Rows("xfs", _BASE)
IMAGES: Final = (
    _row("superblock-flipped", "superblock", _flip(0, 4, 120)),
    _row("blocks-of-an-exbibyte", "superblock", _set(_DATA_BLOCKS, 1 << 50)),
    _row("4-billion-groups", "superblock", _set(_GROUPS, 0xFFFFFFFF)),
    _row("blocks-of-no-bytes", "superblock", _set(_BLOCK_SIZE, 0)),
    _row("never-finished", "superblock", _set(_IN_PROGRESS, 1)),
    _row("incompatible-features-of-the-future", "features", _set(_INCOMPATIBLE, 1 << 30)),
    _row("read-only-features-of-the-future", "features", _set(_READ_ONLY_COMPATIBLE, 1 << 30)),
    _row("agf-flipped", "AGF", _flip(_AGF, 16, 48), sampled=True),
    _row("agf-with-absurd-free-space", "AGF", _set((52, ">I"), 0xFFFFFFFF, sector=_AGF)),
    _row("agf-trees-at-the-superblock", "AGF", _set((16, ">I"), 0, sector=_AGF), ends=EITHER),
    _row("agi-flipped", "AGI", _flip(_AGI, 12, 28), base="centos7-mbr-xfs"),
    _row("agi-tree-behind-the-disk", "AGI", _set((20, ">I"), 0x7FFFFFFF, sector=_AGI)),
    _row("agi-unlinked-root", "AGI", _set((40, ">I"), 128, sector=_AGI), ends=EITHER),
    _row("agfl-flipped", "AGFL", _flip(_AGFL, 36, 64), ends=EITHER),
    _row("free-space-tree-flipped", "trees", _flip_tree(_AGF, 16), ends=EITHER),
    _row("inode-tree-flipped", "trees", _flip_tree(_AGI, 20)),
    _row("inodes-flipped", "inodes", _flip_inodes),
    _row("root-directory-of-an-exbibyte", "inodes", _root_is((56, ">Q"), (1 << 60) - 1)),
    _row("root-directory-is-a-pipe", "inodes", _root_is((2, ">H"), 0o010755)),
    _row("log-flipped", "log", _flip_log, ends=EITHER),
)
