"""The bounded look at an image's first bytes: what it finds, and that nothing upsets it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_contract.names import ImageFormat
from snf_image_host.errors import ImageError
from snf_image_host.image_header import check_header

SECTOR = 512
MIB = 1 << 20
DISK, EXT, NTFS = ImageFormat.DISKDUMP, ImageFormat.EXTDUMP, ImageFormat.NTFSDUMP


def mbr(*entries: tuple[int, int, int], flag: int = 0x80) -> bytes:
    """A master boot record with entries of type, start, length in sectors."""
    table = b"".join(
        struct.pack("<B3xB3xII", flag if number == 0 else 0, kind, start, length)
        for number, (kind, start, length) in enumerate(entries)
    )
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(*partitions: tuple[int, int], table: int = 2, count: int = 128, entry_size: int = 128) -> bytes:
    """Protective record, header and table with partitions of first and last sector."""
    header = bytearray(SECTOR)
    header[:8] = b"EFI PART"
    struct.pack_into("<QII", header, 72, table, count, entry_size)
    entries = b"".join(
        os.urandom(16) + os.urandom(16) + struct.pack("<QQ", first, last) + bytes(80)
        for first, last in partitions
    )
    return mbr((0xEE, 1, 0xFFFFFFFF), flag=0) + bytes(header) + entries.ljust(128 * 128, b"\0")


def ext(blocks: int, shift: int = 2, *, high: int | None = None, magic: bytes = b"\x53\xef") -> bytes:
    """The first 2048 bytes of an ext file system; ``high``: upper half of the block count, with 64bit."""
    superblock = bytearray(1024)
    struct.pack_into("<I", superblock, 4, blocks)
    struct.pack_into("<I", superblock, 24, shift)
    superblock[56:58] = magic
    if high is not None:
        struct.pack_into("<I", superblock, 96, 0x80)
        struct.pack_into("<I", superblock, 0x150, high)
    return bytes(1024) + bytes(superblock)


def ntfs(sectors: int, sector_size: int = SECTOR, magic: bytes = b"NTFS    ") -> bytes:
    boot = bytearray(SECTOR)
    boot[3:11] = magic
    struct.pack_into("<H", boot, 11, sector_size)
    struct.pack_into("<Q", boot, 40, sectors)
    boot[510:] = b"\x55\xaa"
    return bytes(boot)


def check(path: Path, data: bytes, kind: ImageFormat, size: int | None = None) -> None:
    """Check an image that begins with ``data`` and is ``size`` bytes large."""
    with path.open("w+b") as file:
        file.write(data)
        size = len(data) if size is None else size
        file.truncate(size)
        file.flush()
        check_header(file.fileno(), size, kind, "web.raw")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.mark.parametrize("kind", list(ImageFormat))
def test_an_empty_image_is_refused(image: Path, kind: ImageFormat) -> None:
    with pytest.raises(ImageError, match=r"the image web\.raw is empty"):
        check(image, b"", kind)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(ext(16, magic=b"\x53\xee"), EXT), (ntfs(8, magic=b"NTFS   x"), NTFS), (ntfs(8), EXT), (ext(16), NTFS)],
)
def test_a_dump_of_another_kind_is_refused(image: Path, data: bytes, kind: ImageFormat) -> None:
    """R-FMT-6: the magic number is looked for at its one place."""
    with pytest.raises(ImageError, match=rf"is no {kind}: the file system's magic number is not there"):
        check(image, data, kind, MIB)


@pytest.mark.parametrize("size", [1, 512, 1079, 1081])
def test_a_dump_that_ends_before_its_magic_is_refused(image: Path, size: int) -> None:
    """R-FMT-6."""
    with pytest.raises(ImageError, match="magic number"):
        check(image, ext(16)[:size], EXT)


@pytest.mark.parametrize(
    ("data", "kind", "whole"),
    [
        (ext(256), EXT, MIB),
        (ext(1024, shift=0), EXT, MIB),
        (ext(16, shift=6), EXT, MIB),
        (ntfs(2048), NTFS, MIB),
        (ntfs(256, 4096), NTFS, MIB),
        (ext(0, high=1), EXT, 4096 << 32),
    ],
)
def test_a_file_system_that_is_cut_off_is_refused(
    image: Path, data: bytes, kind: ImageFormat, whole: int
) -> None:
    """R-FMT-5: its own size is in its first bytes; a dump may be larger than it, never smaller."""
    with pytest.raises(ImageError, match=f"is cut off: its file system has {whole} bytes, it has {MIB - 1}"):
        check(image, data, kind, MIB - 1)
    if whole == MIB:
        check(image, data, kind, MIB)
        check(image, data, kind, MIB + 4096)


@pytest.mark.parametrize(("data", "kind"), [(ext(16), EXT), (ntfs(8), NTFS)])
def test_a_dump_that_its_partition_table_cannot_describe_is_refused(
    image: Path, data: bytes, kind: ImageFormat
) -> None:
    """R-FMT-5: 2^32 sectors or more."""
    limit = (1 << 32) * SECTOR
    check(image, data, kind, limit - SECTOR)
    with pytest.raises(ImageError, match=r"too large for the partition table .* \(2 TiB\)"):
        check(image, data, kind, limit)


@pytest.mark.parametrize("entry", range(4))
def test_a_disk_whose_partition_ends_behind_it_is_cut_off(image: Path, entry: int) -> None:
    """Truncated image: each of the four entries counts."""
    entries = [(0x83, 1, 1)] * entry + [(0x83, 2048, 4096)]
    check(image, mbr(*entries), DISK, 6144 * SECTOR)
    with pytest.raises(ImageError, match=rf"cut off: a partition ends at byte {6144 * SECTOR}, it has"):
        check(image, mbr(*entries), DISK, 6144 * SECTOR - 1)


def test_a_gpt_disk_that_is_cut_off(image: Path) -> None:
    data = gpt((34, 99), (4000, 8191), (100, 200))
    check(image, data, DISK, 8192 * SECTOR)
    with pytest.raises(ImageError, match=rf"a partition ends at byte {8192 * SECTOR}"):
        check(image, data, DISK, 8192 * SECTOR - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"QFI\xfb" + bytes(600),  # a qcow2
        b"#!/bin/sh\n" * 100,
        bytes(MIB),
        mbr((0, 2048, 1 << 31)),  # an unused entry
        mbr((0x83, 2048, 0)),
        mbr((0x83, 1 << 31, 1 << 31), flag=0x41),  # code of a file system's boot sector
        mbr((0xEE, 1, 9)),  # protective, but nothing is protected
        gpt((1, 1 << 50), table=1 << 41),
        gpt((1, 1 << 50), entry_size=64),
    ],
)
def test_what_has_no_partition_table_is_not_judged_here(image: Path, data: bytes) -> None:
    """R-FMT-1, T-32: the helper says that there is no partition; other formats are copied byte for byte."""
    check(image, data, DISK)


class Reads:
    """Counts what is read of a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        self._real = os.pread
        monkeypatch.setattr(os, "pread", self.pread)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        data = self._real(fd, length, offset)
        self.total += len(data)
        return data


def test_never_much_is_read(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the table says that it is."""
    reads = Reads(monkeypatch)
    data = gpt((34, 99), count=0xFFFFFFFF)
    check(image, data, DISK, 64 * MIB)
    assert reads.total <= 66 * 1024


seeds = st.sampled_from([mbr((0x83, 1, 9)), gpt((34, 40)), ext(16), ext(16, high=0), ntfs(8), bytes(4096)])


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=4096) | seeds,
    changes=st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=16)), max_size=8),
    kind=st.sampled_from(ImageFormat),
    size=st.integers(0, 1 << 14),
)
def test_nothing_upsets_it(
    tmp_path_factory: pytest.TempPathFactory,
    data: bytes,
    changes: list[tuple[int, bytes]],
    kind: ImageFormat,
    size: int,
) -> None:
    """Random and mutated headers: accepted, or refused as a bad image; nothing else, and little is read."""
    changed = bytearray(data)
    for at, new in changes:
        changed[at : at + len(new)] = new
    with pytest.MonkeyPatch.context() as monkeypatch:
        reads = Reads(monkeypatch)
        refused: list[ImageError] = []
        try:
            check(tmp_path_factory.getbasetemp() / "fuzzed", bytes(changed[:size]), kind)
        except ImageError as error:
            refused.append(error)
        assert all("web.raw" in str(error) and len(str(error)) < 200 for error in refused)
        assert reads.total <= 66 * 1024
