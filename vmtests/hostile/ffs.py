"""Damage to UFS1 and UFS2, in both byte orders, by places that the fixtures' own reader finds.

``sys/ufs/ffs/fs.h`` and ``sys/ufs/ufs/dinode.h`` of FreeBSD, as told by ``ufs.structures``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from hostile.image import EITHER, REFUSED, HostileImage
from hostile.region import ImageFile, Region
from ufs.reader import Reader
from ufs.structures import CG, FS, INODE, INODE_BYTES, PLACE, POINTERS, ROOT

_UFS1: Final = "netbsd-mbr-ffs1-big-endian"
_UFS2: Final = "openbsd-mbr-ffs2"
_HASHED: Final = "freebsd-gpt-ufs2-hashes"


def reader(image: ImageFile) -> Reader:
    return Reader(image.fd, image.root.start)


def _set_of_superblock(values: dict[str, int]) -> Callable[[ImageFile], None]:
    def damage(image: ImageFile) -> None:
        ufs = reader(image)
        for name, value in values.items():
            offset, form = FS[name]
            image.root.put(PLACE[ufs.version] + offset, ufs.order + form, value)

    return damage


def _flip_superblock(image: ImageFile) -> None:
    """Sizes and places, and not the magic number."""
    image.root.flip(PLACE[reader(image).version] + 8, 180, bits=24)


def _set_of_group(values: dict[str, int]) -> Callable[[ImageFile], None]:
    """In the headers of every cylinder group."""

    def damage(image: ImageFile) -> None:
        ufs = reader(image)
        for group in range(ufs.groups):
            for name, value in values.items():
                offset, form = CG[name]
                image.root.put(ufs.place(group, "cblkno") + offset, ufs.order + form, value)

    return damage


def _flip_groups(image: ImageFile) -> None:
    ufs = reader(image)
    for group in range(ufs.groups):
        image.root.flip(ufs.place(group, "cblkno") + 16, 112, bits=32)


def _nothing_is_used(image: ImageFile) -> None:
    """The maps of used inodes are empty, those of free blocks full."""
    ufs = reader(image)
    for group in range(ufs.groups):
        header, at = ufs.group(group), ufs.place(group, "cblkno")
        image.root.fill(at + header["iusedoff"], header["freeoff"] - header["iusedoff"], 0)
        image.root.fill(at + header["freeoff"], header["nextfreeoff"] - header["freeoff"], 0xFF)


def inode_at(image: ImageFile, number: int) -> int:
    """Byte of an inode, from the beginning of the file system."""
    ufs = reader(image)
    group, index = divmod(number, ufs.fs["ipg"])
    return ufs.place(group, "iblkno") + index * INODE_BYTES[ufs.version]


def set_inode(path: str, values: dict[str, int]) -> Callable[[ImageFile], None]:
    """Put values into the inode of a file."""

    def damage(image: ImageFile) -> None:
        ufs = reader(image)
        at = inode_at(image, _number(ufs, path))
        for name, value in values.items():
            offset, form = INODE[ufs.version][name]
            image.root.put(at + offset, ufs.order + form, value)

    return damage


def _number(ufs: Reader, path: str) -> int:
    return ROOT if path == "/" else next(file.number for file in ufs.walk() if file.path == path)


def _flip_inodes(image: ImageFile) -> None:
    size = INODE_BYTES[reader(image).version]
    image.root.flip(inode_at(image, ROOT), 16 * size, bits=300)


def _blocks_in_a_circle(image: ImageFile) -> None:
    """An inode of 16 GiB whose triply indirect block names itself."""
    ufs = reader(image)
    at = inode_at(image, _number(ufs, "/etc/master.passwd"))
    pointers, width = POINTERS[ufs.version]
    form = ufs.order + ("I" if width == 4 else "Q")
    offset, size_form = INODE[ufs.version]["size"]
    image.root.put(at + offset, ufs.order + size_form, 1 << 34)
    block = image.root.number(at + pointers, form)
    for level in range(12, 15):
        image.root.put(at + pointers + level * width, form, block)
    address = block * ufs.fs["fsize"]
    image.root.write(address, struct.pack(form, block) * (ufs.fs["bsize"] // width))


def _directory_block(image: ImageFile, path: str) -> tuple[Region, Reader]:
    ufs = reader(image)
    address, _, _ = next(ufs.runs(ufs.inode(_number(ufs, path))))
    return image.root.part(address * ufs.fs["fsize"], 512), ufs


def _flip_directory(image: ImageFile) -> None:
    block, _ = _directory_block(image, "/")
    block.flip(0, 128, bits=24)


def _endless_directory(image: ImageFile) -> None:
    block, ufs = _directory_block(image, "/etc")
    block.put(4, f"{ufs.order}H", 0)


def _directory_in_itself(image: ImageFile) -> None:
    """The first name of the root directory that is a directory leads to the root again."""
    block, ufs = _directory_block(image, "/etc")
    at = block.number(4, f"{ufs.order}H")
    at += block.number(at + 4, f"{ufs.order}H")
    block.put(at, f"{ufs.order}I", ROOT)


def _row(
    name: str,
    what: str,
    damage: Callable[[ImageFile], None],
    *,
    base: str,
    ends: frozenset[int] = REFUSED,
    words: str = "",
    sampled: bool = False,
) -> HostileImage:
    kind = "ufs1" if base == _UFS1 else "ufs2"
    return HostileImage(
        id=f"{kind}-{name}", base=base, structure=f"{kind}: {what}", damage=damage, ends=ends, words=words,
        sampled=sampled,
    )  # fmt: skip


def _both(
    name: str, what: str, damage: Callable[[ImageFile], None], *, ends: frozenset[int] = REFUSED
) -> tuple[HostileImage, HostileImage]:
    """The same damage in both versions, and so in both byte orders."""
    return (
        _row(name, what, damage, base=_UFS1, ends=ends),
        _row(name, what, damage, base=_UFS2, ends=ends),
    )


IMAGES: Final = (
    *_both("superblock-flipped", "superblock", _flip_superblock),
    *_both("4-billion-groups", "superblock", _set_of_superblock({"ncg": 0xFFFFFFFF})),
    *_both("blocks-of-no-bytes", "superblock", _set_of_superblock({"bsize": 0, "fsize": 0, "frag": 0})),
    _row("groups-without-inodes", "superblock", _set_of_superblock({"ipg": 0}), base=_UFS1),
    _row("summary-of-4-gib", "superblock", _set_of_superblock({"cssize": 0xFFFFFFF0}), base=_UFS2),
    _row("size-of-a-zebibyte", "superblock", _set_of_superblock({"size": (1 << 62) - 1}), base=_UFS2),
    *_both("groups-flipped", "cylinder group", _flip_groups),
    _row("maps-behind-the-group", "cylinder group",
         _set_of_group({"iusedoff": 0x7FFFFFF0, "freeoff": 0x7FFFFFFF}), base=_UFS1, sampled=True),
    _row("maps-behind-the-group", "cylinder group",
         _set_of_group({"iusedoff": 0x7FFFFFF0, "freeoff": 0x7FFFFFFF}), base=_UFS2),
    _row("nothing-is-used", "cylinder group", _nothing_is_used, base=_UFS1, ends=EITHER),
    *_both("inodes-flipped", "inodes", _flip_inodes, ends=EITHER),
    _row("file-of-an-exbibyte", "inodes", set_inode("/etc/master.passwd", {"size": 1 << 60}), base=_UFS1),
    _row("file-is-a-pipe", "inodes", set_inode("/etc/master.passwd", {"mode": 0o010600}), base=_UFS2),
    _row("file-is-a-device", "inodes", set_inode("/etc/master.passwd", {"mode": 0o020600}), base=_UFS1),
    _row("root-is-no-directory", "inodes", set_inode("/", {"mode": 0o100755}), base=_UFS2),
    _row("blocks-in-a-circle", "inodes", _blocks_in_a_circle, base=_UFS2),
    *_both("directory-flipped", "directory block", _flip_directory, ends=EITHER),
    _row("directory-without-end", "directory block", _endless_directory, base=_UFS1),
    _row("directory-in-itself", "directory block", _directory_in_itself, base=_UFS2, ends=EITHER),
    _row("stale-hash-of-superblock", "check hashes", _set_of_superblock({"ckhash": 0x12345678}), base=_HASHED,
         ends=EITHER),
    _row("stale-hashes-of-groups", "check hashes", _set_of_group({"ckhash": 0x12345678}), base=_HASHED,
         ends=EITHER, sampled=True),
    _row("hashed-groups-flipped", "check hashes", _flip_groups, base=_HASHED),
)  # fmt: skip
