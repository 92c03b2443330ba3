"""MBR: reading untrusted records, and edits that change no byte more than they must."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layouts import BOOT_CODE, SIGNATURE, Part, SparseDisk, boot_sector, entry, mbr_disk, record
from snf_image_helper.errors import ImageError
from snf_image_helper.partition_table import NoTableError, mbr, parse
from snf_image_helper.partition_table.change import steps
from snf_image_helper.partition_table.table import Edit, Partition

SIZE = 1 << 20
CONTAINER = Part(start=100_000, end=199_999, type=0x05)


def disk_with_chain(*records: tuple[int, bytes]) -> SparseDisk:
    disk = mbr_disk(SIZE, [Part(start=2048, end=99_999), CONTAINER])
    for lba, data in records:
        disk.write(lba, data)
    return disk


def link(lba: int) -> bytes:
    return entry(Part(start=lba, end=lba + 999, type=0x05), CONTAINER.start)


def test_numbers_types_and_partuuids_are_those_of_the_kernel() -> None:
    """R-DET-3: logical partitions count from 5 in the order of the chain; unused records count nothing."""
    first = record([b"", link(110_000)])
    second = record([entry(Part(start=112_048, end=119_999), 110_000), link(120_000)])
    third = record([entry(Part(start=122_048, end=129_999, type=0x82), 120_000)])
    disk = disk_with_chain((100_000, first), (110_000, second), (120_000, third))
    table = parse(disk.read, SIZE)
    assert [(p.number, p.start, p.end, p.type, p.kind) for p in table.partitions] == [
        (1, 2048, 99_999, "0x83", "primary"),
        (2, 100_000, 199_999, "0x05", "extended"),
        (5, 112_048, 119_999, "0x83", "logical"),
        (6, 122_048, 129_999, "0x82", "logical"),
    ]
    assert [p.uuid for p in table.partitions][1:3] == [f"{SIGNATURE:08x}-02", f"{SIGNATURE:08x}-05"]


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([(100_000, record([b"", link(100_000)]))], "does not end"),
        ([(100_000, record([b"", link(110_000)])), (110_000, record([b"", link(100_000)]))], "does not end"),
        ([(100_000, record([b"", link(200_000)]))], "outside of the extended partition"),
        ([(100_000, record([b"", link(4_000_000_000)]))], "outside of the extended partition"),
        (
            [(100_000, record([entry(Part(start=102_048, end=110_000), 100_000)] * 2))],
            "describes 2 partitions",
        ),
    ],
)
def test_chains_that_loop_or_leave_are_errors(records: list[tuple[int, bytes]], problem: str) -> None:
    """R-TASK-FIX-4: bounded, and inside of the container."""
    with pytest.raises(ImageError, match=problem):
        parse(disk_with_chain(*records).read, SIZE)


def test_a_chain_of_more_than_128_records_is_an_error() -> None:
    """R-TASK-FIX-4: 128 are followed."""
    for count, fine in ((128, True), (129, False)):
        places = [CONTAINER.start + 100 * index for index in range(count)]
        records = []
        for lba in places:
            more = [link(lba + 100)] if lba != places[-1] else []
            records.append((lba, record([entry(Part(start=lba + 1, end=lba + 50), lba), *more])))
        disk = disk_with_chain(*records)
        if fine:
            assert len(parse(disk.read, SIZE).logical) == 128
        else:
            with pytest.raises(ImageError, match="does not end"):
                parse(disk.read, SIZE)


def test_a_chain_that_goes_beyond_a_truncated_disk() -> None:
    """R-TASK-FIX-4: the record cannot be read."""
    disk = disk_with_chain((100_000, record([b"", link(190_000)]))).grown(150_000)
    with pytest.raises(ImageError, match="beyond the end of the disk"):
        parse(disk.read, disk.sectors)


def test_two_containers_are_an_error() -> None:
    """R-TASK-FIX-4: which of them would grow is anybody's guess."""
    disk = mbr_disk(SIZE, [Part(start=2048, end=9999, type=0x05), Part(start=10_000, end=19_999, type=0x0F)])
    with pytest.raises(ImageError, match="more than one extended partition"):
        parse(disk.read, SIZE)


@pytest.mark.parametrize(
    "sector",
    [
        bytes(512),
        b"",
        boot_sector([])[:510] + b"\0\0",
        b"\xeb\x3c\x90mkfs.fat" + bytes(43) + b"FAT16   " + bytes(448) + b"\x55\xaa",
        b"\xeb\x58\x90mkfs.fat" + bytes(71) + b"FAT32   " + bytes(420) + b"\x55\xaa",
        b"\xeb\x52\x90NTFS    " + bytes(499) + b"\x55\xaa",
        bytes(446) + b"\x33" * 64 + b"\x55\xaa",
        boot_sector([]),
    ],
)
def test_what_is_no_partition_table(sector: bytes) -> None:
    """R-DET-2, T-46: nothing, and boot sectors of file systems; with a text that says so."""
    disk = SparseDisk(SIZE)
    if sector:
        disk.write(0, sector)
    else:
        disk.sectors = 0
    with pytest.raises(NoTableError, match="no partition found on the disk"):
        parse(disk.read, disk.sectors)


def written(disk: SparseDisk, edit: Edit) -> list[tuple[int, bytes]]:
    table = parse(disk.read, disk.sectors)
    return [(write.lba, write.data) for step in steps(table, edit) for write in step]


def test_growing_changes_only_the_end_of_the_entry() -> None:
    """R-TASK-FIX-2, T-58: boot code, signature, flags, type and first CHS address stay."""
    disk = mbr_disk(SIZE, [Part(start=2048, end=99_999, active=True, type=0x8E)])
    before = disk.read(0, 1)
    ((lba, after),) = written(disk, Edit(ends=((1, 509_999),)))
    assert lba == 0
    assert after[:440] == BOOT_CODE
    assert after[440:444] == struct.pack("<I", SIGNATURE)
    assert after[:451] == before[:451]
    # 509,999 = cylinder 31, head 190, sector 15 (counted from 1) with 255 heads of 63 sectors
    assert after[451:454] == bytes((190, 15, 31))
    assert after[454:458] == before[454:458]
    assert after[458:462] == struct.pack("<I", 509_999 - 2048 + 1)
    assert after[462:] == before[462:]


@pytest.mark.parametrize(
    ("lba", "expected"),
    [
        (0, (0, 1, 0)),
        (62, (0, 63, 0)),
        (63, (1, 1, 0)),
        (16_065 * 1023, (0, 0xC1, 0xFF)),
        (16_065 * 1024 - 1, (254, 0xFF, 0xFF)),
        (16_065 * 1024, (254, 0xFF, 0xFF)),
        (1 << 32, (254, 0xFF, 0xFF)),
    ],
)
def test_chs_is_recomputed_and_capped(lba: int, expected: tuple[int, int, int]) -> None:
    """R-TASK-FIX-2: 255 heads, 63 sectors, at most cylinder 1023, head 254."""
    assert mbr.chs(lba) == bytes(expected)


def test_the_boot_sector_is_written_last_and_a_new_record_first() -> None:
    """R-TASK-FIX-11: a crash between two writes leaves a valid chain."""
    inside = [Part(start=102_048, end=119_999), Part(start=122_048, end=139_999)]
    disk = mbr_disk(SIZE, [Part(start=2048, end=99_999), CONTAINER], inside)
    table = parse(disk.read, SIZE)
    swap = Partition(number=7, start=302_048, end=399_999, type="0x82", kind="logical")
    edit = Edit(ends=((6, 299_999), (2, 399_999)), added=(swap,), ebr=300_000)
    lbas = [write.lba for step in steps(table, edit) for write in step]
    assert lbas == [300_000, 120_000, 100_000, 0]
    assert all(len(step) == 1 for step in steps(table, edit))


def test_records_of_other_logical_partitions_stay_as_they_are() -> None:
    """R-TASK-FIX-2: growing the third changes its record, and the link to it, only."""
    inside = [Part(start=102_048 + 20_000 * i, end=119_999 + 20_000 * i) for i in range(3)]
    disk = mbr_disk(SIZE, [Part(start=2048, end=99_999), CONTAINER], inside)
    writes = written(disk, Edit(ends=((7, 189_999),)))
    assert [lba for lba, _ in writes] == [140_000, 120_000]


@settings(deadline=None)
@given(sector=st.binary(min_size=512, max_size=512), noise=st.binary(min_size=512, max_size=512))
def test_any_bytes_are_a_table_or_a_clear_error(sector: bytes, noise: bytes) -> None:
    """R-TASK-FIX-4: no other exception, whatever the image holds; every sector of the disk is noise."""
    data = sector[:510] + b"\x55\xaa"
    table_bytes = bytes(
        byte & 0x80 if index % 16 == 14 and index >= 446 else byte for index, byte in enumerate(data)
    )

    def read(lba: int, count: int) -> bytes:
        return (table_bytes if lba == 0 else noise[:510] + b"\x55\xaa") * count

    with contextlib.suppress(ImageError):
        assert parse(read, SIZE).partitions
