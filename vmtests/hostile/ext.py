"""Damage to ext2, ext3 and ext4.

Linux, Documentation/filesystems/ext4: the superblock at byte 1024, group descriptors in the block behind it,
inodes of ``s_inode_size`` bytes in tables that the descriptors name. ext2 and ext3 have no checksums; where
an ext4 has, those of the superblock are made right again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostile import crc32c
from hostile.image import EITHER, FINE, REFUSED, HostileImage
from hostile.region import ImageFile, Region

_EXT2: Final = "gentoo-mbr-ext2"
_EXT3: Final = "centos7-mbr-ext3"
_EXT4: Final = "alpine-mbr-ext4"
_SUPERBLOCK: Final = 1024
_ROOT, _JOURNAL = 2, 8
_JOURNAL_MAGIC: Final = b"\xc0\x3b\x39\x98\0\0\0\x04"
_EXTENTS: Final = 0xF30A
# Fields of the superblock: (at, form).
_BLOCKS: Final = (0x4, "<I")
_FIRST_BLOCK: Final = (0x14, "<I")
_LOG_BLOCK_SIZE: Final = (0x18, "<I")
_MOUNTED: Final = (0x2C, "<I")
_BLOCKS_PER_GROUP: Final = (0x20, "<I")
_INODES_PER_GROUP: Final = (0x28, "<I")
_INODE_SIZE: Final = (0x58, "<H")
_INCOMPATIBLE: Final = (0x60, "<I")
_READ_ONLY_COMPATIBLE: Final = (0x64, "<I")
_JOURNAL_INODE: Final = (0xE0, "<I")
_DESCRIPTOR_SIZE: Final = (0xFE, "<H")
_BLOCKS_HIGH: Final = (0x150, "<I")
_CHECKSUM: Final = 0x3FC
_METADATA_CHECKSUMS: Final = 0x400
_NEEDS_RECOVERY: Final = 0x4
_YEAR_2037: Final = 2114380800


def _get(fs: Region, field: tuple[int, str]) -> int:
    return fs.number(_SUPERBLOCK + field[0], field[1])


def _seal(fs: Region) -> None:
    """Make the superblock's checksum right, if it has one."""
    if _get(fs, _READ_ONLY_COMPATIBLE) & _METADATA_CHECKSUMS:
        fs.put(_SUPERBLOCK + _CHECKSUM, "<I", crc32c.raw(fs.read(_SUPERBLOCK, _CHECKSUM)))


def _set(field: tuple[int, str], value: int, *, add: bool = False) -> Callable[[ImageFile], None]:
    """Put a value into the superblock, or add its bits, with a right checksum."""

    def damage(image: ImageFile) -> None:
        was = _get(image.root, field) if add else 0
        image.root.put(_SUPERBLOCK + field[0], field[1], was | value)
        _seal(image.root)

    return damage


def _block_size(fs: Region) -> int:
    return 1024 << _get(fs, _LOG_BLOCK_SIZE)


def _descriptor(fs: Region, group: int = 0) -> int:
    """Byte of a group's descriptor."""
    size = _get(fs, _DESCRIPTOR_SIZE) if _get(fs, _INCOMPATIBLE) & 0x80 else 32
    return (_get(fs, _FIRST_BLOCK) + 1) * _block_size(fs) + group * size


def _inode(fs: Region, number: int) -> int:
    """Byte of an inode of group 0."""
    table = fs.number(_descriptor(fs) + 8, "<I")
    return table * _block_size(fs) + (number - 1) * _get(fs, _INODE_SIZE)


def _first_block(fs: Region, number: int) -> int:
    """Byte of the first block of a file: by its first extent, or by its first pointer."""
    pointers = _inode(fs, number) + 0x28
    by_extents = fs.number(pointers, "<H") == _EXTENTS
    return fs.number(pointers + (20 if by_extents else 0), "<I") * _block_size(fs)


def _flip_superblock(image: ImageFile) -> None:
    image.root.flip(_SUPERBLOCK, 0x38, bits=12)


def _flip_descriptors(image: ImageFile) -> None:
    image.root.flip(_descriptor(image.root), 12, bits=12)


def _descriptors_at_the_superblock(image: ImageFile) -> None:
    """Bitmaps and inode table of group 0 are where the superblock is."""
    image.root.put(_descriptor(image.root), "<III", 1, 1, 1)


def _no_bitmaps(image: ImageFile) -> None:
    """Everything is free: who writes, overwrites the file system's own structures."""
    for place in (0, 4):
        block = image.root.number(_descriptor(image.root) + place, "<I")
        image.root.fill(block * _block_size(image.root), _block_size(image.root), 0)


def _flip_inodes(image: ImageFile) -> None:
    image.root.flip(_inode(image.root, 1), 16 * _get(image.root, _INODE_SIZE), bits=400)


def _no_root(image: ImageFile) -> None:
    image.root.fill(_inode(image.root, _ROOT), _get(image.root, _INODE_SIZE), 0)


def _flip_directory(image: ImageFile) -> None:
    image.root.flip(_first_block(image.root, _ROOT), 128, bits=24)


def _endless_directory(image: ImageFile) -> None:
    """An entry of no length follows ``.`` in the root directory."""
    image.root.put(_first_block(image.root, _ROOT) + 4, "<H", 0)


def _directory_in_itself(image: ImageFile) -> None:
    """``/etc/etc`` is ``/etc``, and ``/etc/root`` the whole tree again."""
    image.ext.debug("link /etc /etc/etc", "link / /etc/root", write=True)


def _flip_journal(image: ImageFile) -> None:
    """The journal's own superblock; nothing needs to be replayed."""
    image.root.flip(_journal(image.root) + 12, 84, bits=24)


def _journal(fs: Region) -> int:
    at = _first_block(fs, _JOURNAL)
    assert fs.read(at, 8) == _JOURNAL_MAGIC, "no journal where the inode says"
    return at


def _replay_garbage(image: ImageFile) -> None:
    """A journal that must be replayed and goes on for ever."""
    at = _journal(image.root)
    image.root.put(at + 28, ">I", 0xFFFFFFF0)
    _set(_INCOMPATIBLE, _NEEDS_RECOVERY, add=True)(image)


def _extents_in_a_circle(image: ImageFile) -> None:
    """The root directory's extents are five levels deep, and each leads to the directory's own block."""
    at = _inode(image.root, _ROOT) + 0x28
    block = image.root.number(at + 20, "<I")
    image.root.put(at, "<HHHHI", _EXTENTS, 1, 4, 5, 0)
    image.root.put(at + 12, "<IIHH", 0, block, 0, 0)


def _file_of_an_exbibyte(image: ImageFile) -> None:
    image.ext.debug("sif /etc/passwd size 0xfffffffffff", write=True)


def _row(
    name: str,
    what: str,
    damage: Callable[[ImageFile], None],
    *,
    base: str = _EXT4,
    ends: frozenset[int] = REFUSED,
    words: str = "",
    sampled: bool = False,
    mounted: bool = True,
) -> HostileImage:
    """``mounted``: after it was last checked, as most are, so that all of it is checked again."""

    def mount_and_damage(image: ImageFile) -> None:
        _set(_MOUNTED, _YEAR_2037)(image)
        damage(image)

    return HostileImage(
        id=f"ext-{name}", base=base, structure=f"ext: {what}", damage=mount_and_damage if mounted else damage,
        ends=ends, words=words, sampled=sampled,
    )  # fmt: skip


IMAGES: Final = (
    _row("superblock-flipped", "superblock", _flip_superblock),
    _row("superblock-flipped-ext2", "superblock", _flip_superblock, base=_EXT2),
    _row("blocks-of-an-exbibyte", "superblock", _set(_BLOCKS_HIGH, 0xFFFF), ends=EITHER),
    _row("4-billion-blocks", "superblock", _set(_BLOCKS, 0xFFFFFFFF), base=_EXT2),
    _row("block-size-of-2-to-the-50", "superblock", _set(_LOG_BLOCK_SIZE, 40)),
    _row("groups-without-blocks", "superblock", _set(_BLOCKS_PER_GROUP, 0)),
    _row("groups-without-inodes", "superblock", _set(_INODES_PER_GROUP, 0), base=_EXT2),
    _row("inodes-of-3-bytes", "superblock", _set(_INODE_SIZE, 3)),
    _row("incompatible-features-of-the-future", "features", _set(_INCOMPATIBLE, 1 << 30, add=True),
         words="no root file system"),
    _row("read-only-features-of-the-future", "features", _set(_READ_ONLY_COMPATIBLE, 1 << 30, add=True)),
    _row("descriptors-flipped", "group descriptors", _flip_descriptors),
    _row("descriptors-flipped-ext2", "group descriptors", _flip_descriptors, base=_EXT2, sampled=True),
    _row("descriptors-at-the-superblock", "group descriptors", _descriptors_at_the_superblock, base=_EXT3),
    _row("nothing-is-used", "bitmaps", _no_bitmaps, base=_EXT2, ends=FINE),
    _row("nothing-is-used-ext4", "bitmaps", _no_bitmaps, ends=FINE),
    _row("nothing-is-used-unchecked", "bitmaps", _no_bitmaps, ends=EITHER, mounted=False),
    _row("inodes-flipped", "inode table", _flip_inodes),
    _row("inodes-flipped-unchecked", "inode table", _flip_inodes, ends=EITHER, mounted=False),
    _row("inodes-flipped-ext3", "inode table", _flip_inodes, base=_EXT3),
    _row("no-root-directory", "inode table", _no_root, base=_EXT2),
    _row("file-of-an-exbibyte", "inode table", _file_of_an_exbibyte, ends=FINE),
    _row("directory-flipped", "directory block", _flip_directory),
    _row("directory-without-end", "directory block", _endless_directory, base=_EXT3),
    _row("directory-in-itself", "directory block", _directory_in_itself),
    _row("journal-flipped", "journal", _flip_journal, base=_EXT3, ends=EITHER),
    _row("journal-to-replay", "journal", _replay_garbage, base=_EXT3, ends=EITHER),
    _row("journal-is-the-root-directory", "journal", _set(_JOURNAL_INODE, _ROOT), base=_EXT3),
    _row("extents-in-a-circle", "extents", _extents_in_a_circle),
)  # fmt: skip
