"""GPT: whichever copy is whole, and edits that keep every identity."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layouts import BIOS_BOOT_GUID, DISK_GUID, ESP_GUID, LINUX_GUID, Part, SparseDisk, gpt_disk, guid
from snf_image_helper.errors import ImageError
from snf_image_helper.partition_table import parse
from snf_image_helper.partition_table.change import steps
from snf_image_helper.partition_table.gpt import GptTable
from snf_image_helper.partition_table.plan import plan
from snf_image_helper.partition_table.table import Edit

IMAGE = 600_000
DISK = 1_000_000
END = (DISK - 2048) // 2048 * 2048 - 1
PARTS = {
    1: Part(start=262_144, end=500_000, type=LINUX_GUID, name="root"),
    14: Part(start=2048, end=8191, type=BIOS_BOOT_GUID),
    15: Part(start=8192, end=262_143, type=ESP_GUID, name="EFI System Partition"),
}


def read_gpt(disk: SparseDisk) -> GptTable:
    table = parse(disk.read, disk.sectors)
    assert isinstance(table, GptTable)
    return table


def fix(disk: SparseDisk) -> tuple[list[int], tuple[str, ...]]:
    """Plan and write; the sectors in the order in which they were written, and the warnings."""
    table = read_gpt(disk)
    edit = plan(table, None)
    lbas = []
    for step in steps(table, edit):
        for write in step:
            disk.write(write.lba, write.data)
            lbas.append(write.lba)
    return lbas, edit.warnings


def check_copies(disk: SparseDisk) -> None:
    """Both headers and arrays, told by nothing but the UEFI layout."""
    last = disk.sectors - 1
    arrays = []
    for lba, alternate in ((1, last), (last, 1)):
        header = disk.read(lba, 1)
        fields = struct.unpack("<8sIIIIQQQQ16sQIII", header[:92])
        assert fields[:2] == (b"EFI PART", 0x10000)
        assert zlib.crc32(header[:16] + bytes(4) + header[20:92]) == fields[3]
        assert fields[5:7] == (lba, alternate)
        assert fields[8] == last - 33
        assert fields[9] == DISK_GUID.bytes_le
        array = disk.read(fields[10], 32)
        assert zlib.crc32(array) == fields[13]
        arrays.append(array)
    assert arrays[0] == arrays[1]
    assert disk.read(0, 1)[446 + 8 : 446 + 16] == struct.pack("<II", 1, last)


def test_names_with_spaces_and_control_characters_are_data() -> None:
    """R-DET-9, T-53: no phantom partition, nothing interpreted."""
    parts = PARTS | {2: Part(start=500_001, end=500_002, type=LINUX_GUID, name="a\x1b[2J\n1 2 3\t")}
    table = read_gpt(gpt_disk(IMAGE, parts))
    assert {part.number: part.name for part in table.partitions} == {
        1: "root", 2: "a\x1b[2J\n1 2 3\t", 14: "", 15: "EFI System Partition",
    }  # fmt: skip


def test_a_grown_disk_gets_its_backup_at_the_end() -> None:
    """R-TASK-FIX-3, R-TASK-FIX-11: backup array and header, protective MBR, primary array and header."""
    disk = gpt_disk(IMAGE, PARTS).grown(DISK)
    lbas, warnings = fix(disk)
    assert lbas == [DISK - 33, DISK - 1, 0, 2, 1]
    assert warnings == ()
    check_copies(disk)


def test_identities_are_kept() -> None:
    """R-TASK-FIX-2, R-TASK-FIX-3, T-58: GUIDs, names, attributes, boot code; only one number changes."""
    disk = gpt_disk(IMAGE, PARTS).grown(DISK)
    array, boot = disk.read(2, 32), disk.read(0, 1)
    fix(disk)
    expected = bytearray(array)
    struct.pack_into("<Q", expected, 40, END)
    assert disk.read(2, 32) == bytes(expected)
    assert disk.read(0, 1)[:446] == boot[:446]
    assert read_gpt(disk).partitions[0].uuid == str(guid(1))


def test_a_table_that_is_right_is_not_written() -> None:
    """R-TASK-FIX-2: nothing to change, nothing to write."""
    disk = gpt_disk(IMAGE, PARTS | {1: Part(start=262_144, end=IMAGE - 40, type=LINUX_GUID)})
    held = dict(disk.held)
    lbas, warnings = fix(disk)
    assert lbas == []
    assert disk.held == held
    assert "partition 1 is not enlarged" in warnings[0]


@pytest.mark.parametrize("what", ["header", "array", "signature"])
@pytest.mark.parametrize("disk_sectors", [IMAGE, DISK])
def test_a_damaged_primary_is_rebuilt_from_the_backup(what: str, disk_sectors: int) -> None:
    """R-TASK-FIX-3: also when the backup lies where the smaller image ended."""
    disk = gpt_disk(IMAGE, PARTS).grown(disk_sectors)
    lba, at = {"header": (1, 40), "array": (2, 33), "signature": (1, 0)}[what]
    damage(disk, lba, at)
    _, warnings = fix(disk)
    assert "the primary copy of the GPT is damaged" in warnings[0]
    check_copies(disk)
    assert [part.number for part in read_gpt(disk).partitions] == [1, 14, 15]


@pytest.mark.parametrize("lba", [IMAGE - 1, IMAGE - 33])
def test_a_damaged_backup_is_rebuilt_from_the_primary(lba: int) -> None:
    """R-TASK-FIX-3: on a disk as large as the image, where nothing else would be written."""
    disk = gpt_disk(IMAGE, PARTS | {1: Part(start=262_144, end=IMAGE - 40, type=LINUX_GUID)})
    damage(disk, lba, 50)
    lbas, warnings = fix(disk)
    assert lbas
    assert "the backup copy of the GPT is damaged or missing" in warnings[0]
    check_copies(disk)


def test_copies_that_disagree() -> None:
    """R-TASK-FIX-3: the primary counts, the backup is renewed, the user is told."""
    disk = gpt_disk(IMAGE, PARTS | {1: Part(start=262_144, end=IMAGE - 40, type=LINUX_GUID)})
    other = gpt_disk(IMAGE, {1: Part(start=4096, end=5000, type=ESP_GUID)})
    disk.write(IMAGE - 33, other.read(IMAGE - 33, 33))
    _, warnings = fix(disk)
    assert "the two copies of the GPT differ" in warnings[0]
    check_copies(disk)
    assert [part.number for part in read_gpt(disk).partitions] == [1, 14, 15]


def test_both_copies_damaged() -> None:
    """R-TASK-FIX-3: an error, and not an empty disk."""
    disk = gpt_disk(IMAGE, PARTS)
    damage(disk, 1, 60)
    damage(disk, IMAGE - 1, 60)
    with pytest.raises(ImageError, match="both copies of the GPT are damaged"):
        parse(disk.read, IMAGE)


def test_a_protective_mbr_alone() -> None:
    """R-TASK-FIX-3: GPT and MBR disagree: a protective entry, and no GPT."""
    disk = gpt_disk(IMAGE, PARTS)
    disk.held = {0: disk.held[0]}
    with pytest.raises(ImageError, match="both copies of the GPT are damaged"):
        parse(disk.read, IMAGE)


def test_a_gpt_made_for_large_sectors_is_told() -> None:
    """R-DET-2: a dump of a disk with sectors of 4096 bytes."""
    disk = gpt_disk(IMAGE, PARTS)
    disk.held = {0: disk.held[0], 8: disk.held[1]}
    with pytest.raises(ImageError, match="sectors of 4096 bytes"):
        parse(disk.read, IMAGE)


def test_a_gpt_without_protective_mbr_is_an_mbr() -> None:
    """R-DET-2: as the kernel sees it; a stale GPT must not be revived."""
    disk = gpt_disk(IMAGE, PARTS)
    boot = bytearray(disk.read(0, 1))
    boot[446 + 4] = 0x83
    disk.write(0, bytes(boot))
    table = parse(disk.read, IMAGE)
    assert (table.label, [part.number for part in table.partitions]) == ("mbr", [1])


def test_entries_of_a_hybrid_mbr_are_kept() -> None:
    """R-TASK-FIX-3: with a warning; the GPT counts."""
    foreign = Part(start=262_144, end=500_000, type=0x83, active=True)
    disk = gpt_disk(IMAGE, PARTS, hybrid=[foreign]).grown(DISK)
    before = disk.read(0, 1)
    _, warnings = fix(disk)
    assert "hybrid MBR: entries 2 (0x83) are kept" in warnings[0]
    after = disk.read(0, 1)
    assert after[462:] == before[462:]
    assert after[:446] == before[:446]
    check_copies(disk)


def test_the_small_protective_entry_of_a_hybrid_mbr_is_kept() -> None:
    """R-TASK-FIX-3: it guards the table only; what lies behind belongs to other entries."""
    disk = gpt_disk(IMAGE, PARTS, hybrid=[Part(start=2048, end=8191, type=0x0C)]).grown(DISK)
    boot = bytearray(disk.read(0, 1))
    struct.pack_into("<II", boot, 446 + 8, 1, 2047)
    disk.write(0, bytes(boot))
    fix(disk)
    assert disk.read(0, 1) == bytes(boot)


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [(80, "<I", 0), (80, "<I", 0xFFFFFFFF), (84, "<I", 64), (84, "<I", 0x80000000), (84, "<I", 130)],
)
def test_absurd_numbers_of_entries(at: int, form: str, value: int) -> None:
    """R-TASK-FIX-4: bounded before anything is read or reserved."""
    disk = gpt_disk(IMAGE, PARTS)
    reheader(disk, 1, at, form, value)
    with pytest.raises(ImageError, match="GPT entries of"):
        parse(disk.read, IMAGE)


@pytest.mark.parametrize("value", [0, 1, IMAGE, 1 << 63])
def test_an_array_outside_of_the_disk_is_damage(value: int) -> None:
    """R-TASK-FIX-3: the header is whole and says nonsense, so the other copy counts."""
    disk = gpt_disk(IMAGE, PARTS)
    reheader(disk, 1, 72, "<Q", value)
    assert "the primary copy of the GPT is damaged" in read_gpt(disk).warnings[0]


def test_an_entry_that_ends_before_it_begins() -> None:
    """R-TASK-FIX-4."""
    disk = gpt_disk(IMAGE, {3: Part(start=5000, end=4000, type=LINUX_GUID)})
    with pytest.raises(ImageError, match="partition 3: ends at sector 4000, before its start 5000"):
        parse(disk.read, IMAGE)


def test_a_backup_that_the_truncated_disk_lacks() -> None:
    """R-TASK-FIX-3, R-TASK-FIX-4: a disk smaller than the image; partitions beyond it are an error."""
    disk = gpt_disk(IMAGE, PARTS).grown(400_000)
    with pytest.raises(ImageError, match="partition 1: sectors 262144 to 500000: beyond the disk"):
        fix(disk)


def test_a_crash_between_any_two_writes_leaves_a_whole_copy() -> None:
    """R-TASK-FIX-11: after each step alone, the table is the old one or the new one."""
    before = gpt_disk(IMAGE, PARTS).grown(DISK)
    table = read_gpt(before)
    edit = plan(table, None)
    views = {table.partitions, edit.applied(table.partitions)}
    done = steps(table, edit)
    for count in range(len(done) + 1):
        disk = before.grown(DISK)
        for step in done[:count]:
            for write in step:
                disk.write(write.lba, write.data)
        assert read_gpt(disk).partitions in views


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_mended_or_a_clear_error(data: st.DataObject) -> None:
    """R-TASK-FIX-3, R-TASK-FIX-4: bit flips raise nothing but errors about the image."""
    disk = gpt_disk(IMAGE, PARTS).grown(DISK)
    for _ in range(data.draw(st.integers(1, 4))):
        lba = data.draw(st.sampled_from([0, 1, 2, IMAGE - 33, IMAGE - 1]))
        damage(disk, lba, data.draw(st.integers(0, 511)), 1 << data.draw(st.integers(0, 7)))
    with contextlib.suppress(ImageError):
        table = parse(disk.read, DISK)
        plan(table, None)
        assert table.partitions


def test_an_edit_without_changes_reports_none() -> None:
    """R-TASK-FIX-2: what a plan of nothing says."""
    assert not Edit().changes


def damage(disk: SparseDisk, lba: int, at: int, mask: int = 0xFF) -> None:
    sector = bytearray(disk.read(lba, 1))
    sector[at] ^= mask
    disk.write(lba, bytes(sector))


def reheader(disk: SparseDisk, lba: int, at: int, form: str, value: int) -> None:
    """Change a header's field and make its CRC right again."""
    header = bytearray(disk.read(lba, 1))
    struct.pack_into(form, header, at, value)
    struct.pack_into("<I", header, 16, 0)
    struct.pack_into("<I", header, 16, zlib.crc32(header[:92]))
    disk.write(lba, bytes(header))
