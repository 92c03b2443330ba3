"""Damage to GUID partition tables, mostly with right checksums.

UEFI specification, "GUID Partition Table Disk Layout": the header in sector 1, its copy in the last sector.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final

from hostile.image import EITHER, Rows
from hostile.mbr import set_entry
from hostile.region import MIB, SECTOR, ImageFile

_ONE: Final = "arch-gpt-ext4"
_ENTRY: Final = 128
_UNICODE_TRICKS: Final = "\x1b[2J\r\n\ud800\udfff\u202eName\x00rest".encode("utf-16-le", "surrogatepass")
# Byte offsets in the header: (at, form).
_REVISION: Final = (8, "<I")
_SIZE: Final = (12, "<I")
_CRC: Final = (16, "<I")
_ALTERNATE: Final = (32, "<Q")
_FIRST_USABLE: Final = (40, "<Q")
_LAST_USABLE: Final = (48, "<Q")
_ARRAY: Final = (72, "<Q")
_COUNT: Final = (80, "<I")
_ENTRY_SIZE: Final = (84, "<I")
_ARRAY_CRC: Final = (88, "<I")


def _headers(image: ImageFile) -> tuple[int, int]:
    """Bytes of the header and of its copy."""
    return SECTOR, image.size - SECTOR


def _seal(image: ImageFile, header: int, *, array: bool = True) -> None:
    """Make the checksums of a header right again; of absurd sizes as much as is there."""
    if array:
        count, size = image.number(header + _COUNT[0], "<I"), image.number(header + _ENTRY_SIZE[0], "<I")
        place = image.number(header + _ARRAY[0], "<Q") * SECTOR
        length = min(count * size, MIB, image.size - place)
        image.put(header + _ARRAY_CRC[0], "<I", zlib.crc32(image.read(place, length)))
    image.put(header + _CRC[0], "<I", 0)
    length = min(image.number(header + _SIZE[0], "<I"), SECTOR)
    image.put(header + _CRC[0], "<I", zlib.crc32(image.read(header, length)))


def _sealed(field: tuple[int, str], value: int) -> Callable[[ImageFile], None]:
    """Put a value into the header and its copy, with right checksums."""

    def damage(image: ImageFile) -> None:
        for header in _headers(image):
            image.put(header + field[0], field[1], value)
            _seal(image, header, array=field not in {_ARRAY, _COUNT, _ENTRY_SIZE})

    return damage


def _in_each_array(change: Callable[[ImageFile, int], None]) -> Callable[[ImageFile], None]:
    """Change the array at a byte of both copies, with right checksums."""

    def damage(image: ImageFile) -> None:
        for header in _headers(image):
            change(image, image.number(header + _ARRAY[0], "<Q") * SECTOR)
            _seal(image, header)

    return damage


def shorten(image: ImageFile, index: int, sectors: int) -> None:
    """Let partition ``index``, from 0, end so many sectors earlier."""

    def change(changed: ImageFile, array: int) -> None:
        at = array + index * _ENTRY + 40
        changed.put(at, "<Q", changed.number(at, "<Q") - sectors)

    _in_each_array(change)(image)


def _flip_primary(image: ImageFile) -> None:
    image.flip(SECTOR + 8, 84)


def _flip_both(image: ImageFile) -> None:
    for header in _headers(image):
        image.flip(header + 8, 84)


def _flip_primary_array(image: ImageFile) -> None:
    image.flip(image.number(SECTOR + _ARRAY[0], "<Q") * SECTOR, 128)


def _copies_disagree(image: ImageFile) -> None:
    """The backup has another, equally right table: its first partition begins elsewhere."""
    _, backup = _headers(image)
    at = image.number(backup + _ARRAY[0], "<Q") * SECTOR
    image.put(at + 32, "<Q", image.number(at + 32, "<Q") + 2048)
    _seal(image, backup)


def _cut_off_backup(image: ImageFile) -> None:
    """The last MiB is missing: no partition reaches there."""
    image.truncate(image.size - MIB + 100)


def _no_protection(image: ImageFile) -> None:
    """The protective entry is one of Linux: who looks at the MBR sees one partition over everything."""
    set_entry(image, 0, 1, image.size // SECTOR - 1, 0x83)


def _hybrid(image: ImageFile) -> None:
    """GPT and MBR disagree: the MBR has a Linux partition where the GPT has nothing."""
    set_entry(image, 1, 34, 2014, 0x83)
    set_entry(image, 2, 4096, 8192, 0x07)


def _overlapping(image: ImageFile, array: int) -> None:
    first = image.read(array, _ENTRY)
    start, end = struct.unpack_from("<QQ", first, 32)
    copy = bytearray(first)
    copy[16] ^= 0xFF
    struct.pack_into("<QQ", copy, 32, start + 2048, end)
    _put_free(image, array, bytes(copy))


def _same_guid(image: ImageFile, array: int) -> None:
    """Another partition with the same GUIDs, beside it and empty."""
    copy = bytearray(image.read(array, _ENTRY))
    struct.pack_into("<QQ", copy, 32, 40, 41)
    _put_free(image, array, bytes(copy))


def _put_free(image: ImageFile, array: int, entry: bytes) -> None:
    at = next(at for at in range(array, array + 128 * _ENTRY, _ENTRY) if not any(image.read(at, 16)))
    image.write(at, entry)


def _ends_before_start(image: ImageFile, array: int) -> None:
    image.put(array + 40, "<Q", image.number(array + 32, "<Q") - 1)


def _ends_with_the_universe(image: ImageFile, array: int) -> None:
    image.put(array + 40, "<Q", (1 << 64) - 1)


def _names(image: ImageFile, array: int) -> None:
    image.write(array + 56, _UNICODE_TRICKS.ljust(72, b"\xd8"))


_row: Final = Rows("gpt", _ONE)
IMAGES: Final = (
    _row("primary-flipped", "header", _flip_primary, ends=EITHER),
    _row("both-flipped", "header", _flip_both, words="both copies of the GPT are damaged", sampled=True),
    _row("revision-from-the-future", "header", _sealed(_REVISION, 0x00020000), ends=EITHER),
    _row("header-of-4-gib", "header", _sealed(_SIZE, 0xFFFFFFFF)),
    _row("no-usable-sector", "header", _sealed(_LAST_USABLE, 1), ends=EITHER),
    _row("first-usable-behind-the-disk", "header", _sealed(_FIRST_USABLE, 1 << 60), ends=EITHER),
    _row("array-behind-the-disk", "header", _sealed(_ARRAY, 1 << 62)),
    _row("4-billion-entries", "header", _sealed(_COUNT, 0xFFFFFFFF), words="are not supported"),
    _row("entries-of-no-bytes", "header", _sealed(_ENTRY_SIZE, 0), words="are not supported"),
    _row("primary-array-flipped", "entries", _flip_primary_array, ends=EITHER),
    _row("overlapping-partitions", "entries", _in_each_array(_overlapping)),
    _row("same-guid-twice", "entries", _in_each_array(_same_guid), ends=EITHER),
    _row("ends-before-start", "entries", _in_each_array(_ends_before_start)),
    _row("ends-with-the-universe", "entries", _in_each_array(_ends_with_the_universe), words="cut off"),
    _row("copies-disagree", "backup", _copies_disagree, ends=EITHER),
    _row("backup-elsewhere", "backup", _sealed(_ALTERNATE, 1 << 63), ends=EITHER),
    _row("backup-cut-off", "backup", _cut_off_backup, ends=EITHER),
    _row("without-protection", "protective MBR", _no_protection, ends=EITHER),
    _row("mbr-disagrees", "protective MBR", _hybrid, ends=EITHER),
    _row("names-with-control-characters", "names", _in_each_array(_names), ends=EITHER),
)
