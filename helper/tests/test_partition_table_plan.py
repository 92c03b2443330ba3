"""What FixPartitionTable decides, written to disks in memory and read again."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layouts import BIOS_BOOT_GUID, ESP_GUID, LINUX_GUID, SWAP_GUID, Part, SparseDisk, gpt_disk, mbr_disk
from snf_image_contract.job import SwapPartition
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.partition_table import Partition, Table, parse, resize_partition
from snf_image_helper.partition_table.change import steps
from snf_image_helper.partition_table.plan import plan
from snf_image_helper.partition_table.table import Edit, by_number

GIB = 2097152
"""Sectors in a gibibyte."""


def edit_disk(disk: SparseDisk, swap: SwapPartition | None = None) -> tuple[Table, Edit]:
    """Plan and write; the table as it reads afterwards."""
    table = parse(disk.read, disk.sectors)
    edit = plan(table, swap)
    for step in steps(table, edit):
        for write in step:
            disk.write(write.lba, write.data)
    return parse(disk.read, disk.sectors), edit


def extents(table: Table) -> dict[int, tuple[int, int, str]]:
    return {part.number: (part.start, part.end, part.type) for part in table.partitions}


def swap_of(text: str) -> SwapPartition:
    number, _, megabytes = text.partition(":")
    return SwapPartition(number=int(number), megabytes=int(megabytes))


ROOT = Part(start=2048, end=2048 + GIB - 1)
END_4G = 4 * GIB - 2048 - 1


# -- growing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [0, 1, 2047, 100])
def test_the_last_partition_ends_on_a_mebibyte_and_a_mebibyte_stays_free(odd: int) -> None:
    """R-TASK-FIX-1: END = floor((N - 2048) / 2048) * 2048 - 1."""
    table, _ = edit_disk(mbr_disk(2 * GIB, [ROOT]).grown(4 * GIB + odd))
    assert extents(table) == {1: (2048, (4 * GIB + odd - 2048) // 2048 * 2048 - 1, "0x83")}


def test_an_mbr_partition_ends_below_two_to_the_32() -> None:
    """R-TASK-FIX-1: MBR cannot say more, and the user is told."""
    table, edit = edit_disk(mbr_disk(3 * GIB, [ROOT]).grown(5 << 32))
    assert extents(table)[1] == (2048, (1 << 32) - 1, "0x83")
    assert "2 TiB" in edit.warnings[0]


def test_a_gpt_partition_grows_beyond_two_to_the_32() -> None:
    """R-TASK-FIX-1, R-TASK-FIX-3: and the protective entry is capped."""
    disk = gpt_disk(2 * GIB, {1: Part(start=2048, end=GIB - 1, type=LINUX_GUID)}).grown(5 << 32)
    table, _ = edit_disk(disk)
    assert extents(table)[1][1] == (5 << 32) - 2048 - 1
    assert disk.read(0, 1)[446 + 8 : 446 + 16] == b"\x01\0\0\0\xff\xff\xff\xff"


def test_the_partition_with_the_highest_end_grows_not_the_highest_number() -> None:
    """R-GROW-1, R-GROW-3, T-52: root as number 1 lies behind 14 and 15, as on many cloud images."""
    parts = {
        1: Part(start=262144, end=GIB - 1, type=LINUX_GUID),
        14: Part(start=2048, end=8191, type=BIOS_BOOT_GUID),
        15: Part(start=8192, end=262143, type=ESP_GUID, name="EFI System Partition"),
    }
    before = gpt_disk(GIB + 2048, parts).grown(4 * GIB)
    assert resize_partition(parse(before.read, before.sectors)) == 1
    table, edit = edit_disk(before)
    assert edit.ends == ((1, END_4G),)
    assert extents(table)[15] == (8192, 262143, ESP_GUID)


def test_a_primary_behind_the_container_grows_in_its_place() -> None:
    """R-GROW-1, T-51: the extended partition in the middle keeps its end."""
    primaries = [
        ROOT,
        Part(start=4 * 1048576, end=5 * 1048576 - 1, type=0x0F),
        Part(start=5 * 1048576, end=6 * 1048576 - 1),
    ]
    inside = [Part(start=4 * 1048576 + 2048, end=5 * 1048576 - 1)]
    table, edit = edit_disk(mbr_disk(4 * GIB, primaries, inside).grown(8 * GIB))
    assert edit.ends == ((3, 8 * GIB - 2049),)
    assert extents(table)[2][:2] == (4 * 1048576, 5 * 1048576 - 1)


def test_container_and_its_physically_last_logical_partition_grow_together() -> None:
    """R-GROW-1: number 6 comes first on the disk here, number 5 last."""
    primaries = [ROOT, Part(start=4 * 1048576, end=6 * 1048576 - 1, type=0x05)]
    inside = [
        Part(start=5 * 1048576, end=6 * 1048576 - 1),
        Part(start=4 * 1048576 + 4096, end=5 * 1048576 - 4097),
    ]
    disk = mbr_disk(4 * GIB, primaries, inside).grown(8 * GIB)
    assert resize_partition(parse(disk.read, disk.sectors)) == 5
    table, edit = edit_disk(disk)
    assert dict(edit.ends) == {2: 8 * GIB - 2049, 5: 8 * GIB - 2049}
    assert extents(table)[6][:2] == (4 * 1048576 + 4096, 5 * 1048576 - 4097)


@pytest.mark.parametrize(
    "kind",
    [
        SWAP_GUID,
        ESP_GUID,
        BIOS_BOOT_GUID,
        "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
        "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
        "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC",
    ],
)
def test_boot_swap_and_recovery_partitions_at_the_end_are_not_enlarged(kind: str) -> None:
    """R-GROW-2, T-60: a warning, and the tasks go on; no file system is to be resized."""
    parts = {
        1: Part(start=2048, end=GIB - 1, type=LINUX_GUID),
        2: Part(start=GIB, end=GIB + 409599, type=kind),
    }
    disk = gpt_disk(2 * GIB, parts).grown(4 * GIB)
    assert resize_partition(parse(disk.read, disk.sectors)) is None
    table, edit = edit_disk(disk)
    assert edit.ends == ()
    assert "partition 2 is not enlarged" in edit.warnings[0]
    assert extents(table)[2] == (GIB, GIB + 409599, kind)


@pytest.mark.parametrize("kind", [0x82, 0xEF, 0x41, 0x27])
def test_mbr_types_that_are_not_enlarged(kind: int) -> None:
    """R-GROW-2, T-60."""
    last = Part(start=GIB * 2, end=GIB * 2 + 409599, type=kind)
    disk = mbr_disk(3 * GIB, [ROOT, last]).grown(4 * GIB)
    assert resize_partition(parse(disk.read, disk.sectors)) is None
    assert edit_disk(disk)[1].ends == ()


def test_a_swap_partition_is_still_created_behind_one_that_does_not_grow() -> None:
    """R-GROW-2."""
    parts = {
        1: Part(start=2048, end=GIB - 1, type=LINUX_GUID),
        2: Part(start=GIB, end=GIB + 2047, type=ESP_GUID),
    }
    table, edit = edit_disk(gpt_disk(2 * GIB, parts).grown(4 * GIB), swap_of("3:64"))
    assert edit.ends == ()
    assert extents(table)[3] == (END_4G - 64 * 2048 + 1, END_4G, SWAP_GUID)


@pytest.mark.parametrize("missing", [1, 2047, 2048])
def test_a_disk_as_large_as_the_image_changes_nothing(missing: int) -> None:
    """R-TASK-FIX-2, T-54: the partition ends at or behind END: it does not shrink, nothing fails."""
    part = Part(start=2048, end=GIB - missing - 1)
    disk = mbr_disk(GIB, [part])
    before = dict(disk.held)
    table, edit = edit_disk(disk)
    assert disk.held == before
    assert extents(table)[1][1] == part.end
    assert resize_partition(table) == 1
    assert "partition 1 is not enlarged" in edit.warnings[0]


# -- swap -----------------------------------------------------------------------------------------


def test_the_swap_partition_gets_exactly_the_number_asked_for() -> None:
    """R-TASK-FIX-6, T-55, T-137: number 3 stays free."""
    second = Part(start=2048 + GIB, end=2047 + GIB * 2)
    table, _ = edit_disk(mbr_disk(3 * GIB, [ROOT, second]).grown(4 * GIB), swap_of("4:256"))
    assert extents(table) == {
        1: (ROOT.start, ROOT.end, "0x83"),
        2: (second.start, END_4G - 256 * 2048, "0x83"),
        4: (END_4G - 256 * 2048 + 1, END_4G, "0x82"),
    }


def test_a_gap_in_gpt_numbers_does_not_move_the_swap() -> None:
    """R-TASK-FIX-5, R-TASK-FIX-6, T-127, T-137: number 7 it is, and it ends at END."""
    parts = {
        1: Part(start=2048, end=GIB - 1, type=LINUX_GUID),
        5: Part(start=GIB, end=GIB + 2047, type=LINUX_GUID),
    }
    table, edit = edit_disk(gpt_disk(2 * GIB, parts).grown(4 * GIB), swap_of("7:128"))
    assert extents(table)[7] == (END_4G - 128 * 2048 + 1, END_4G, SWAP_GUID)
    assert extents(table)[5][1] == END_4G - 128 * 2048
    new = table.find(7)
    assert new is not None
    assert new.name == "swap"
    assert new.uuid not in {part.uuid for part in table.partitions if part.number != 7}
    assert edit.added[0].uuid == new.uuid


def test_the_size_is_counted_in_mebibytes_only() -> None:
    """R-TASK-FIX-5, T-56: exactly what fits, fits; one MiB more is refused in the same unit."""
    disk = mbr_disk(3 * GIB, [Part(start=2048, end=GIB - 1)]).grown(4 * GIB)
    room = (END_4G + 1 - GIB) // 2048
    table, _ = edit_disk(disk.grown(4 * GIB), swap_of(f"2:{room}"))
    assert extents(table)[2] == (GIB, END_4G, "0x82")
    with pytest.raises(RequestError, match=rf"not enough space: {room + 1} MiB .* 1 MiB too small"):
        edit_disk(disk.grown(4 * GIB), swap_of(f"2:{room + 1}"))


def test_not_enough_space_says_the_numbers() -> None:
    """R-TASK-FIX-5: the sectors of the request and of the disk."""
    disk = mbr_disk(3 * GIB, [ROOT]).grown(3 * GIB)
    with pytest.raises(RequestError) as caught:
        edit_disk(disk, swap_of("2:4096"))
    text = str(caught.value)
    assert "SWAP=2:4096" in text
    assert f"partition 1 ends at sector {ROOT.end} of {3 * GIB}" in text


def test_logical_swap_on_one_primary() -> None:
    """R-TASK-FIX-7: primary 1, container 2, swap 5; T-57: all on mebibytes."""
    table, edit = edit_disk(mbr_disk(2 * GIB, [ROOT]).grown(4 * GIB), swap_of("5:512"))
    start = END_4G - 512 * 2048 + 1
    assert extents(table) == {
        1: (2048, start - 2049, "0x83"),
        2: (start - 2048, END_4G, "0x0f"),
        5: (start, END_4G, "0x82"),
    }
    assert all(part.start % 2048 == 0 for part in table.partitions)
    assert edit.ebr == start - 2048


def test_the_new_container_takes_the_lowest_free_number() -> None:
    """R-TASK-FIX-7: slot 1 is free here; and no free slot is an error."""
    other = Part(start=2048 + GIB, end=2047 + GIB * 2)
    table, _ = edit_disk(mbr_disk(3 * GIB, [None, ROOT, other]).grown(4 * GIB), swap_of("5:64"))
    assert {part.number: part.kind for part in table.partitions} == {
        1: "extended", 2: "primary", 3: "primary", 5: "logical",
    }  # fmt: skip
    full = [Part(start=2048 * (1 + i), end=2048 * (2 + i) - 1) for i in range(4)]
    with pytest.raises(RequestError, match="none of the four primary entries is free"):
        edit_disk(mbr_disk(GIB, full).grown(4 * GIB), swap_of("5:64"))
    with pytest.raises(RequestError, match="the first logical partition gets number 5"):
        edit_disk(mbr_disk(3 * GIB, [ROOT]).grown(4 * GIB), swap_of("6:64"))


CONTAINER = Part(start=GIB + 2048, end=2 * GIB - 1, type=0x0F)


def test_swap_in_an_empty_container() -> None:
    """R-TASK-FIX-8, T-50: the swap lies inside of the container, which reaches END."""
    table, _ = edit_disk(mbr_disk(3 * GIB, [ROOT, CONTAINER]).grown(4 * GIB), swap_of("5:512"))
    assert extents(table)[2] == (CONTAINER.start, END_4G, "0x0f")
    assert extents(table)[5] == (END_4G - 512 * 2048 + 1, END_4G, "0x82")
    assert extents(table)[1] == (ROOT.start, ROOT.end, "0x83")


def test_swap_in_a_container_that_was_never_initialised() -> None:
    """R-TASK-FIX-8, T-50: no record at all in its first sector."""
    disk = mbr_disk(3 * GIB, [ROOT, CONTAINER]).grown(4 * GIB)
    del disk.held[CONTAINER.start]
    table, _ = edit_disk(disk, swap_of("5:512"))
    assert extents(table)[5] == (END_4G - 512 * 2048 + 1, END_4G, "0x82")


def test_swap_behind_logical_partitions() -> None:
    """R-TASK-FIX-8: the last logical one ends right before the new record."""
    logical = Part(start=CONTAINER.start + 2048, end=CONTAINER.end)
    table, edit = edit_disk(mbr_disk(3 * GIB, [ROOT, CONTAINER], [logical]).grown(4 * GIB), swap_of("6:512"))
    start = END_4G - 512 * 2048 + 1
    assert edit.ebr == start - 2048
    assert extents(table) == {
        1: (ROOT.start, ROOT.end, "0x83"),
        2: (CONTAINER.start, END_4G, "0x0f"),
        5: (logical.start, start - 2049, "0x83"),
        6: (start, END_4G, "0x82"),
    }


def test_a_logical_swap_states_the_number_it_would_get() -> None:
    """R-TASK-FIX-8."""
    logical = Part(start=CONTAINER.start + 2048, end=CONTAINER.end)
    with pytest.raises(RequestError, match="SWAP=9:512: a new logical partition would get number 6"):
        edit_disk(mbr_disk(3 * GIB, [ROOT, CONTAINER], [logical]).grown(4 * GIB), swap_of("9:512"))


def test_a_container_that_is_not_last_takes_no_swap() -> None:
    """R-TASK-FIX-8: it cannot be enlarged."""
    behind = Part(start=2 * GIB, end=2 * GIB + 4095)
    with pytest.raises(RequestError, match="partition 3 lies behind it"):
        edit_disk(mbr_disk(3 * GIB, [ROOT, CONTAINER, behind]).grown(4 * GIB), swap_of("5:64"))


def test_primary_swap_behind_the_container() -> None:
    """R-TASK-FIX-9: container and last logical end at END-S."""
    logical = Part(start=CONTAINER.start + 2048, end=CONTAINER.end)
    table, _ = edit_disk(mbr_disk(3 * GIB, [ROOT, CONTAINER], [logical]).grown(4 * GIB), swap_of("3:512"))
    start = END_4G - 512 * 2048 + 1
    assert extents(table) == {
        1: (ROOT.start, ROOT.end, "0x83"),
        2: (CONTAINER.start, start - 1, "0x0f"),
        3: (start, END_4G, "0x82"),
        5: (logical.start, start - 1, "0x83"),
    }


def test_an_existing_swap_partition_is_kept() -> None:
    """R-TASK-FIX-10: of a disk cloned from an instance; large enough is enough."""
    swap = Part(start=2048 + GIB, end=2047 + GIB + 300 * 2048, type=0x82)
    disk = mbr_disk(3 * GIB, [ROOT, swap]).grown(4 * GIB)
    table, edit = edit_disk(disk, swap_of("2:256"))
    assert edit.added == ()
    assert extents(table)[2] == (swap.start, swap.end, "0x82")
    assert "is kept" in edit.warnings[0]


@pytest.mark.parametrize(
    ("asked", "problem"),
    [("1:64", "exists and is no swap partition"), ("2:301", "exists and has 300 MiB only")],
)
def test_an_existing_partition_that_will_not_do_is_an_error(asked: str, problem: str) -> None:
    """R-TASK-FIX-10."""
    swap = Part(start=2048 + GIB, end=2047 + GIB + 300 * 2048, type=0x82)
    with pytest.raises(RequestError, match=problem):
        edit_disk(mbr_disk(3 * GIB, [ROOT, swap]).grown(4 * GIB), swap_of(asked))


def test_a_number_outside_of_the_gpt_is_an_error() -> None:
    """R-TASK-FIX-6: within the table."""
    parts = {1: Part(start=2048, end=GIB - 1, type=LINUX_GUID)}
    with pytest.raises(RequestError, match="the partition table has 128 entries"):
        edit_disk(gpt_disk(2 * GIB, parts).grown(4 * GIB), swap_of("129:64"))


def test_an_absurd_swap_size_is_refused() -> None:
    """R-TASK-FIX-5: larger than any disk."""
    with pytest.raises(RequestError, match="not enough space"):
        edit_disk(mbr_disk(3 * GIB, [ROOT]).grown(4 * GIB), swap_of(f"2:{10**18}"))


# -- unusable tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (
            [Part(start=2048, end=9999), Part(start=9999, end=20000)],
            "partitions 1 and 2 overlap at sector 9999",
        ),
        ([Part(start=2048, end=9 * GIB)], "beyond the disk"),
        ([Part(start=0, end=9999)], "overlaps the partition table"),
    ],
)
def test_overlapping_and_impossible_mbr_entries(parts: list[Part], problem: str) -> None:
    """R-TASK-FIX-4."""
    with pytest.raises(ImageError, match=problem):
        edit_disk(mbr_disk(4 * GIB, parts))


def linux(start: int, end: int) -> Part:
    return Part(start=start, end=end, type=LINUX_GUID)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({1: linux(2048, 9999), 3: linux(4096, 4097)}, "1 and 3 overlap"),
        ({1: linux(2048, 4 * GIB)}, "beyond the disk"),
        ({1: linux(20, 2047)}, "overlaps the partition table"),
        ({1: linux(2048, 4 * GIB - 5)}, "no room for the backup"),
        ({}, "no partition found on the disk"),
    ],
)
def test_overlapping_and_impossible_gpt_entries(parts: dict[int, Part], problem: str) -> None:
    """R-TASK-FIX-4."""
    with pytest.raises(ImageError, match=problem):
        edit_disk(gpt_disk(4 * GIB, parts))


@pytest.mark.parametrize(
    ("logical", "problem"),
    [
        (Part(start=CONTAINER.start + 2048, end=CONTAINER.end + 1), "leaves the extended partition"),
        (Part(start=CONTAINER.start, end=CONTAINER.end), "leaves the extended partition"),
    ],
)
def test_a_logical_partition_that_leaves_its_container(logical: Part, problem: str) -> None:
    """R-TASK-FIX-4."""
    with pytest.raises(ImageError, match=problem):
        edit_disk(mbr_disk(4 * GIB, [ROOT, CONTAINER], [logical]))


# -- properties -----------------------------------------------------------------------------------

sizes = st.integers(min_value=1, max_value=40_000)
gaps = st.sampled_from([0, 0, 1, 63, 2048, 5000])


@st.composite
def layouts(draw: st.DrawFn) -> SparseDisk:
    """Disks with partitions in any order of numbers, aligned or not, on a disk as large or larger."""
    gpt = draw(st.booleans())
    count = draw(st.integers(min_value=1, max_value=4 if not gpt else 9))
    numbers = draw(st.permutations(range(1, 5 if not gpt else 12)))[:count]
    at, parts = 2048, {}
    types: list[int | str] = [LINUX_GUID, LINUX_GUID, ESP_GUID, SWAP_GUID] if gpt else [0x83, 0x83, 0x82, 7]
    kinds = st.sampled_from(types)
    container = draw(st.sampled_from([None, *numbers])) if not gpt else None
    logicals: list[Part] = []
    for number in numbers:
        start = at + draw(gaps)
        if number == container:
            inside = start
            for _ in range(draw(st.integers(min_value=0, max_value=4))):
                begin = inside + 2048 + draw(gaps)
                logicals.append(Part(start=begin, end=begin + draw(sizes) - 1, type=draw(kinds)))
                inside = logicals[-1].end + 1
            end = max(inside + draw(gaps), start + 2048)
            parts[number] = Part(start=start, end=end, type=0x0F)
        else:
            parts[number] = Part(start=start, end=start + draw(sizes) - 1, type=draw(kinds))
        at = parts[number].end + 1
    image = at + draw(st.integers(min_value=2100, max_value=5000))
    if gpt:
        disk = gpt_disk(image, parts)
    else:
        disk = mbr_disk(image, [parts.get(number) for number in range(1, 5)], logicals)
    return disk.grown(image + draw(st.sampled_from([0, 300_000, 600_001])))


@settings(deadline=None, max_examples=300)
@given(
    disk=layouts(),
    swap=st.none()
    | st.builds(
        SwapPartition,
        number=st.integers(3, 7) | st.integers(1, 12),
        megabytes=st.integers(1, 40) | st.integers(1, 400),
    ),
)
def test_any_edit_keeps_what_it_must(disk: SparseDisk, swap: SwapPartition | None) -> None:
    """R-TASK-FIX-2, R-TASK-FIX-5, R-TASK-FIX-6, R-GROW-2, T-57, T-58: an edit is refused, or it is right."""
    before = parse(disk.read, disk.sectors)
    boot = disk.read(0, 1)
    held = dict(disk.held)
    try:
        after, edit = edit_disk(disk, swap)
    except TaskError:
        assert disk.held == held
        return
    assert by_number(after.partitions) == edit.applied(before.partitions)
    end = (disk.sectors - 2048) // 2048 * 2048 - 1
    for old in before.partitions:
        new = after.find(old.number)
        assert new is not None
        assert (new.start, new.type, new.name, new.uuid, new.kind) == (
            old.start, old.type, old.name, old.uuid, old.kind,
        )  # fmt: skip
        assert new.end == old.end or old.end < new.end <= end
        assert new.end == old.end or (new.end + 1) % 2048 == 0
    assert disk.read(0, 1)[:446] == boot[:446]
    for new in edit.added:
        assert new.start % 2048 == 0
        assert new.end == end
    check_apart(after)
    if swap is not None:
        made = after.find(swap.number)
        assert made is not None
        assert made.sectors >= swap.megabytes * 2048
        assert made.sectors == swap.megabytes * 2048 or before.find(swap.number) == made
    # Doing it again changes nothing: a deployment that is repeated finds its work done.
    held = dict(disk.held)
    _, again = edit_disk(disk, swap)
    assert not again.changes
    assert disk.held == held


def check_apart(table: Table) -> None:
    """No two partitions share a sector, logical ones lie inside of the container, all on the disk."""
    outer = sorted((part for part in table.partitions if part.kind != "logical"), key=lambda part: part.start)
    inner = sorted((part for part in table.partitions if part.kind == "logical"), key=lambda part: part.start)
    for group in (outer, inner):
        for one, two in itertools.pairwise(group):
            assert one.end < two.start
    container: Partition | None = table.container
    assert all(container and container.start < part.start <= part.end <= container.end for part in inner)
    assert all(part.end < table.disk_sectors for part in table.partitions)
