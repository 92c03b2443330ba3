"""A bounded look at an image's first bytes: is it what it is said to be, and is it whole?

The only place of the host that reads anything of an image but copies it. Fixed offsets, fixed sizes, no
loops over numbers of the image; the deep look happens in the helper VM.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final

from snf_image_contract.names import ImageFormat
from snf_image_host.errors import ImageError

SECTOR: Final = 512
_MAX_MBR_SECTORS: Final = 1 << 32
_GPT_PROTECTIVE: Final = 0xEE
_MAX_GPT_TABLE: Final = 64 * 1024


Read = Callable[[int, int], bytes]
"""Length and offset to the bytes there; fewer only at the end."""


def check_header(fd: int, size: int, kind: ImageFormat, shown: str) -> None:
    """:class:`ImageError` if the image is empty, of another kind, or cut off."""
    check_beginning(lambda length, offset: os.pread(fd, length, offset), size, kind, shown)


def check_beginning(read: Read, size: int | None, kind: ImageFormat, shown: str) -> int:
    """The same for anything that has a beginning; ``size`` None if it is not known.

    Returns how many bytes it must have, or it is cut off; for a dump of a file system: has.
    """
    if size == 0 or not read(1, 0):
        raise ImageError(f"the image {shown} is empty")
    if kind is ImageFormat.DISKDUMP:
        return _check_disk(read, size, shown)
    if kind is ImageFormat.EXTDUMP:
        known, expected = read(2, 1080) == b"\x53\xef", _ext_size(read)
    else:
        known, expected = read(8, 3) == b"NTFS    ", _ntfs_size(read)
    if not known:
        raise ImageError(f"the image {shown} is no {kind}: the file system's magic number is not there")
    if size is not None and expected > size:
        raise ImageError(f"the image {shown} is cut off: its file system has {expected} bytes, it has {size}")
    if size is None and expected == 0:
        raise ImageError(f"the image {shown} does not tell how large its file system is")
    if max(size or 0, expected) >= _MAX_MBR_SECTORS * SECTOR:
        raise ImageError(f"the image {shown} is too large for the partition table a {kind} gets (2 TiB)")
    return expected


def _check_disk(read: Read, size: int | None, shown: str) -> int:
    """A partition that ends behind the image's end means that the end is missing."""
    end = _furthest_partition(read) * SECTOR
    if size is not None and end > size:
        raise ImageError(f"the image {shown} is cut off: a partition ends at byte {end}, it has {size} bytes")
    return end


def _furthest_partition(read: Read) -> int:
    """The first sector behind all partitions of an MBR or GPT; 0 without a table."""
    mbr = read(SECTOR, 0)
    if len(mbr) < SECTOR or mbr[510:] != b"\x55\xaa":
        return 0
    ends = [0]
    for entry in range(446, 510, 16):
        kind = mbr[entry + 4]
        start, length = struct.unpack_from("<II", mbr, entry + 8)
        if kind == _GPT_PROTECTIVE:
            return _furthest_gpt_partition(read)
        # Boot sectors of plain file systems end in the same two bytes: their "flags" are no flags.
        if mbr[entry] not in (0x00, 0x80):
            return 0
        if kind and length:
            ends.append(start + length)
    return max(ends)


def _furthest_gpt_partition(read: Read) -> int:
    header = read(SECTOR, SECTOR)
    if len(header) < SECTOR or header[:8] != b"EFI PART":
        return 0
    table, count, entry_size = struct.unpack_from("<QII", header, 72)
    if entry_size != 128 or table > 1 << 40:
        return 0
    data = read(min(count * entry_size, _MAX_GPT_TABLE), table * SECTOR)
    used = (at for at in range(0, len(data) - 127, 128) if data[at : at + 16] != bytes(16))
    return max((struct.unpack_from("<Q", data, at + 40)[0] + 1 for at in used), default=0)


def _ext_size(read: Read) -> int:
    """Bytes of an ext2/3/4 file system: blocks (their upper half with feature 64bit) times their size."""
    superblock = read(1024, 1024)
    if len(superblock) < 1024:
        return 0
    blocks, shift = struct.unpack_from("<I", superblock, 4)[0], struct.unpack_from("<I", superblock, 24)[0]
    incompatible = struct.unpack_from("<I", superblock, 96)[0]
    if incompatible & 0x80:
        blocks |= struct.unpack_from("<I", superblock, 0x150)[0] << 32
    return int(blocks << (10 + shift)) if shift <= 6 else 0


def _ntfs_size(read: Read) -> int:
    """Bytes of an NTFS: sectors at offset 40, bytes in a sector at offset 11."""
    boot = read(SECTOR, 0)
    if len(boot) < SECTOR:
        return 0
    return int(struct.unpack_from("<Q", boot, 40)[0] * struct.unpack_from("<H", boot, 11)[0])
