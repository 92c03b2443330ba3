"""Where the numbers are in a UFS superblock and cylinder group header.

Offsets and sizes in bytes, after ``struct fs`` and ``struct cg`` of 4.4BSD's descendants
(``sys/ufs/ffs/fs.h`` of FreeBSD; OpenBSD and NetBSD agree in the fields used here).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal

from snf_image_helper.errors import ImageError

UFS1_MAGIC: Final = 0x011954
UFS2_MAGIC: Final = 0x19540119
CG_MAGIC: Final = 0x090255
SUPERBLOCK_SIZE: Final = 8192
UFS1_LOCATION: Final = 8192
UFS2_LOCATION: Final = 65536
MAX_BLOCK: Final = 65536
FS_METACKHASH: Final = 0x200

ByteOrder = Literal["little", "big"]

_FS: Final[Mapping[str, tuple[int, int]]] = {
    "sblkno": (8, 4), "cblkno": (12, 4), "iblkno": (16, 4), "dblkno": (20, 4),
    "old_cgoffset": (24, 4), "old_cgmask": (28, 4), "old_size": (36, 4), "old_dsize": (40, 4),
    "ncg": (44, 4), "bsize": (48, 4), "fsize": (52, 4), "frag": (56, 4), "sbsize": (104, 4),
    "inopb": (120, 4), "old_csaddr": (152, 4), "cssize": (156, 4), "cgsize": (160, 4),
    "old_ncyl": (176, 4), "old_cpg": (180, 4), "ipg": (184, 4), "fpg": (188, 4),
    "old_cs_ndir": (192, 4), "old_cs_nbfree": (196, 4), "old_cs_nifree": (200, 4), "old_cs_nffree": (204, 4),
    "clean": (209, 1), "maxbsize": (860, 4), "journal": (864, 8), "providersize": (872, 8),
    "sblockactualloc": (992, 8), "sblockloc": (1000, 8),
    "cs_ndir": (1008, 8), "cs_nbfree": (1016, 8), "cs_nifree": (1024, 8), "cs_nffree": (1032, 8),
    "size": (1080, 8), "dsize": (1088, 8), "csaddr": (1096, 8), "snapinum0": (1116, 4),
    "ckhash": (1304, 4), "metackhash": (1308, 4), "flags": (1312, 4), "contigsumsize": (1316, 4),
    "magic": (1372, 4),
}  # fmt: skip

_CG: Final[Mapping[str, tuple[int, int]]] = {
    "magic": (4, 4), "old_time": (8, 4), "cgx": (12, 4), "old_ncyl": (16, 2), "old_niblk": (18, 2),
    "ndblk": (20, 4), "ndir": (24, 4), "nbfree": (28, 4), "nifree": (32, 4), "nffree": (36, 4),
    "rotor": (40, 4), "frotor": (44, 4), "irotor": (48, 4), "old_btotoff": (84, 4), "old_boff": (88, 4),
    "iusedoff": (92, 4), "freeoff": (96, 4), "nextfreeoff": (100, 4), "clustersumoff": (104, 4),
    "clusteroff": (108, 4), "nclusterblks": (112, 4), "niblk": (116, 4), "initediblk": (120, 4),
    "unrefs": (124, 4), "ckhash": (132, 4), "time": (136, 8),
}  # fmt: skip
FRSUM_OFFSET: Final = 52
"""Of eight 32-bit counts in a group header: free runs of 0 to 7 fragments."""


class Record:
    """Numbers of a structure on disk, by name."""

    __slots__ = ("data", "fields", "order")

    def __init__(self, data: bytearray, fields: Mapping[str, tuple[int, int]], order: ByteOrder) -> None:
        self.data = data
        self.fields = fields
        self.order = order

    def __getitem__(self, name: str) -> int:
        offset, size = self.fields[name]
        return int.from_bytes(self.data[offset : offset + size], self.order)

    def __setitem__(self, name: str, value: int) -> None:
        offset, size = self.fields[name]
        self.data[offset : offset + size] = value.to_bytes(size, self.order)

    def word(self, offset: int) -> int:
        """The unsigned 32-bit number at ``offset``."""
        return int.from_bytes(self.data[offset : offset + 4], self.order)

    def set_word(self, offset: int, value: int) -> None:
        self.data[offset : offset + 4] = value.to_bytes(4, self.order)


class Group(Record):
    """A cylinder group header with its bit maps, ``cgsize`` bytes."""

    def __init__(self, data: bytearray, order: ByteOrder) -> None:
        super().__init__(data, _CG, order)


class Superblock(Record):
    """A superblock, checked for what its arithmetic needs; geometry in fragments unless said otherwise."""

    __slots__ = ("version",)

    def __init__(self, data: bytearray, order: ByteOrder, version: Literal[1, 2]) -> None:
        super().__init__(data, _FS, order)
        self.version = version
        self._check()

    @property
    def location(self) -> int:
        """Byte offset of the primary superblock."""
        return UFS2_LOCATION if self.version == 2 else UFS1_LOCATION

    @property
    def has_new_fields(self) -> bool:
        """Whether the 64-bit fields are valid: an old UFS1 has spare room there."""
        return self.version == 2 or self["maxbsize"] == self["bsize"]

    @property
    def fragments(self) -> int:
        """Size of the file system."""
        return self["size"] if self.version == 2 else self["old_size"]

    @property
    def summary_address(self) -> int:
        return self["csaddr"] if self.version == 2 else self["old_csaddr"]

    def group_base(self, group: int) -> int:
        return self["fpg"] * group

    def group_start(self, group: int) -> int:
        """Where a group's structures are counted from; old UFS1 staggers them over the cylinders."""
        base = self.group_base(group)
        if self.version == 2:
            return base
        return base + self["old_cgoffset"] * (group & ~self["old_cgmask"] & 0xFFFFFFFF)

    def byte_address(self, group: int, what: Literal["sblkno", "cblkno", "iblkno", "dblkno"]) -> int:
        """Byte offset of a group's superblock copy, header, inodes or data."""
        return (self.group_start(group) + self[what]) * self["fsize"]

    def _stays_in_group(self) -> bool:
        """Whether staggering leaves the structures of every group inside of it."""
        if self.version == 2 or not self["old_cgoffset"]:
            return True
        farthest = self["old_cgoffset"] * (~self["old_cgmask"] & 0xFFFFFFFF)
        return farthest + self["dblkno"] < self["fpg"]

    def _check(self) -> None:
        bsize, fsize, frag = self["bsize"], self["fsize"], self["frag"]
        powers = all(value and value & (value - 1) == 0 for value in (bsize, fsize, frag))
        if not powers or not (512 <= fsize <= bsize <= MAX_BLOCK) or frag != bsize // fsize or frag > 8:
            raise ImageError(f"UFS: impossible block and fragment sizes {bsize} and {fsize}")
        inode_size = 256 if self.version == 2 else 128
        order_kept = self["sblkno"] <= self["cblkno"] < self["iblkno"] < self["dblkno"] < self["fpg"]
        if (
            not order_kept
            or self["inopb"] != bsize // inode_size
            or not 0 < self["cgsize"] <= bsize
            or not 0 < self["ipg"] <= (self["dblkno"] - self["iblkno"]) * fsize // inode_size
            or not 1376 <= self["sbsize"] <= SUPERBLOCK_SIZE
            or not 0 < self["ncg"] <= 1 << 24
            or self["ipg"] % 8
            or self["contigsumsize"] > 64
            or not self._stays_in_group()
        ):
            raise ImageError("UFS: the superblock contradicts itself")
        size, summary = self.fragments, self["cssize"] // fsize
        if not self["dblkno"] <= self.summary_address <= size - summary or self["cssize"] > size * fsize:
            raise ImageError("UFS: the summary lies outside of the file system")
        if not (self["ncg"] - 1) * self["fpg"] < size <= self["ncg"] * self["fpg"]:
            raise ImageError(f"UFS: {self['ncg']} groups do not make {size} fragments")


def read_superblock(fd: int) -> Superblock | None:
    """The primary superblock of the file system on ``fd``, None if there is none (U-1).

    :class:`ImageError` if it contradicts itself, or is a UFS2 whose superblock is not where FreeBSD looks.
    """
    for location, magic, version in ((UFS2_LOCATION, UFS2_MAGIC, 2), (UFS1_LOCATION, UFS1_MAGIC, 1)):
        data = bytearray(os.pread(fd, SUPERBLOCK_SIZE, location))
        order = _byte_order(data, magic)
        if order is not None:
            return Superblock(data, order, 2 if version == 2 else 1)
    if _byte_order(bytearray(os.pread(fd, SUPERBLOCK_SIZE, UFS1_LOCATION)), UFS2_MAGIC) is not None:
        raise ImageError(
            f"UFS2: the superblock is at byte {UFS1_LOCATION}, not {UFS2_LOCATION}: not supported"
        )
    return None


def _byte_order(data: bytearray, magic: int) -> ByteOrder | None:
    offset, size = _FS["magic"]
    field = bytes(data[offset : offset + size])
    if field == magic.to_bytes(4, "little"):
        return "little"
    if field == magic.to_bytes(4, "big"):
        return "big"
    return None


def read_group(fd: int, superblock: Superblock, group: int) -> Group:
    """Header and maps of a cylinder group; :class:`ImageError` if it is none, or its maps lie outside."""
    size = superblock["cgsize"]
    data = bytearray(os.pread(fd, size, superblock.byte_address(group, "cblkno")))
    header = Group(data, superblock.order)
    if len(data) != size or header["magic"] != CG_MAGIC or header["cgx"] != group:
        raise ImageError(f"UFS: cylinder group {group} is damaged")
    frags, blocks = superblock["fpg"], superblock["fpg"] // superblock["frag"]
    ends = [header["iusedoff"] + superblock["ipg"] // 8, header["freeoff"] + (frags + 7) // 8]
    if superblock["contigsumsize"]:
        ends.append(header["clusteroff"] + (blocks + 7) // 8)
        ends.append(header["clustersumoff"] + 4 * (superblock["contigsumsize"] + 1))
    if max(ends) > size or min(header["iusedoff"], header["freeoff"]) < 168 or header["ndblk"] > frags:
        raise ImageError(f"UFS: the maps of cylinder group {group} lie outside of it")
    return header
