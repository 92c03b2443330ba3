"""Dumps of file systems with headers that lie, and compressed images that do."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from typing import Final

from hostile.image import REFUSED, UNFIT, HostileImage
from hostile.region import MIB, ImageFile

_EXT: Final = ("--format", "extdump")
_NTFS: Final = ("--format", "ntfsdump")
_ANY: Final = ("--format", "auto")
_BOMB_MEMBER: Final = 64 * MIB
_BOMB_MEMBERS: Final = 512


def _replace(image: ImageFile, data: bytes) -> None:
    image.truncate(0)
    image.truncate(len(data))
    image.write(0, data)


def _become_dump(image: ImageFile) -> None:
    """Only the root file system is left."""
    for at in range(0, image.root.size, MIB):
        data = image.root.read(at, MIB)
        if data != image.read(at, MIB):
            image.write(at, data)
    image.truncate(image.root.size)


def _dump(at: int, form: str, value: int) -> Callable[[ImageFile], None]:
    """A dump with one number of its header changed."""

    def damage(image: ImageFile) -> None:
        _become_dump(image)
        image.put(at, form, value)

    return damage


def _gzip_bomb(image: ImageFile) -> None:
    """32 GiB of zeros in 32 MiB: gzip(1) reads one member after the other."""
    _replace(image, gzip.compress(bytes(_BOMB_MEMBER), 9, mtime=0) * _BOMB_MEMBERS)


def _cut_off_xz(image: ImageFile) -> None:
    packed = lzma.compress(image.read(0, 4 * MIB) + bytes(4 * MIB), preset=0)
    _replace(image, packed[: len(packed) // 2])


def _qcow2_on_a_file_of_the_node(image: ImageFile) -> None:
    """QEMU, docs/interop/qcow2: a backing file, whose name lies behind the header."""
    name = b"/etc/passwd"
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 72, len(name), 16, MIB, 0, 1, 65536, 131072, 1, 0, 0
    )
    _replace(image, (header + name).ljust(256 * 1024, b"\0"))


def _vmdk_of_a_file_of_the_node(image: ImageFile) -> None:
    lines = (
        "# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff",
        'createType="monolithicFlat"', 'RW 2048 FLAT "/etc/passwd" 0', 'ddb.adapterType = "ide"',
    )  # fmt: skip
    _replace(image, "".join(f"{line}\n" for line in lines).encode().ljust(4096, b"\n"))


def _row(
    name: str,
    damage: Callable[[ImageFile], None],
    options: tuple[str, ...],
    *,
    base: str = "alpine-mbr-ext4",
    what: str = "header",
    ends: frozenset[int] = REFUSED,
    words: str = "",
) -> HostileImage:
    return HostileImage(
        id=f"dump-{name}", base=base, structure=f"dump: {what}", damage=damage, ends=ends, words=words,
        options=options,
    )  # fmt: skip


IMAGES: Final = (
    _row("ext-of-an-exbibyte", _dump(0x400 + 0x150, "<I", 0xFFFF), _EXT),
    _row("ext-of-4-billion-blocks", _dump(0x400 + 0x4, "<I", 0xFFFFFFFF), _EXT, words="cut off"),
    _row("ext-with-blocks-of-2-to-the-50", _dump(0x400 + 0x18, "<I", 40), _EXT),
    _row("ext-without-magic", _dump(0x400 + 0x38, "<H", 0), _EXT, words="magic number"),
    _row("ntfs-of-a-zebibyte", _dump(0x28, "<Q", (1 << 62) - 1), _NTFS, base="windows7-mbr-ntfs",
         words="cut off"),
    _row("ntfs-of-no-sectors", _dump(0x28, "<Q", 0), _NTFS, base="windows7-mbr-ntfs"),
    _row("gzip-bomb", _gzip_bomb, _ANY, what="compressed", ends=UNFIT, words="has only"),
    _row("xz-cut-off", _cut_off_xz, _ANY, what="compressed"),
    _row("qcow2-on-a-file-of-the-node", _qcow2_on_a_file_of_the_node, _ANY, what="compressed"),
    _row("vmdk-of-a-file-of-the-node", _vmdk_of_a_file_of_the_node, _ANY, what="compressed"),
)  # fmt: skip
