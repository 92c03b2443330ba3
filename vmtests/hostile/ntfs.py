"""Damage to NTFS.

As the documentation of the Linux-NTFS project has it: the boot sector names the cluster of $MFT, whose
records of 1024 bytes have attributes; the last two bytes of each of their sectors are kept apart (fixups).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hostile.image import EITHER, Rows
from hostile.region import ImageFile, Region

_BASE: Final = "windows7-mbr-ntfs"
_MFT, _MIRROR, _LOG, _ROOT, _BITMAP, _UPCASE = 0, 1, 2, 5, 6, 10
_DATA, _INDEX_ROOT, _INDEX_ALLOCATION, _END = 0x80, 0x90, 0xA0, 0xFFFFFFFF
# Fields of the boot sector: (at, form).
_SECTOR_BYTES: Final = (0x0B, "<H")
_CLUSTER_SECTORS: Final = (0x0D, "<B")
_SECTORS: Final = (0x28, "<Q")
_MFT_CLUSTER: Final = (0x30, "<Q")
_MIRROR_CLUSTER: Final = (0x38, "<Q")
_RECORD_CLUSTERS: Final = (0x40, "<b")


def _cluster(fs: Region) -> int:
    return fs.number(*_SECTOR_BYTES) * fs.number(*_CLUSTER_SECTORS)


def record(fs: Region, number: int) -> int:
    """Byte of one of the first records, which lie together."""
    at = fs.number(*_MFT_CLUSTER) * _cluster(fs) + 1024 * number
    assert fs.read(at, 4) == b"FILE", "no record where the boot sector says"
    return at


def _attributes(fs: Region, number: int) -> Iterator[tuple[int, int]]:
    """Types and places of a record's attributes."""
    at = record(fs, number)
    at += fs.number(at + 20, "<H")
    while (kind := fs.number(at, "<I")) != _END:
        yield kind, at
        at += fs.number(at + 4, "<I")


def _attribute(fs: Region, number: int, wanted: int) -> int:
    return next(at for kind, at in _attributes(fs, number) if kind == wanted)


def _first_run(fs: Region, number: int, kind: int) -> tuple[int, int]:
    """Byte and bytes of the first run of an attribute that is not resident."""
    at = _attribute(fs, number, kind)
    at += fs.number(at + 32, "<H")
    sizes = fs.read(at, 1)[0]
    length = int.from_bytes(fs.read(at + 1, sizes & 15), "little")
    cluster = int.from_bytes(fs.read(at + 1 + (sizes & 15), sizes >> 4), "little")
    return cluster * _cluster(fs), length * _cluster(fs)


def _set(field: tuple[int, str], value: int) -> Callable[[ImageFile], None]:
    def damage(image: ImageFile) -> None:
        image.root.put(*field, value)

    return damage


def _flip_boot_sector(image: ImageFile) -> None:
    image.root.flip(0x0B, 0x3D)


def _flip_mft(image: ImageFile) -> None:
    for number in range(16):
        image.root.flip(record(image.root, number) + 4, 400, bits=32, seed=number)


def _flip_mft_only_first(image: ImageFile) -> None:
    image.root.flip(record(image.root, _MFT) + 4, 400, bits=32)


def _mirror(fs: Region) -> int:
    return fs.number(*_MIRROR_CLUSTER) * _cluster(fs)


def _flip_mirror(image: ImageFile) -> None:
    image.root.flip(_mirror(image.root) + 60, 300, bits=32)


def _endless_attribute(image: ImageFile) -> None:
    """The root directory's first attribute has no length: what follows it, is itself."""
    _, at = next(_attributes(image.root, _ROOT))
    image.root.put(at + 4, "<I", 0)


def _mft_runs_away(image: ImageFile) -> None:
    """The table of records is said to be of an exbibyte, all of it initialised."""
    at = _attribute(image.root, _MFT, _DATA)
    image.root.put(at + 40, "<QQQ", *[1 << 60] * 3)


def _fixups(image: ImageFile) -> None:
    """The fixups of the root directory are said to be behind its record."""
    image.root.put(record(image.root, _ROOT) + 4, "<HH", 0xFFF0, 0x7FFF)


def _empty_bitmap(image: ImageFile) -> None:
    """Every cluster is free."""
    at, length = _first_run(image.root, _BITMAP, _DATA)
    image.root.fill(at, length, 0)


def _full_bitmap(image: ImageFile) -> None:
    at, length = _first_run(image.root, _BITMAP, _DATA)
    image.root.fill(at, length, 0xFF)


def _flip_upcase(image: ImageFile) -> None:
    """Which letters are the same; the part that ASCII is in."""
    at, _ = _first_run(image.root, _UPCASE, _DATA)
    image.root.flip(at, 512, bits=64)


def _flip_index(image: ImageFile) -> None:
    at, length = _first_run(image.root, _ROOT, _INDEX_ALLOCATION)
    image.root.flip(at + 24, min(length, 480), bits=48)


def _index_in_a_circle(image: ImageFile) -> None:
    """The entries of the root directory's block lead to that same block."""
    at, _ = _first_run(image.root, _ROOT, _INDEX_ALLOCATION)
    entry = at + 24 + image.root.number(at + 24, "<I")
    image.root.put(at + 36, "<B", 1)  # the block has children
    image.root.put(entry + 12, "<H", image.root.number(entry + 12, "<H") | 1)
    length = image.root.number(entry + 8, "<H")
    image.root.put(entry + length - 8, "<Q", 0)


def _index_blocks_of_no_bytes(image: ImageFile) -> None:
    at = _attribute(image.root, _ROOT, _INDEX_ROOT)
    at += image.root.number(at + 20, "<H")
    image.root.put(at + 8, "<IB", 0, 0)


def _flip_log(image: ImageFile) -> None:
    at, _ = _first_run(image.root, _LOG, _DATA)
    image.root.write(at, b"RSTR")
    image.root.flip(at + 4, 8192, bits=400)


_row: Final = Rows("ntfs", _BASE)
IMAGES: Final = (
    _row("boot-sector-flipped", "boot sector", _flip_boot_sector),
    _row("sectors-of-no-bytes", "boot sector", _set(_SECTOR_BYTES, 0)),
    _row("clusters-of-no-sectors", "boot sector", _set(_CLUSTER_SECTORS, 0)),
    _row("sectors-of-a-zebibyte", "boot sector", _set(_SECTORS, (1 << 62) - 1)),
    _row("mft-behind-the-disk", "boot sector", _set(_MFT_CLUSTER, 1 << 60)),
    _row("records-of-2-to-the-127", "boot sector", _set(_RECORD_CLUSTERS, -127)),
    _row("mft-flipped", "$MFT", _flip_mft),
    _row("mft-first-record-flipped", "$MFT", _flip_mft_only_first, base="windows2003-mbr-ntfs", sampled=True),
    _row("attribute-without-end", "$MFT", _endless_attribute),
    _row("mft-of-an-exbibyte", "$MFT", _mft_runs_away),
    _row("fixups-behind-the-record", "$MFT", _fixups),
    _row("mirror-flipped", "$MFTMirr", _flip_mirror, ends=EITHER),
    _row("nothing-is-used", "$Bitmap", _empty_bitmap, ends=EITHER),
    _row("everything-is-used", "$Bitmap", _full_bitmap),
    _row("upcase-flipped", "$UpCase", _flip_upcase),
    _row("index-flipped", "index", _flip_index, ends=EITHER),
    _row("index-in-a-circle", "index", _index_in_a_circle, ends=EITHER),
    _row("index-blocks-of-no-bytes", "index", _index_blocks_of_no_bytes),
    _row("log-flipped", "$LogFile", _flip_log, ends=EITHER),
)
