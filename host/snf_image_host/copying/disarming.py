"""What a copy that failed leaves: a disk that cannot be booted, or of which the ends are gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from snf_image_host.copying.served import ServedTarget
from snf_image_host.copying.target import MIB, Target
from snf_image_host.disks import Disk, ServedDisk
from snf_image_host.errors import NodeError

_SECTOR: Final = 512
_PROTECTIVE: Final = b"\xee"

AnyTarget = Target | ServedTarget


def open_target(disk: Disk, *, check: Callable[[], None] = lambda: None) -> AnyTarget:
    """What writes to ``disk``. ``check`` is called between two steps and may raise to end them."""
    return ServedTarget(disk, check=check) if isinstance(disk, ServedDisk) else Target(disk, check=check)


def disarm(disk: Disk) -> None:
    """Clear what makes firmware boot the disk, so that a half-made one cannot (D-12). Never fails.

    That is the boot signature, and the type of a protective partition: UEFI reads the GPT behind one without
    a look at the signature. All else stays as it is, for those who want to know what went wrong.
    """
    if isinstance(disk, ServedDisk):
        with contextlib.suppress(NodeError), ServedTarget(disk) as target:
            sector = bytearray(_SECTOR)
            target.read_into(memoryview(sector), 0)
            target.write(memoryview(_disarmed(sector)), 0)
            target.flush()
        return
    with contextlib.suppress(OSError):
        found = os.pread(disk.fd, _SECTOR, 0)
        sector = _disarmed(found)
        if sector != found:
            os.pwrite(disk.fd, sector, 0)
        os.fdatasync(disk.fd)


def _disarmed(found: bytes | bytearray) -> bytearray:
    sector = bytearray(found)
    for kind in range(450, 510, 16):
        if sector[kind : kind + 1] == _PROTECTIVE:
            sector[kind] = 0
    sector[510:] = bytes(len(sector[510:]))
    return sector


def write_first_page(disk: Disk, page: bytes) -> None:
    """What makes the disk boot, when all else is there and known to be right."""
    with open_target(disk) as target:
        target.flush()
        target.write(memoryview(page), 0)
        target.flush()


def empty_end(disk: Disk) -> None:
    """Zero the last MiB: a backup of an earlier GPT, or a signature, would survive the image there (D-10)."""
    length = min(MIB, disk.size)
    with open_target(disk) as target:
        target.zero(disk.size - length, length)
        target.flush()


def wipe_ends(disk: Disk) -> None:
    """Zero the first and the last MiB: of what is on the disk nothing may be taken for good. Never fails."""
    length = min(MIB, disk.size)
    with contextlib.suppress(NodeError), open_target(disk) as target:
        target.zero(0, length)
        target.zero(disk.size - length, length)
        target.flush()
