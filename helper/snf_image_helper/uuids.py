"""UUIDs as text and as the bytes of disks: the standard library's module is slow to import, for so little."""

from __future__ import annotations

import os


def new() -> str:
    """A random one, version 4 of RFC 4122, from the system's random source."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return text_of(raw)


def text_of(raw: bytes | bytearray) -> str:
    """As file systems and swap areas hold it: 16 bytes, in the order of the text."""
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def bytes_of(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


def text_of_guid(raw: bytes) -> str:
    """As a GPT holds it: 16 bytes, of which the first three groups are numbers with the low byte first."""
    return text_of(_swapped(raw))


def bytes_of_guid(text: str) -> bytes:
    return _swapped(bytes_of(text))


def _swapped(raw: bytes) -> bytes:
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]
