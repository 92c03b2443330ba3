"""Whether the first bytes are those of a tar archive: POSIX, GNU, or the older kind that has no magic number.

The older headers (Unix v7, ``tar --format=v7``) are told by all of their fields: the checksum alone would be
right by chance once in a while, and an image must never be taken for an archive.
"""

from __future__ import annotations

import re
from typing import Final

_SECTOR: Final = 512
_NUMBER: Final = re.compile(rb" *([0-7]+)[ \0]*")
_NAME: Final = slice(0, 100)
_NUMBERS: Final = (slice(100, 108), slice(108, 116), slice(116, 124), slice(124, 136), slice(136, 148))
"""Mode, owner, group, size, time."""
_CHECKSUM: Final = slice(148, 156)
_TYPE: Final = slice(156, 157)
_LINK: Final = slice(157, 257)
_MAGIC: Final = slice(257, 262)
_DEVICE: Final = (slice(329, 337), slice(337, 345))
"""Major and minor number, of which there were none yet; GNU tar writes 0 there all the same."""
_UNUSED: Final = (slice(257, 329), slice(345, _SECTOR))
_OLD_TYPES: Final = (b"\0", b"0", b"1", b"2", b"5")
"""A file (two ways to say so), a hard link, a symbolic link, a directory."""


def is_tar(head: bytes) -> bool:
    """Whether the checksum is right, and either the magic number is there or every field makes sense."""
    if len(head) < _SECTOR or not _is_checksum_right(head):
        return False
    return head[_MAGIC] == b"ustar" or _is_old(head)


def _is_checksum_right(head: bytes) -> bool:
    expected = _NUMBER.fullmatch(head[_CHECKSUM])
    found = sum(head[: _CHECKSUM.start]) + 8 * 0x20 + sum(head[_CHECKSUM.stop : _SECTOR])
    return expected is not None and int(expected[1], 8) == found


def _is_old(head: bytes) -> bool:
    """Nothing where later kinds have something, so never a sector that a machine could start from."""
    return (
        not any(any(head[field]) for field in _UNUSED)
        and all(not any(head[field]) or _NUMBER.fullmatch(head[field]) for field in _DEVICE)
        and head[_TYPE] in _OLD_TYPES
        and all(_NUMBER.fullmatch(head[field]) for field in _NUMBERS)
        and _is_path(head[_NAME])
        and (not any(head[_LINK]) or _is_path(head[_LINK]))
    )


def _is_path(field: bytes) -> bool:
    """Text without control characters, and only zeros behind it."""
    text, _, rest = field.partition(b"\0")
    return bool(text) and not any(rest) and all(byte >= 0x20 and byte != 0x7F for byte in text)
