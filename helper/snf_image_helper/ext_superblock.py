"""The superblock of ext2, ext3 and ext4: what decides whether and how far it may be grown.

Facts: the kernel's documentation of ext4's on-disk format, and e2fsprogs' list of features.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

from snf_image_helper.errors import ImageError
from snf_image_helper.signatures import Read

_STATE_CLEAN: Final = 0x1
_STATE_ERRORS: Final = 0x2
_INCOMPAT_RECOVER: Final = 0x4
_INCOMPAT_64BIT: Final = 0x80

# Features e2fsck and resize2fs 1.47 handle, by bit.
_KNOWN: Final = {
    "compat": {
        0x1: "dir_prealloc", 0x2: "imagic_inodes", 0x4: "has_journal", 0x8: "ext_attr", 0x10: "resize_inode",
        0x20: "dir_index", 0x200: "sparse_super2", 0x400: "fast_commit", 0x800: "stable_inodes",
        0x1000: "orphan_file",
    },
    "incompat": {
        0x2: "filetype", 0x4: "needs_recovery", 0x10: "meta_bg", 0x40: "extent", 0x80: "64bit", 0x100: "mmp",
        0x200: "flex_bg", 0x400: "ea_inode", 0x2000: "metadata_csum_seed", 0x4000: "large_dir",
        0x8000: "inline_data", 0x10000: "encrypt", 0x20000: "casefold",
    },
    "ro_compat": {
        0x1: "sparse_super", 0x2: "large_file", 0x8: "huge_file", 0x10: "uninit_bg", 0x20: "dir_nlink",
        0x40: "extra_isize", 0x100: "quota", 0x200: "bigalloc", 0x400: "metadata_csum", 0x1000: "read-only",
        0x2000: "project", 0x4000: "shared_blocks", 0x8000: "verity", 0x10000: "orphan_present",
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExtSuperblock:
    """The fields that matter. ``unknown``: features no tool of the helper knows, as text.

    ``mounted_since_check``: it was mounted after it was last checked, or made; e2fsprogs asks for a check of
    everything then, before it grows a file system.
    """

    blocks: int
    block_size: int
    clean: bool
    errors: bool
    needs_recovery: bool
    is_64bit: bool
    mounted_since_check: bool
    unknown: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes the file system covers."""
        return self.blocks * self.block_size

    @property
    def max_size(self) -> int:
        """Bytes it can cover with the block numbers it has."""
        return (1 << (48 if self.is_64bit else 32)) * self.block_size - self.block_size


def read_superblock(read: Read) -> ExtSuperblock:
    """The primary superblock; :class:`ImageError` if its numbers are absurd."""
    block = read(1024, 1024)
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        raise ImageError("no ext2, ext3 or ext4 superblock")
    low = struct.unpack_from("<I", block, 4)[0]
    log_size = struct.unpack_from("<I", block, 24)[0]
    state = struct.unpack_from("<H", block, 58)[0]
    masks = struct.unpack_from("<III", block, 92)
    high = struct.unpack_from("<I", block, 336)[0]
    if log_size > 6:
        raise ImageError(f"ext superblock: blocks of 1024 times 2 to the {log_size} bytes")
    wide = bool(masks[1] & _INCOMPAT_64BIT)
    return ExtSuperblock(
        blocks=low + (high << 32 if wide else 0),
        block_size=1024 << log_size,
        clean=bool(state & _STATE_CLEAN),
        errors=bool(state & _STATE_ERRORS),
        needs_recovery=bool(masks[1] & _INCOMPAT_RECOVER),
        is_64bit=wide,
        mounted_since_check=_time(block, 64, 0x277) < _time(block, 44, 0x275),
        unknown=tuple(_unknown(masks)),
    )


def _time(block: bytes, low: int, high: int) -> int:
    """Seconds since the epoch, in 40 bits at two places."""
    seconds: int = struct.unpack_from("<I", block, low)[0]
    return seconds | block[high] << 32


def _unknown(masks: tuple[int, int, int]) -> list[str]:
    return [
        f"{name} 0x{1 << bit:x}"
        for (name, known), mask in zip(_KNOWN.items(), masks, strict=True)
        for bit in range(32)
        if mask >> bit & 1 and 1 << bit not in known
    ]
