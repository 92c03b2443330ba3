"""What the corpus has to damage, by where it is: a row for each is demanded by the corpus' own tests."""

from __future__ import annotations

from typing import Final

STRUCTURES: Final = {
    "mbr": ("boot sector", "entries", "extended chain"),
    "gpt": ("header", "entries", "backup", "protective MBR", "names"),
    "disklabel": ("header", "entries"),
    "ext": (
        "superblock", "group descriptors", "bitmaps", "inode table", "directory block", "journal", "extents",
        "features",
    ),
    "xfs": ("superblock", "AGF", "AGI", "AGFL", "trees", "inodes", "log", "features"),
    "btrfs": ("superblock", "chunk tree", "root tree", "extent tree", "file system tree", "features"),
    "ntfs": ("boot sector", "$MFT", "$MFTMirr", "$Bitmap", "$UpCase", "index", "$LogFile"),
    "ufs1": ("superblock", "cylinder group", "inodes", "directory block"),
    "ufs2": ("superblock", "cylinder group", "inodes", "directory block", "check hashes"),
    "size": ("image cut off", "file system larger than its partition"),
    "dump": ("header", "compressed"),
    "tree": (
        "links", "special files", "directories", "fstab", "accounts", "identification", "network", "ssh",
    ),
    "windows": ("hive", "XML", "script"),
}  # fmt: skip
"""Of the byte order: the fixtures' UFS1 is big-endian, their UFS2 little-endian."""


def every_structure() -> frozenset[str]:
    """``xfs: AGF`` and so on."""
    return frozenset(f"{where}: {what}" for where, parts in STRUCTURES.items() for what in parts)
