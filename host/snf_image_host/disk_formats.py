"""A bounded look at the header of a disk format, before any program gets it.

What can make a reader open another file, decrypt, or work without an end is refused here: fixed offsets,
fixed sizes, short loops. The facts are those of the formats' published specifications.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from snf_image_host.errors import ImageError
from snf_image_host.image_container import Container

Read = Callable[[int, int], bytes]
"""Length and offset to the bytes there; fewer only at the end."""

MAX_VIRTUAL: Final = 1 << 56
_SECTOR: Final = 512
_QCOW2_DIRTY, _QCOW2_COMPRESSION, _QCOW2_EXTENDED_L2 = 1 << 0, 1 << 3, 1 << 4
_QCOW2_REFUSED: Final = {1 << 1: "is marked corrupt", 1 << 2: "keeps its data in another file"}
_QCOW2_EXTENSIONS: Final = {
    0xE2792ACA: "names the format of a backing file",
    0x44415441: "keeps its data in another file",
    0x0537BE77: "is encrypted",
}
_MAX_EXTENSIONS: Final = 64
_MAX_L1_ENTRIES: Final = 4 << 20
_VMDK_DESCRIPTION: Final = _SECTOR
"""Where qemu looks for the description of a sparse extent, whatever the header says of its place."""
_VMDK_DESCRIPTION_SECTORS: Final = 20
"""How far qemu reads it, whatever the header says of its length."""
_VMDK_AT_END: Final = (1 << 64) - 1
"""A header's place of the table that means: believe the footer, which is before the last sector."""
_VMDK_FOOTER_BYTES: Final = 3 * _SECTOR
"""Marker, footer, end of the stream."""
_VMDK_FOOTER_MARKER: Final = 3
_VMDK_COMPRESSED: Final = 1 << 16
_VMDK_FLAGS: Final = 1 << 0 | 1 << 1 | 1 << 2 | _VMDK_COMPRESSED | 1 << 17
"""Line ends to compare, a second table, grains of zeros, compressed grains, markers before them."""
_VMDK_ACCESS: Final = ("rw", "rdonly", "noaccess")
_VHDX_REGIONS: Final = 192 * 1024
_VHDX_METADATA: Final = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_VHDX_PARAMETERS: Final = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VHDX_SIZE: Final = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_VHDX_PARENT: Final = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_VHDX_REGION_UNIT: Final = 1 << 20
_VHDX_ITEMS: Final = 64 * 1024
"""Metadata begins with a table of that length."""
_MAX_ENTRIES: Final = 2047
_FACES: Final = (
    (510, (b"\x55\xaa",), "a disk that a machine could start from", None),
    (32769, (b"CD001", b"NSR02", b"NSR03"), "a CD-ROM", None),
    (64, (b"\x7f\x10\xda\xbe",), "a VDI", Container.VDI),
)
"""What other readers go by: where, which bytes, what it would be for them, and whose own face that is."""


class _RefusedError(Exception):
    """Why; it continues "the qcow2 image"."""


def inspect_disk_format(read: Read, size: int, container: Container, shown: str) -> int:
    """Bytes of the disk in an image of ``size`` bytes. :class:`ImageError` for anything that is not plain."""
    try:
        virtual = _INSPECTORS[container](read, size)
        _refuse_absurd(virtual)
        _refuse_other_faces(read, container)
    except _RefusedError as why:
        raise ImageError(
            f"the {container} image {shown} {why}", hint="make a plain one: qemu-img convert -O qcow2 OLD NEW"
        ) from None
    except struct.error:
        raise ImageError(f"the {container} image {shown} is cut off") from None
    return virtual


def _refuse_absurd(virtual: int) -> None:
    if not 0 < virtual <= MAX_VIRTUAL:
        raise _RefusedError(f"says that its disk has {virtual} bytes")


def _refuse_other_faces(read: Read, container: Container) -> None:
    """An image that is one thing for qemu and another for whoever checked it deceives one of them."""
    for at, faces, what, own in _FACES:
        if container is not own and any(read(len(face), at) == face for face in faces):
            raise _RefusedError(f"is {what} at the same time")


def _qcow2(read: Read, size: int) -> int:
    header = read(112, 0)
    version, backing, _, cluster_bits, virtual, crypt = struct.unpack_from(">IQIIQI", header, 4)
    l1_size, l1_offset, refcounts, _, snapshots, snapshot_table = struct.unpack_from(">IQQIIQ", header, 36)
    if version not in (2, 3):
        raise _RefusedError(f"has version {version}")
    if backing:
        raise _RefusedError("has a backing file")
    if crypt:
        raise _RefusedError("is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise _RefusedError(f"has clusters of 2^{cluster_bits} bytes")
    header_length = 72
    if version == 3:
        (features,) = struct.unpack_from(">Q", header, 72)
        (header_length,) = struct.unpack_from(">I", header, 100)
        _refuse_qcow2_features(features)
        if not 104 <= header_length <= 1 << cluster_bits or header_length % 8:
            raise _RefusedError(f"has a header of {header_length} bytes")
    _refuse_qcow2_extensions(read, header_length, 1 << cluster_bits)
    # As many as the disk needs: an entry of the table is a cluster of pointers of eight bytes.
    needed = -(-virtual // (1 << (2 * cluster_bits - 3)))
    if l1_size > _MAX_L1_ENTRIES or needed > _MAX_L1_ENTRIES:
        raise _RefusedError("has a table of absurd size")
    if l1_offset + 8 * l1_size > size or refcounts >= size:
        raise _RefusedError("has a table behind its end")
    if snapshots and (snapshots > 65536 or not snapshot_table or snapshot_table + 40 * snapshots > size):
        raise _RefusedError("has a table of snapshots behind its end")
    return int(virtual)


def _refuse_qcow2_features(features: int) -> None:
    for bit, why in _QCOW2_REFUSED.items():
        if features & bit:
            raise _RefusedError(why)
    if features & ~(_QCOW2_DIRTY | _QCOW2_COMPRESSION | _QCOW2_EXTENDED_L2):
        raise _RefusedError(f"needs features that are not known here ({features:#x})")


def _refuse_qcow2_extensions(read: Read, at: int, end: int) -> None:
    for _ in range(_MAX_EXTENSIONS):
        if at + 8 > end:
            return
        head = read(8, at)
        if len(head) < 8:
            return
        kind, length = struct.unpack(">II", head)
        if kind == 0:
            return
        if kind in _QCOW2_EXTENSIONS:
            raise _RefusedError(_QCOW2_EXTENSIONS[kind])
        if length > end - at - 8:
            raise _RefusedError("has a header extension behind the header's end")
        at += 8 + -(-length // 8) * 8
    raise _RefusedError("has too many header extensions")


def _vmdk(read: Read, size: int) -> int:
    header = read(_SECTOR, 0)
    if header[:4] != b"KDMV":
        raise _RefusedError("only describes other files")
    version, flags, capacity, grain, at, length = struct.unpack_from("<IIQQQQ", header, 4)
    if version not in (1, 2, 3):
        raise _RefusedError(f"has version {version}")
    _refuse_vmdk_features(flags, struct.unpack_from("<H", header, 77)[0])
    if not capacity:
        raise _RefusedError("only describes other files")
    if at * _SECTOR != _VMDK_DESCRIPTION or not length or (at + length) * _SECTOR > size:
        raise _RefusedError("does not hold its own description")
    if not 8 <= grain <= 1 << 16 or grain & (grain - 1):
        raise _RefusedError(f"has grains of {grain} sectors")
    if struct.unpack_from("<Q", header, 56)[0] == _VMDK_AT_END:
        _demand_vmdk_footer(read, size, header)
    # All that qemu reads: what lies behind the announced end could name a parent.
    data = read(_VMDK_DESCRIPTION_SECTORS * _SECTOR, _VMDK_DESCRIPTION)
    _refuse_vmdk_description(data, length * _SECTOR)
    return int(capacity) * _SECTOR


def _refuse_vmdk_features(flags: int, compression: int) -> None:
    """qemu passes over flags that it does not know, and tells by ``compression`` alone what is compressed."""
    if flags & ~_VMDK_FLAGS:
        raise _RefusedError(f"needs features that are not known here ({flags:#x})")
    if compression != (1 if flags & _VMDK_COMPRESSED else 0):
        raise _RefusedError("is compressed in a way that is not known here")


def _demand_vmdk_footer(read: Read, size: int, header: bytes) -> None:
    """qemu believes the footer: it must say what the header says, but for the place of the table."""
    data = read(_VMDK_FOOTER_BYTES, size - _VMDK_FOOTER_BYTES) if size >= 2 * _VMDK_FOOTER_BYTES else b""
    if len(data) < _VMDK_FOOTER_BYTES or size % _SECTOR:
        raise _RefusedError("has no footer")
    marker, footer, end = (data[at : at + _SECTOR] for at in range(0, _VMDK_FOOTER_BYTES, _SECTOR))
    if struct.unpack_from("<II", marker, 8) != (0, _VMDK_FOOTER_MARKER) or any(marker[16:]) or any(end):
        raise _RefusedError("has no footer")
    # Magic number, version, flags; sizes of disk, grains and tables; place of the description; compression.
    same = footer[:48] == header[:48] and footer[77:79] == header[77:79]
    if not same or struct.unpack_from("<Q", footer, 56)[0] == _VMDK_AT_END:
        raise _RefusedError("has a footer that contradicts its header")


def _refuse_vmdk_description(data: bytes, announced: int) -> None:
    """Every line must be one that is understood (the formats of the lines are those VMware publishes)."""
    description, end, _ = data.partition(b"\0")
    if not end or len(description) > announced:
        raise _RefusedError("does not hold its own description")
    if not description.isascii():
        raise _RefusedError("has a description that is not plain text")
    text = description.decode("ascii").lower()
    # Some readers take the first, some the last, and some find it in a comment.
    if any(text.count(word) > 1 for word in ("createtype", "parentcid")):
        raise _RefusedError("has a description that contradicts itself")
    fields, extents = _vmdk_lines(text)
    kind = fields.get("createtype")
    if kind not in ('"monolithicsparse"', '"streamoptimized"'):
        raise _RefusedError("is more than one file" if kind else "does not say what it is")
    if fields.get("parentcid", "ffffffff") != "ffffffff" or "parentfilenamehint" in text:
        raise _RefusedError("has a parent")
    if len(extents) != 1 or extents[0][2:3] != ["sparse"] or any("/" in word for word in extents[0]):
        raise _RefusedError("is more than one file")


def _vmdk_lines(text: str) -> tuple[dict[str, str], list[list[str]]]:
    """Fields by name, and the words of the lines that name extents, of a description in lower case."""
    fields: dict[str, str] = {}
    extents: list[list[str]] = []
    for line in map(str.strip, text.split("\n")):
        name, equals, value = line.partition("=")
        words = line.split(" ")
        if not line or line.startswith(("#", "ddb")):
            continue
        if equals and " " not in name:
            fields[name] = value.strip()
        elif words[0] in _VMDK_ACCESS:
            extents.append(words)
        else:
            raise _RefusedError("has a line in its description that is not known here")
    return fields, extents


def _vhd(read: Read, size: int) -> int:
    footer = read(_SECTOR, 0)
    data, current, kind = (
        struct.unpack_from(">Q", footer, 16)[0],
        struct.unpack_from(">Q", footer, 48)[0],
        struct.unpack_from(">I", footer, 60)[0],
    )
    if kind != 3:
        raise _RefusedError("has a parent" if kind == 4 else f"is of type {kind}, not a dynamic one")
    dynamic = read(1024, data) if data < size else b""
    if dynamic[:8] != b"cxsparse":
        raise _RefusedError("has no header of a dynamic disk")
    table, entries, block = (
        struct.unpack_from(">Q", dynamic, 16)[0],
        struct.unpack_from(">I", dynamic, 28)[0],
        struct.unpack_from(">I", dynamic, 32)[0],
    )
    if table + 4 * entries > size or not _SECTOR <= block <= 1 << 28 or block & (block - 1):
        raise _RefusedError("has a table behind its end")
    if any(dynamic[40:56]):
        raise _RefusedError("has a parent")
    return int(current)


def _vhdx(read: Read, size: int) -> int:
    regions = read(64 * 1024, _VHDX_REGIONS)
    if regions[:4] != b"regi":
        raise _RefusedError("has no table of its regions")
    (count,) = struct.unpack_from("<I", regions, 8)
    if count > _MAX_ENTRIES:
        raise _RefusedError("has a table of absurd size")
    metadata: list[tuple[int, int]] = []
    for at in range(16, 16 + 32 * count, 32):
        offset, length = struct.unpack_from("<QI", regions, at + 16)
        if offset + length > size:
            raise _RefusedError("has a region behind its end")
        if offset < _VHDX_REGION_UNIT or offset % _VHDX_REGION_UNIT:
            raise _RefusedError("has a region at an odd place")
        if regions[at : at + 16] == _VHDX_METADATA:
            metadata.append((offset, length))
    if len(metadata) != 1:
        raise _RefusedError("has no metadata" if not metadata else "has metadata twice")
    return _vhdx_metadata(read, *metadata[0])


def _vhdx_metadata(read: Read, metadata: int, size: int) -> int:
    table = read(64 * 1024, metadata)
    if table[:8] != b"metadata":
        raise _RefusedError("has no metadata")
    (count,) = struct.unpack_from("<H", table, 10)
    if count > _MAX_ENTRIES:
        raise _RefusedError("has a table of absurd size")
    found: dict[bytes, int] = {}
    for at in range(32, 32 + 32 * count, 32):
        name = table[at : at + 16]
        offset, length = struct.unpack_from("<II", table, at + 16)
        if name in found:
            raise _RefusedError("has metadata twice")
        if name in (_VHDX_PARAMETERS, _VHDX_SIZE) and (
            length != 8 or not _VHDX_ITEMS <= offset <= size - length
        ):
            raise _RefusedError("has metadata at an odd place")
        found[name] = metadata + offset
    if _VHDX_PARENT in found:
        raise _RefusedError("has a parent")
    if _VHDX_PARAMETERS not in found or _VHDX_SIZE not in found:
        raise _RefusedError("has no size")
    _, flags = struct.unpack("<II", read(8, found[_VHDX_PARAMETERS]))
    if flags & 0x2:
        raise _RefusedError("has a parent")
    (virtual,) = struct.unpack("<Q", read(8, found[_VHDX_SIZE]))
    return int(virtual)


def _vdi(read: Read, size: int) -> int:
    header = read(_SECTOR, 0)
    version, _, kind = struct.unpack_from("<III", header, 68)
    table, _ = struct.unpack_from("<II", header, 340)
    virtual, block = struct.unpack_from("<QI", header, 368)
    (blocks,) = struct.unpack_from("<I", header, 384)
    if version != 0x00010001:
        raise _RefusedError(f"has version {version:#x}")
    if kind not in (1, 2):
        raise _RefusedError("has a parent")
    if any(header[424:456]):
        raise _RefusedError("has a parent")
    if block != 1 << 20 or table + 4 * blocks > size or virtual > blocks << 20:
        raise _RefusedError("has a table behind its end")
    return int(virtual)


_INSPECTORS: Final[Mapping[Container, Callable[[Read, int], int]]] = {
    Container.QCOW2: _qcow2,
    Container.VMDK: _vmdk,
    Container.VHD: _vhd,
    Container.VHDX: _vhdx,
    Container.VDI: _vdi,
}
