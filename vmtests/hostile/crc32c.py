"""CRC-32C, by which ext4, XFS and Btrfs guard their structures: damage with a right checksum goes deeper."""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78


def raw(data: bytes, value: int = 0xFFFFFFFF) -> int:
    """As ext4 keeps it: all ones at first, not inverted in the end."""
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value


def inverted(data: bytes) -> int:
    """As XFS, Btrfs and the rest of the world keep it."""
    return raw(data) ^ 0xFFFFFFFF


def _of_byte(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(_of_byte(value) for value in range(256))
