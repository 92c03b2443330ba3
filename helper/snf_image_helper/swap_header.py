"""The header of a swap area, version 1, as the kernel's include/linux/swap.h describes it.

Written here because a program that does it takes longer to start under emulation than the rest of the task.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from snf_image_helper import uuids
from snf_image_helper.errors import TaskError

PAGE: Final = 4096
_LEAST_PAGES: Final = 10
_MAX_PAGES: Final = 1 << 32
_VERSION_AT: Final = 1024
_MAGIC: Final = b"SWAPSPACE2"
_WIPED: Final = 1 << 20
"""Bytes at either end in which other signatures can be: those of ZFS and of md lie at the end as well."""


def write_header(device: str, size: int, identifier: str) -> None:
    """Make ``device``, of ``size`` bytes, an empty swap area; nothing of what it was stays to be found.

    :class:`TaskError` if it is too small, OSError if it cannot be written. On the disk when this returns.
    """
    pages = min(size // PAGE, _MAX_PAGES)
    if pages < _LEAST_PAGES:
        raise TaskError(f"{size} bytes are too few for a swap area, it takes {_LEAST_PAGES * PAGE}")
    wiped = min(_WIPED, size // 2)
    fd = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        _write(fd, bytes(wiped), size - wiped)
        _write(fd, _header(pages, identifier) + bytes(wiped - PAGE), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _header(pages: int, identifier: str) -> bytes:
    """The first page: version, last page, no bad pages, UUID, no label; the magic at its end."""
    info = struct.pack("<III16s16s", 1, pages - 1, 0, uuids.bytes_of(identifier), b"")
    return bytes(_VERSION_AT) + info.ljust(PAGE - _VERSION_AT - len(_MAGIC), b"\0") + _MAGIC


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
