"""Damage to MBR partition tables and their chains of extended boot records.

Four entries of 16 bytes at 446 of the boot sector: status, CHS, type, CHS, start, length; 55 AA at 510. A
logical partition has a record of its own whose second entry names the next record, relative to the container.
"""

from __future__ import annotations

import struct
from typing import Final

from hostile.image import EITHER, HostileImage
from hostile.region import MIB, SECTOR, ImageFile

_ENTRIES: Final = 446
_ONE: Final = "alpine-mbr-ext4"
_LOGICAL: Final = "slackware-mbr-logical-ext4"
_LINUX, _EXTENDED = 0x83, 0x05


def set_entry(image: ImageFile, slot: int, start: int, sectors: int, kind: int, *, at: int = 0) -> None:
    """Entry ``slot``, from 0, of the record at byte ``at``."""
    data = struct.pack("<4B4BII", 0, 0xFE, 0xFF, 0xFF, kind, 0xFE, 0xFF, 0xFF, start, sectors)
    image.write(at + _ENTRIES + 16 * slot, data)


def _entry(image: ImageFile, slot: int, at: int = 0) -> tuple[int, int, int]:
    """Start, length, type."""
    place = at + _ENTRIES + 16 * slot
    start, sectors = struct.unpack("<II", image.read(place + 8, 8))
    return start, sectors, image.read(place + 4, 1)[0]


def _container(image: ImageFile) -> int:
    """The first sector of the extended partition."""
    found = [_entry(image, slot) for slot in range(4)]
    return next(start for start, _, kind in found if kind in {0x05, 0x0F, 0x85})


def _no_signature(image: ImageFile) -> None:
    image.flip(510, 2, bits=1)


def _overlapping(image: ImageFile) -> None:
    start, sectors, _ = _entry(image, 0)
    set_entry(image, 1, start + sectors // 2, sectors // 2, _LINUX)


def _behind_the_disk(image: ImageFile) -> None:
    set_entry(image, 1, 0xFFFFFFFF, 0xFFFFFFFF, _LINUX)


def _from_sector_zero(image: ImageFile) -> None:
    start, sectors, kind = _entry(image, 0)
    set_entry(image, 0, 0, start + sectors, kind)


def _empty(image: ImageFile) -> None:
    start, _, kind = _entry(image, 0)
    set_entry(image, 0, start, 0, kind)


def _flipped(image: ImageFile) -> None:
    image.flip(_ENTRIES + 8, 8, bits=3, seed=5)


def _two_containers(image: ImageFile) -> None:
    set_entry(image, 1, 2048, 4096, _EXTENDED)
    set_entry(image, 2, 8192, 4096, _EXTENDED)


def _chain_to_itself(image: ImageFile) -> None:
    """The first record names itself as the next one."""
    set_entry(image, 1, 0, 2048, _EXTENDED, at=_container(image) * SECTOR)


def _chain_in_a_circle(image: ImageFile) -> None:
    """The second record leads back to the first."""
    first = _container(image)
    following, _, _ = _entry(image, 1, first * SECTOR)
    set_entry(image, 1, 0, 2048, _EXTENDED, at=(first + following) * SECTOR)


def _long_chain(image: ImageFile) -> None:
    """Records of 5,000 logical partitions, one in each sector; each describes the one before."""
    first = _container(image)
    record = bytearray(SECTOR)
    record[510:] = b"\x55\xaa"
    for index in range(5000):
        at = (first + index) * SECTOR
        image.write(at, bytes(record))
        set_entry(image, 0, 1, 1, _LINUX, at=at)
        set_entry(image, 1, index + 1, 1, _EXTENDED, at=at)


def _chain_leads_out(image: ImageFile) -> None:
    set_entry(image, 1, 0xFFFFFFF0, 2048, _EXTENDED, at=_container(image) * SECTOR)


def _chain_breaks(image: ImageFile) -> None:
    image.fill(_container(image) * SECTOR + 510, 2, 0)


def _container_around_itself(image: ImageFile) -> None:
    """The extended partition begins at the boot sector, which is then a record of its own chain."""
    slot = next(slot for slot in range(4) if _entry(image, slot)[2] in {0x05, 0x0F, 0x85})
    set_entry(image, slot, 0, image.size // SECTOR, _EXTENDED)


def _larger_on_paper(image: ImageFile) -> None:
    """The last logical partition reaches out of its container, over the end of the image."""
    at = _container(image) * SECTOR
    start, _, kind = _entry(image, 0, at)
    set_entry(image, 0, start, image.size // SECTOR + 4 * MIB, kind, at=at)


IMAGES: Final = (
    HostileImage(id="mbr-without-signature", base=_ONE, structure="mbr: boot sector", damage=_no_signature),
    HostileImage(id="mbr-overlapping-partitions", base=_ONE, structure="mbr: entries", damage=_overlapping),
    HostileImage(
        id="mbr-partition-behind-the-disk", base=_ONE, structure="mbr: entries", damage=_behind_the_disk,
        words="cut off",
    ),
    HostileImage(
        id="mbr-partition-from-sector-0", base=_ONE, structure="mbr: entries", damage=_from_sector_zero
    ),
    HostileImage(id="mbr-empty-partition", base=_ONE, structure="mbr: entries", damage=_empty),
    HostileImage(id="mbr-flipped-entries", base=_ONE, structure="mbr: entries", damage=_flipped),
    HostileImage(
        id="mbr-two-extended-partitions", base=_ONE, structure="mbr: entries", damage=_two_containers,
        words="more than one extended partition",
    ),
    HostileImage(
        id="mbr-chain-to-itself", base=_LOGICAL, structure="mbr: extended chain", damage=_chain_to_itself,
        words="does not end", sampled=True,
    ),
    HostileImage(
        id="mbr-chain-in-a-circle", base="opensuse-mbr-logical-ext4", structure="mbr: extended chain",
        damage=_chain_in_a_circle, ends=EITHER,
    ),
    HostileImage(
        id="mbr-chain-of-5000", base=_LOGICAL, structure="mbr: extended chain", damage=_long_chain,
        words="does not end",
    ),
    HostileImage(
        id="mbr-chain-leads-out", base=_LOGICAL, structure="mbr: extended chain", damage=_chain_leads_out,
        words="outside of the extended partition",
    ),
    HostileImage(id="mbr-chain-breaks", base=_LOGICAL, structure="mbr: extended chain", damage=_chain_breaks),
    HostileImage(
        id="mbr-container-around-itself", base=_LOGICAL, structure="mbr: extended chain",
        damage=_container_around_itself,
    ),
    HostileImage(
        id="mbr-logical-larger-than-container", base=_LOGICAL, structure="mbr: extended chain",
        damage=_larger_on_paper,
    ),
)  # fmt: skip
