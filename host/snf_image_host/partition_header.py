"""The partition table that a dump of a file system gets (R-FMT-2, R-FMT-3, R-FMT-4)."""

from __future__ import annotations

import functools
import importlib.resources
import os
import struct
from typing import Final

from snf_image_contract.names import ImageFormat
from snf_image_host.errors import ImageError

SECTOR: Final = 512
HEADER_SECTORS: Final = 2048
HEADER_SIZE: Final = HEADER_SECTORS * SECTOR
_TYPES: Final = {ImageFormat.EXTDUMP: 0x83, ImageFormat.NTFSDUMP: 0x07}
_HEADS: Final = 255
_SECTORS_PER_TRACK: Final = 63
_LAST_CHS: Final = (1023, 254, 63)
_MAX_BOOT_CODE: Final = 440


@functools.cache
def boot_code() -> bytes:
    """The assembled ``boot_code.S``: finds the active partition and starts its first sector."""
    code = importlib.resources.files("snf_image_host").joinpath("boot_code.bin").read_bytes()
    if len(code) > _MAX_BOOT_CODE:
        raise ValueError(f"boot code of {len(code)} bytes")
    return code


def partition_header(kind: ImageFormat, dump_size: int) -> bytes:
    """2048 sectors with a master boot record whose one, active partition is the dump behind them.

    ``dump_size`` in bytes; :class:`ImageError` if such a table cannot describe it.
    """
    sectors = -(-dump_size // SECTOR)
    if sectors >= 1 << 32:
        raise ImageError(f"a {kind} of {dump_size} bytes is too large for its partition table (2 TiB)")
    entry = struct.pack(
        "<B3sB3sII",
        0x80,
        _chs(HEADER_SECTORS),
        _TYPES[kind],
        _chs(HEADER_SECTORS + sectors - 1),
        HEADER_SECTORS,
        sectors,
    )
    sector = (
        boot_code().ljust(_MAX_BOOT_CODE, b"\0") + _signature() + bytes(2) + entry + bytes(48) + b"\x55\xaa"
    )
    return sector + bytes(HEADER_SIZE - SECTOR)


def _signature() -> bytes:
    """A random disk signature; four zeros would mean that there is none."""
    while not any(signature := os.urandom(4)):
        pass
    return signature


def _chs(sector: int) -> bytes:
    """Cylinder, head and sector of an address, packed as in a partition entry; capped where it ends."""
    cylinder, rest = divmod(sector, _HEADS * _SECTORS_PER_TRACK)
    head, offset = divmod(rest, _SECTORS_PER_TRACK)
    number = offset + 1
    if cylinder > _LAST_CHS[0]:
        cylinder, head, number = _LAST_CHS
    return bytes((head, number | cylinder >> 2 & 0xC0, cylinder & 0xFF))
