"""Check hashes of FreeBSD 12 and later (UFS2): switched off before the first write, renewed after the last.

Linux maintains none of them. A stale hash makes FreeBSD refuse a mount, an allocation or an inode, so they
are off while Linux writes, and afterwards all three kinds are computed again and switched on, so that the
image keeps its protection. CRC-32C, initial value all ones, no final inversion, over the structure with its
own field as zero, stored in the file system's byte order.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Final

from snf_image_helper.ufs.layout import FS_METACKHASH, Superblock, read_group

HASH_SUPERBLOCK: Final = 0x1
HASH_GROUP: Final = 0x2
HASH_INODE: Final = 0x4
_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C (Castagnoli), reflected
_SUPERBLOCK_FIELD: Final = 1304
_GROUP_FIELD: Final = 132
_INODE_FIELD: Final = 244
_INODE: Final = 256
_CHUNK: Final = 4096 * _INODE


def switch_off(fd: int, superblock: Superblock) -> int:
    """Declare the check hashes off in every superblock (U-9); the kinds that were on (0: none were)."""
    if not superblock["flags"] & FS_METACKHASH:
        return 0
    kinds = superblock["metackhash"]
    superblock["flags"] &= ~FS_METACKHASH
    superblock["metackhash"] = superblock["ckhash"] = 0
    for index in range(superblock["ncg"]):
        # fsck complains of a left-over value, though nothing reads it any more.
        os.pwrite(fd, bytes(4), superblock.byte_address(index, "cblkno") + _GROUP_FIELD)
    _write_superblocks(fd, superblock)
    return kinds


def switch_on(fd: int, superblock: Superblock, kinds: int, *, inodes: bool = True) -> None:
    """Compute the hashes of ``kinds`` anew and declare them on; the file system is unmounted (U-10).

    ``inodes`` False: no inode was written since the hashes were switched off, so that theirs hold.
    """
    for index in range(superblock["ncg"]):
        if inodes and kinds & HASH_INODE:
            _hash_inodes(fd, superblock, index)
        if kinds & HASH_GROUP:
            _hash_group(fd, superblock, index)
    os.fsync(fd)
    superblock["flags"] |= FS_METACKHASH
    superblock["metackhash"] = kinds
    _write_superblocks(fd, superblock)


def _hash_group(fd: int, superblock: Superblock, index: int) -> None:
    group = read_group(fd, superblock, index)
    group["ckhash"] = 0
    group["ckhash"] = crc32c(bytes(group.data))
    place = superblock.byte_address(index, "cblkno") + _GROUP_FIELD
    os.pwrite(fd, group.data[_GROUP_FIELD : _GROUP_FIELD + 4], place)


def _hash_inodes(fd: int, superblock: Superblock, index: int) -> None:
    """Hashes of the inodes of a group that are in use (their mode is not 0)."""
    initialised = min(read_group(fd, superblock, index)["initediblk"], superblock["ipg"]) * _INODE
    place = superblock.byte_address(index, "iblkno")
    for start in range(0, initialised, _CHUNK):
        length = min(_CHUNK, initialised - start)
        inodes = bytearray(os.pread(fd, length, place + start))
        before = bytes(inodes)
        used = [at for at in range(0, length, _INODE) if inodes[at] or inodes[at + 1]]
        for at in used:
            inodes[at + _INODE_FIELD : at + _INODE_FIELD + 4] = bytes(4)
        packed = b"".join(inodes[at : at + _INODE] for at in used)
        for at, value in zip(used, crc32c_of_each(packed, _INODE), strict=True):
            inodes[at + _INODE_FIELD : at + _INODE_FIELD + 4] = value.to_bytes(4, superblock.order)
        if inodes != before:
            os.pwrite(fd, inodes, place + start)


def _write_superblocks(fd: int, superblock: Superblock) -> None:
    """Every copy, then the primary; each with the hash of its own bytes."""
    size, records_place = superblock["sbsize"], superblock["sblockactualloc"] != 0
    places = [superblock.byte_address(group, "sblkno") for group in range(superblock["ncg"])]
    for place in (*places, superblock.location):
        if place == superblock.location:
            os.fsync(fd)
        if records_place:
            superblock["sblockactualloc"] = place
        superblock["ckhash"] = 0
        if superblock["metackhash"] & HASH_SUPERBLOCK:
            superblock["ckhash"] = crc32c(bytes(superblock.data[:size]))
        os.pwrite(fd, superblock.data[:size], place)
    os.fsync(fd)


@functools.cache
def _table() -> tuple[int, ...]:
    values = []
    for start in range(256):
        value = start
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        values.append(value)
    return tuple(values)


def crc32c(data: bytes) -> int:
    """The hash of one structure."""
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value


def crc32c_of_each(data: bytes, length: int) -> Iterator[int]:
    """The hashes of many structures of ``length`` bytes that lie end to end.

    All of them at once, a column of bytes at a time: translating and adding whole columns runs in C, which
    a loop over bytes does not.
    """
    count = len(data) // length
    if not count:
        return
    tables = [bytes(value >> shift & 0xFF for value in _table()) for shift in (0, 8, 16, 24)]
    state = [int.from_bytes(b"\xff" * count, "big")] * 4
    for position in range(length):
        column = int.from_bytes(data[position::length], "big")
        index = (state[0] ^ column).to_bytes(count, "big")
        looked_up = [int.from_bytes(index.translate(table), "big") for table in tables]
        state = [
            looked_up[0] ^ state[1],
            looked_up[1] ^ state[2],
            looked_up[2] ^ state[3],
            looked_up[3],
        ]
    columns = [part.to_bytes(count, "big") for part in state]
    for low, second, third, high in zip(*columns, strict=True):
        yield low | second << 8 | third << 16 | high << 24
