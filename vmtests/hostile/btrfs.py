"""Damage to Btrfs, much of it with right checksums.

Btrfs' "On-disk format": the superblock at 64 KiB; its array of system chunks says where the chunk tree is,
and that says where all else is. Every structure begins with 32 bytes for the CRC-32C of the rest of it.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator
from typing import Final

from hostile import crc32c
from hostile.image import EITHER, Rows
from hostile.region import MIB, ImageFile, Region

_BASE: Final = "sles16-gpt-btrfs"
_SUPERBLOCKS: Final = (64 * 1024, 64 * MIB)
_SUPERBLOCK_BYTES: Final = 4096
_CHECKSUM_BYTES: Final = 32
_NODE_HEADER, _ITEM = 101, 25
_KEY: Final = struct.Struct("<QBQ")
_CHUNK_ITEM, _ROOT_ITEM = 228, 132
_EXTENT_TREE, _FILE_SYSTEM_TREE = 2, 5
_SYSTEM_ARRAY: Final = 0x32B
# Fields of the superblock: (at, form).
_ROOT: Final = (0x50, "<Q")
_CHUNK_ROOT: Final = (0x58, "<Q")
_LOG_ROOT: Final = (0x60, "<Q")
_TOTAL_BYTES: Final = (0x70, "<Q")
_DEVICES: Final = (0x88, "<Q")
_SECTOR_SIZE: Final = (0x90, "<I")
_NODE_SIZE: Final = (0x94, "<I")
_ARRAY_SIZE: Final = (0xA0, "<I")
_READ_ONLY_COMPATIBLE: Final = (0xB4, "<Q")
_INCOMPATIBLE: Final = (0xBC, "<Q")
_ROOT_LEVEL: Final = (0xC6, "<B")


@dataclasses.dataclass(frozen=True, slots=True)
class _Chunk:
    """A run of logical bytes, and where its stripes begin on the device."""

    logical: int
    length: int
    stripes: tuple[int, ...]


def _get(fs: Region, field: tuple[int, str]) -> int:
    return fs.number(_SUPERBLOCKS[0] + field[0], field[1])


def _seal(fs: Region, at: int, length: int) -> None:
    fs.fill(at, _CHECKSUM_BYTES, 0)
    fs.put(at, "<I", crc32c.inverted(fs.read(at + _CHECKSUM_BYTES, length - _CHECKSUM_BYTES)))


def _set(field: tuple[int, str], value: int, *, add: bool = False) -> Callable[[ImageFile], None]:
    """Put a value into all copies of the superblock, or add its bits, with right checksums."""

    def damage(image: ImageFile) -> None:
        for at in _SUPERBLOCKS:
            was = image.root.number(at + field[0], field[1]) if add else 0
            image.root.put(at + field[0], field[1], was | value)
            _seal(image.root, at, _SUPERBLOCK_BYTES)

    return damage


def _chunk(logical: int, data: bytes) -> tuple[_Chunk, int]:
    """A chunk item, and how many bytes it takes."""
    (length,), (count,) = struct.unpack_from("<Q", data), struct.unpack_from("<H", data, 44)
    stripes = tuple(struct.unpack_from("<Q", data, 48 + 32 * i + 8)[0] for i in range(count))
    return _Chunk(logical, length, stripes), 48 + 32 * count


def _system_chunks(fs: Region) -> Iterator[_Chunk]:
    data = fs.read(_SUPERBLOCKS[0] + _SYSTEM_ARRAY, _get(fs, _ARRAY_SIZE))
    at = 0
    while at < len(data):
        _, _, logical = _KEY.unpack_from(data, at)
        chunk, size = _chunk(logical, data[at + _KEY.size :])
        yield chunk
        at += _KEY.size + size


def _places(chunks: list[_Chunk], logical: int) -> list[int]:
    """Bytes of the device that hold a logical address."""
    return [
        start + logical - chunk.logical
        for chunk in chunks
        if chunk.logical <= logical < chunk.logical + chunk.length
        for start in chunk.stripes
    ]


def _items(fs: Region, leaf: int) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Keys (object, type, offset) and data of a leaf; the fixtures' trees have no more than one."""
    assert fs.read(leaf + 100, 1) == b"\0", "not a leaf"
    for index in range(fs.number(leaf + 96, "<I")):
        item = fs.read(leaf + _NODE_HEADER + index * _ITEM, _ITEM)
        offset, size = struct.unpack_from("<II", item, _KEY.size)
        yield _KEY.unpack_from(item), fs.read(leaf + _NODE_HEADER + offset, size)


def _chunk_tree(fs: Region) -> list[int]:
    return _places(list(_system_chunks(fs)), _get(fs, _CHUNK_ROOT))


def _all_chunks(fs: Region) -> list[_Chunk]:
    return [_chunk(key[2], data)[0] for key, data in _items(fs, _chunk_tree(fs)[0]) if key[1] == _CHUNK_ITEM]


def _root_tree(fs: Region) -> list[int]:
    return _places(_all_chunks(fs), _get(fs, _ROOT))


def _tree(fs: Region, number: int) -> list[int]:
    """A root item has its inode in 160 bytes, then generation, directory, and the address of the tree."""
    address = next(
        struct.unpack_from("<Q", data, 176)[0]
        for key, data in _items(fs, _root_tree(fs)[0])
        if key[:2] == (number, _ROOT_ITEM)
    )
    return _places(_all_chunks(fs), address)


def _file_system_tree(fs: Region) -> list[int]:
    return _tree(fs, _FILE_SYSTEM_TREE)


def _extent_tree(fs: Region) -> list[int]:
    return _tree(fs, _EXTENT_TREE)


def _flip_superblock(image: ImageFile) -> None:
    for at in _SUPERBLOCKS:
        image.root.flip(at + 0x48, 0x80)


def _flip_tree(find: Callable[[Region], list[int]]) -> Callable[[ImageFile], None]:
    """Flip bits of every copy of a tree's top node."""

    def damage(image: ImageFile) -> None:
        for at in find(image.root):
            image.root.flip(at + _NODE_HEADER, 1024, bits=64)

    return damage


def _one_copy(image: ImageFile) -> None:
    """Of the duplicated chunk tree one copy only: the other must serve."""
    image.root.flip(_chunk_tree(image.root)[0] + _NODE_HEADER, 1024, bits=64)


def _node_of_itself(image: ImageFile) -> None:
    """The file system tree's top is a node of level 1 whose only child is that node."""
    for at in _file_system_tree(image.root):
        image.root.put(at + 96, "<IB", 1, 1)
        image.root.put(at + _NODE_HEADER + _KEY.size, "<QQ", image.root.number(at + 48, "<Q"), 1)
        _seal(image.root, at, _get(image.root, _NODE_SIZE))


def _items_outside(image: ImageFile) -> None:
    """The first item of the chunk tree lies far outside of its leaf; the checksum is right."""
    for at in _chunk_tree(image.root):
        image.root.put(at + _NODE_HEADER + _KEY.size, "<II", 0xFFFFFF00, 0xFFFF)
        _seal(image.root, at, _get(image.root, _NODE_SIZE))


_row: Final = Rows("btrfs", _BASE)
IMAGES: Final = (
    _row("superblock-flipped", "superblock", _flip_superblock),
    _row("bytes-of-an-exbibyte", "superblock", _set(_TOTAL_BYTES, 1 << 60), ends=EITHER),
    _row("nodes-of-no-bytes", "superblock", _set(_NODE_SIZE, 0)),
    _row("sectors-of-a-gibibyte", "superblock", _set(_SECTOR_SIZE, 1 << 30)),
    _row("65536-devices", "superblock", _set(_DEVICES, 65536), ends=EITHER),
    _row("system-chunks-without-end", "superblock", _set(_ARRAY_SIZE, 0xFFFFFFFF)),
    _row("log-to-replay", "superblock", _set(_LOG_ROOT, 12345 * 4096)),
    _row("root-of-level-255", "superblock", _set(_ROOT_LEVEL, 255)),
    _row("incompatible-features-of-the-future", "features", _set(_INCOMPATIBLE, 1 << 50, add=True)),
    _row("read-only-features-of-the-future", "features", _set(_READ_ONLY_COMPATIBLE, 1 << 50, add=True)),
    _row("chunk-tree-flipped", "chunk tree", _flip_tree(_chunk_tree), base="fedora-gpt-btrfs"),
    _row("chunk-tree-flipped-once", "chunk tree", _one_copy, ends=EITHER),
    _row("chunk-tree-outside-of-itself", "chunk tree", _items_outside, sampled=True),
    _row("root-tree-flipped", "root tree", _flip_tree(_root_tree)),
    _row("extent-tree-flipped", "extent tree", _flip_tree(_extent_tree)),
    _row("tree-flipped", "file system tree", _flip_tree(_file_system_tree)),
    _row("tree-in-a-circle", "file system tree", _node_of_itself),
)
