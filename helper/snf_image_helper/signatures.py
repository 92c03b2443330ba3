"""What lies on a disk or partition, told by its signature: no mount, no program, bounded reads.

Offsets and magic numbers are those of the on-disk formats' own documentation (ext4 and XFS: the kernel's;
Btrfs: its wiki; NTFS and FAT: Microsoft's; swap: mkswap(8); LVM2, md, LUKS, ZFS: their projects').
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Callable
from typing import Final

from snf_image_helper import uuids

Read = Callable[[int, int], bytes]
"""``read(offset, length)``: bytes from there, fewer where the device ends."""


class Kind(enum.StrEnum):
    """File systems, and other contents, by the names people use."""

    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"
    JFS = "jfs"
    REISERFS = "reiserfs"
    NTFS = "ntfs"
    VFAT = "vfat"
    EXFAT = "exfat"
    UFS1 = "ufs1"
    UFS2 = "ufs2"
    SWAP = "swap"
    LVM = "LVM physical volume"
    MD = "md RAID member"
    LUKS = "LUKS"
    BITLOCKER = "BitLocker"
    ZFS = "ZFS"
    ISO9660 = "iso9660"
    SQUASHFS = "squashfs"

    @property
    def is_ext(self) -> bool:
        return self in (Kind.EXT2, Kind.EXT3, Kind.EXT4)

    @property
    def is_ufs(self) -> bool:
        return self in (Kind.UFS1, Kind.UFS2)

    @property
    def is_layer(self) -> bool:
        """Something that hides file systems the helper does not reach (R-DET-7)."""
        return self in (Kind.LVM, Kind.MD, Kind.LUKS, Kind.BITLOCKER, Kind.ZFS)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What was found. ``uuid`` and ``label`` as fstab would write them; the label is the image's text.

    ``devices``: how many devices the file system has (Btrfs may have several).
    """

    kind: Kind
    uuid: str = ""
    label: str = ""
    devices: int = 1


def _text(raw: bytes, encoding: str = "utf-8") -> str:
    """A label field as text: up to the first NUL, undecodable bytes escaped."""
    text = raw.decode(encoding, "backslashreplace" if encoding == "utf-8" else "replace")
    return text.split("\0", 1)[0]


def _uuid(raw: bytes) -> str:
    return uuids.text_of(raw) if any(raw) else ""


def _ext(read: Read) -> Signature | None:
    block = read(1024, 264)
    if len(block) < 264 or block[56:58] != b"\x53\xef":
        return None
    compatible, incompatible, read_only = struct.unpack_from("<III", block, 92)
    if incompatible & 0x8:
        return None  # an external journal, not a file system
    if incompatible & ~0x12 & ~0x4 or read_only & ~0x7:
        kind = Kind.EXT4
    else:
        kind = Kind.EXT3 if compatible & 0x4 else Kind.EXT2
    return Signature(kind=kind, uuid=_uuid(block[104:120]), label=_text(block[120:136]))


def _xfs(read: Read) -> Signature | None:
    block = read(0, 120)
    if len(block) < 120 or block[:4] != b"XFSB":
        return None
    return Signature(kind=Kind.XFS, uuid=_uuid(block[32:48]), label=_text(block[108:120]))


def _btrfs(read: Read) -> Signature | None:
    block = read(0x10000, 0x12B + 256)
    if len(block) < 0x12B + 256 or block[0x40:0x48] != b"_BHRfS_M":
        return None
    return Signature(
        kind=Kind.BTRFS,
        uuid=_uuid(block[0x20:0x30]),
        label=_text(block[0x12B : 0x12B + 256]),
        devices=struct.unpack_from("<Q", block, 0x88)[0],
    )


def _ntfs(read: Read) -> Signature | None:
    block = read(0, 512)
    if len(block) < 512 or block[510:512] != b"\x55\xaa":
        return None
    if block[3:11] == b"NTFS    ":
        return Signature(kind=Kind.NTFS, uuid=f"{struct.unpack_from('<Q', block, 72)[0]:016X}")
    if block[3:11] == b"EXFAT   ":
        serial = struct.unpack_from("<I", block, 100)[0]
        return Signature(kind=Kind.EXFAT, uuid=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}")
    if block[3:11] == b"-FVE-FS-" or (block[3:11] == b"MSWIN4.1" and block[424:428] == b"\x3b\xd6\x67\x49"):
        return Signature(kind=Kind.BITLOCKER)
    return None


def _vfat(read: Read) -> Signature | None:
    block = read(0, 512)
    if len(block) < 512 or block[510:512] != b"\x55\xaa":
        return None
    if block[82:87] == b"FAT32":
        serial, label = 67, 71
    elif block[54:59] in (b"FAT12", b"FAT16"):
        serial, label = 39, 43
    else:
        return None
    sector_size, per_cluster = struct.unpack_from("<HB", block, 11)
    if sector_size not in (512, 1024, 2048, 4096) or per_cluster.bit_count() != 1:
        return None
    number = struct.unpack_from("<I", block, serial)[0]
    name = _text(block[label : label + 11]).rstrip(" ")
    return Signature(
        kind=Kind.VFAT,
        uuid=f"{number >> 16:04X}-{number & 0xFFFF:04X}",
        label=_fat_volume_name(read, block) or ("" if name == "NO NAME" else name),
    )


def _fat_volume_name(read: Read, boot: bytes) -> str:
    """The label in the root directory, which wins over the boot sector's."""
    sector, per_cluster, reserved, copies, root_entries = struct.unpack_from("<HBHBH", boot, 11)
    length = struct.unpack_from("<H", boot, 22)[0]
    if length:
        offset, size = (reserved + copies * length) * sector, root_entries * 32
    else:
        long_length, _, _, cluster = struct.unpack_from("<IHHI", boot, 36)
        offset = (reserved + copies * long_length + (max(cluster, 2) - 2) * per_cluster) * sector
        size = per_cluster * sector
    directory = read(offset, min(size, 32 * 1024))
    for at in range(0, len(directory) - 31, 32):
        entry = directory[at : at + 32]
        if entry[0] == 0:
            break
        if entry[11] == 0x08 and entry[0] != 0xE5:
            return _text(entry[:11]).rstrip(" ")
    return ""


def _swap(read: Read) -> Signature | None:
    block = read(0, 65536)
    for page in (4096, 8192, 16384, 32768, 65536):
        if block[page - 10 : page] in (b"SWAPSPACE2", b"SWAP-SPACE"):
            return Signature(kind=Kind.SWAP, uuid=_uuid(block[1036:1052]), label=_text(block[1052:1068]))
    return None


def _ufs(read: Read) -> Signature | None:
    for offset in (65536, 8192, 0, 262144):
        block = read(offset, 1376)
        if len(block) < 1376:
            continue
        for order in "<>":
            magic = struct.unpack_from(f"{order}I", block, 1372)[0]
            kind = {0x00011954: Kind.UFS1, 0x19540119: Kind.UFS2}.get(magic)
            if kind is not None:
                low, high = struct.unpack_from(f"{order}II", block, 144)
                return Signature(kind=kind, uuid=f"{low:08x}{high:08x}", label=_text(block[680:712]))
    return None


def _lvm(read: Read) -> Signature | None:
    block = read(0, 2048)
    found = any(
        block[at : at + 8] == b"LABELONE" and block[at + 24 : at + 32] == b"LVM2 001"
        for at in range(0, 2048, 512)
    )
    return Signature(kind=Kind.LVM) if found else None


def _luks(read: Read) -> Signature | None:
    block = read(0, 208)
    if block[:6] != b"LUKS\xba\xbe":
        return None
    return Signature(kind=Kind.LUKS, uuid=_text(block[168:208]))


def _zfs(read: Read) -> Signature | None:
    """Any uberblock of the first label: magic 0x00bab10c in either byte order."""
    ring = read(128 * 1024, 128 * 1024)
    magics = (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c")
    found = any(ring[at : at + 8] in magics for at in range(0, len(ring), 1024))
    return Signature(kind=Kind.ZFS) if found else None


def _fixed(offset: int, magic: bytes, kind: Kind) -> Callable[[Read], Signature | None]:
    def probe(read: Read) -> Signature | None:
        return Signature(kind=kind) if read(offset, len(magic)) == magic else None

    return probe


def _md(read: Read, size: int) -> Signature | None:
    """md's superblock: version 1.1 at the start, 1.2 at 4 KiB, 1.0 and 0.90 near the end."""
    places = (0, 4096, (size // 512 - 16) // 8 * 8 * 512, (size // 65536 - 1) * 65536)
    found = any(place >= 0 and read(place, 4) == b"\xfc\x4e\x2b\xa9" for place in places)
    return Signature(kind=Kind.MD) if found else None


# Layers first: an md member of version 1.0 looks like the file system inside. ext before swap: mkswap
# writes over all of an ext superblock, mke2fs not over all of a swap signature.
_PROBES: Final[tuple[Callable[[Read], Signature | None], ...]] = (
    _luks, _lvm, _ntfs, _xfs, _btrfs, _ext, _swap,
    _fixed(32768, b"JFS1", Kind.JFS),
    _fixed(65536 + 52, b"ReIsEr", Kind.REISERFS),
    _fixed(0, b"hsqs", Kind.SQUASHFS),
    _fixed(32769, b"CD001", Kind.ISO9660),
    _ufs, _vfat, _zfs,
)  # fmt: skip


def identify(read: Read, size: int) -> Signature | None:
    """What is on a device of ``size`` bytes, None if nothing known is."""
    found = _md(read, size)
    if found is not None:
        return found
    for probe in _PROBES:
        found = probe(read)
        if found is not None:
            return found
    return None
