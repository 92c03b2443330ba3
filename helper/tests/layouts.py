"""Partition tables for tests, made without the code under test, on sparse disks in memory."""

from __future__ import annotations

import dataclasses
import struct
import uuid
import zlib
from collections.abc import Sequence

SECTOR = 512
LINUX_GUID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
SWAP_GUID = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
ESP_GUID = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT_GUID = "21686148-6449-6E6F-744E-656564454649"
DISK_GUID = uuid.UUID("6a2c1f6e-0000-4000-8000-00000000d15c")
BOOT_CODE = (b"not real boot code, but recognisable " * 12)[:440]
SIGNATURE = 0x5EED1234


class SparseDisk:
    """A disk of any size that holds only the sectors that were written."""

    def __init__(self, sectors: int) -> None:
        self.sectors = sectors
        self.held: dict[int, bytes] = {}

    def read(self, lba: int, count: int) -> bytes:
        end = min(lba + count, self.sectors)
        return b"".join(self.held.get(at, bytes(SECTOR)) for at in range(lba, end))

    def write(self, lba: int, data: bytes) -> None:
        assert len(data) % SECTOR == 0
        for index in range(len(data) // SECTOR):
            assert 0 <= lba + index < self.sectors, "a write beyond the disk"
            self.held[lba + index] = data[index * SECTOR : (index + 1) * SECTOR]

    def grown(self, sectors: int) -> SparseDisk:
        """The same contents on a larger (or smaller) disk: what a copy of an image leaves."""
        disk = SparseDisk(sectors)
        disk.held = {lba: data for lba, data in self.held.items() if lba < sectors}
        return disk

    def save(self, path: str) -> None:
        """As a sparse file, for programs that read one."""
        with open(path, "wb") as stream:
            stream.truncate(self.sectors * SECTOR)
            for lba, data in self.held.items():
                stream.seek(lba * SECTOR)
                stream.write(data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A partition of a test: first and last sector."""

    start: int
    end: int
    type: int | str = 0x83
    name: str = ""
    active: bool = False


def entry(part: Part, base: int = 0) -> bytes:
    assert isinstance(part.type, int)
    return struct.pack(
        "<B3sB3sII", 0x80 if part.active else 0, b"\x01\x02\x03", part.type, b"\x04\x05\x06",
        part.start - base, part.end - part.start + 1,
    )  # fmt: skip


def boot_sector(entries: Sequence[bytes]) -> bytes:
    table = b"".join(entries).ljust(64, b"\0")
    return BOOT_CODE + struct.pack("<IH", SIGNATURE, 0) + table + b"\x55\xaa"


def record(entries: Sequence[bytes]) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def mbr_disk(sectors: int, primaries: Sequence[Part | None], logicals: Sequence[Part] = ()) -> SparseDisk:
    """An MBR; None leaves a slot free. Logical partitions, each with its record right before it (by 2048
    sectors, or in the container's first sector), go into the one container among ``primaries``."""
    disk = SparseDisk(sectors)
    disk.write(0, boot_sector([entry(part) if part else bytes(16) for part in primaries]))
    containers = [part for part in primaries if part and part.type in (0x05, 0x0F, 0x85)]
    if containers:
        base = containers[0].start
        places = [base if index == 0 else part.start - 2048 for index, part in enumerate(logicals)]
        for index, part in enumerate(logicals):
            entries = [entry(part, places[index])]
            if index + 1 < len(logicals):
                link = Part(start=places[index + 1], end=logicals[index + 1].end, type=0x05)
                entries.append(entry(link, base))
            disk.write(places[index], record(entries))
        if not logicals:
            disk.write(base, record([]))
    return disk


def gpt_header(
    *,
    lba: int,
    alternate: int,
    array_lba: int,
    array: bytes,
    count: int,
    last_usable: int,
    entry_size: int = 128,
) -> bytes:
    def pack(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, lba, alternate,
            2048, last_usable, DISK_GUID.bytes_le, array_lba, count, entry_size, zlib.crc32(array),
        )  # fmt: skip

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def gpt_disk(
    sectors: int, parts: dict[int, Part], *, count: int = 128, hybrid: Sequence[Part] = ()
) -> SparseDisk:
    """A GPT with partitions by number; both copies whole, the backup in the last sector."""
    disk = SparseDisk(sectors)
    array = bytearray(count * 128)
    for number, part in parts.items():
        assert isinstance(part.type, str)
        struct.pack_into(
            "<16s16sQQQ72s", array, (number - 1) * 128,
            uuid.UUID(part.type).bytes_le, guid(number).bytes_le,
            part.start, part.end, number << 48, part.name.encode("utf-16-le"),
        )  # fmt: skip
    length = -(-len(array) // SECTOR)
    protective = Part(start=1, end=min(sectors - 1, 0xFFFFFFFF), type=0xEE)
    disk.write(0, boot_sector([entry(protective), *map(entry, hybrid)]))
    end = sectors - 1
    padded = bytes(array).ljust(length * SECTOR, b"\0")
    common = {"array": bytes(array), "count": count, "last_usable": end - length - 1}
    disk.write(1, gpt_header(lba=1, alternate=end, array_lba=2, **common))  # type: ignore[arg-type]
    disk.write(2, padded)
    disk.write(end - length, padded)
    disk.write(end, gpt_header(lba=end, alternate=1, array_lba=end - length, **common))  # type: ignore[arg-type]
    return disk


def guid(number: int) -> uuid.UUID:
    """The partition GUID that :func:`gpt_disk` gives."""
    return uuid.UUID(int=0xABC0000000004000800000000000_0000 + number)
