"""What an image can be wrapped in, told from its first bytes and never from its name (R-FMT-1)."""

from __future__ import annotations

import enum
import struct
from typing import Final

from snf_image_host.tar_header import is_tar

AUTO: Final = "auto"
"""What asks to look at the first bytes."""
HEAD_SIZE: Final = 128 * 1024
"""Bytes of the beginning that are enough to tell a container, and to check an image's own tables."""
_SECTOR: Final = 512
_SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)
_VDI_SIGNATURE: Final = 0xBEDA107F


class Container(enum.StrEnum):
    """``raw`` is none: the bytes are the image."""

    RAW = "raw"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    LZ4 = "lz4"
    TAR = "tar"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"

    @property
    def is_compression(self) -> bool:
        return self in _COMPRESSIONS

    @property
    def is_disk_format(self) -> bool:
        """Whether its parts can only be read in their order by looking here and there."""
        return self not in _COMPRESSIONS and self not in (Container.RAW, Container.TAR)


_COMPRESSIONS: Final = frozenset(
    {Container.GZIP, Container.XZ, Container.ZSTD, Container.BZIP2, Container.LZ4}
)
_MAGICS: Final = (
    (b"\x1f\x8b\x08", Container.GZIP),
    (b"\xfd7zXZ\0", Container.XZ),
    (b"\x28\xb5\x2f\xfd", Container.ZSTD),
    (b"\x04\x22\x4d\x18", Container.LZ4),
    (b"\x02\x21\x4c\x18", Container.LZ4),
    (b"QFI\xfb", Container.QCOW2),
    (b"KDMV", Container.VMDK),
    (b"COWD", Container.VMDK),
    (b"# Disk DescriptorFile", Container.VMDK),
    (b"conectix", Container.VHD),
    (b"vhdxfile", Container.VHDX),
)
_BZIP2_BLOCKS: Final = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")


def recognise(head: bytes) -> Container:
    """The container that the first bytes of an image belong to."""
    for magic, container in _MAGICS:
        if head.startswith(magic):
            return container
    if head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:10] in _BZIP2_BLOCKS:
        return Container.BZIP2
    if len(head) >= 72 and struct.unpack_from("<I", head, 64)[0] == _VDI_SIGNATURE:
        return Container.VDI
    if is_tar(head):
        return Container.TAR
    if _is_vmdk_description(head):
        return Container.VMDK
    return _behind_skippable(head)


def _is_vmdk_description(head: bytes) -> bool:
    """The text that a VMDK in several files begins with, whatever its first line is."""
    sector = head[:_SECTOR]
    is_text = sector.isascii() and all(
        char.isprintable() or char.isspace() for char in sector.decode("ascii")
    )
    return is_text and b'createtype="' in head.lower()


def _behind_skippable(head: bytes) -> Container:
    """zstd and lz4 share frames that are to be skipped; what follows the first one decides."""
    if len(head) < 8:
        return Container.RAW
    magic, length = struct.unpack_from("<II", head)
    if magic not in _SKIPPABLE:
        return Container.RAW
    behind = head[8 + length : 12 + length]
    return {b"\x28\xb5\x2f\xfd": Container.ZSTD, b"\x04\x22\x4d\x18": Container.LZ4}.get(
        behind, Container.RAW
    )
