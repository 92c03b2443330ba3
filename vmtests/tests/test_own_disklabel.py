"""Disklabels of images that somebody describes, built here by hand; the plugin reads one sector of them."""

from __future__ import annotations

import functools
import operator
import os
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snf_image_vmtests.disklabel import DisklabelError, Extent, read

MIB = 2048
SLICE = Extent(start=64, sectors=60 * MIB)
DISK = 64 * MIB
UNUSED, SWAP, FFS, MSDOS = 0, 1, 7, 8
Parts = dict[str, tuple[int, int, int]]
"""By letter: first sector, sectors, type."""
USUAL: Parts = {
    "a": (64, 20 * MIB, FFS),
    "b": (64 + 20 * MIB, MIB, SWAP),
    "e": (64 + 30 * MIB, 30 * MIB, FFS),
}
Geometry = tuple[int, int]
"""Sectors of a track, tracks of a cylinder."""


def label(
    parts: Parts, order: str = "<", *, count: int = 16, checksum: int = 0, geometry: Geometry = (63, 255)
) -> bytes:
    """A sector with every magic number in place; ``checksum`` is what is wrong with the right one."""
    data = bytearray(512)
    for at in (0, 132):
        struct.pack_into(f"{order}I", data, at, 0x82564557)
    struct.pack_into(f"{order}II", data, 44, *geometry)
    struct.pack_into(f"{order}H", data, 138, count)
    for letter, (start, size, kind) in parts.items():
        at = 148 + 16 * (ord(letter) - ord("a"))
        low = (size & 0xFFFFFFFF, start & 0xFFFFFFFF)
        struct.pack_into(f"{order}IIHHB", data, at, *low, start >> 32, size >> 32, kind)
    words = struct.unpack_from(f"{order}{(148 + 16 * min(count, 22)) // 2}H", data)
    struct.pack_into(f"{order}H", data, 136, functools.reduce(operator.xor, words) ^ checksum)
    return bytes(data)


def disk(directory: object, sector: bytes) -> str:
    """A sparse disk whose slice has ``sector`` for its second one."""
    path = os.path.join(str(directory), "disk.raw")
    with open(path, "wb") as file:
        file.truncate(DISK * 512)
        file.seek((SLICE.start + 1) * 512)
        file.write(sector)
    return path


def found(directory: object, sector: bytes, family: str = "openbsd") -> dict[str, tuple[int, int]] | None:
    read_label = read(disk(directory, sector), SLICE, family)
    if read_label is None:
        return None
    return {letter: (part.start, part.sectors) for letter, part in read_label.partitions.items()}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("family", ["netbsd", "openbsd"])
def test_partitions_in_use_are_found_in_either_byte_order(tmp_path: object, family: str, order: str) -> None:
    """What stands for the whole disk or slice is none of them."""
    parts = USUAL | {"c": (0, DISK, UNUSED), "f": (64, 0, FFS), "g": (64, MIB, UNUSED)}
    expected = {letter: (start, size) for letter, (start, size, _) in USUAL.items()}
    assert found(tmp_path, label(parts, order), family) == expected


def test_letters_for_the_whole_are_those_of_the_family(tmp_path: object) -> None:
    """c is none whatever its type says; d is one on OpenBSD alone."""
    parts: Parts = {"c": (0, DISK, FFS), "d": (64, MIB, FFS)}
    assert found(tmp_path, label(parts), "openbsd") == {"d": (64, MIB)}
    assert found(tmp_path, label(parts), "netbsd") == {}


def test_openbsd_counts_sectors_in_48_bits_and_netbsd_in_32(tmp_path: object) -> None:
    """NetBSD has the sizes of fragments in the place of the upper bits."""
    sector = label({"a": (64, MIB | 1 << 32, FFS)})
    with pytest.raises(DisklabelError, match="partition a of the disklabel lies outside of the disk"):
        found(tmp_path, sector, "openbsd")
    assert found(tmp_path, sector, "netbsd") == {"a": (64, MIB)}


def test_other_partitions_of_the_table_are_not_the_slices(tmp_path: object) -> None:
    """OpenBSD's label names an EFI system partition, too, which lies before or behind its own."""
    parts: Parts = {"a": USUAL["a"], "i": (1, 63, MSDOS), "j": (SLICE.end, MIB, MSDOS)}
    assert found(tmp_path, label(parts)) == {"a": (64, 20 * MIB)}


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cylinder_has_the_labels_own_size(tmp_path: object, order: str) -> None:
    seen = read(disk(tmp_path, label(USUAL, order, geometry=(32, 64))), SLICE, "openbsd")
    assert seen is not None
    assert seen.cylinder == 2048


@pytest.mark.parametrize("offset", [0, 132])
def test_a_label_has_both_magic_numbers(tmp_path: object, offset: int) -> None:
    """With one of them it is no label."""
    sector = bytearray(label(USUAL))
    sector[offset] ^= 1
    assert found(tmp_path, bytes(sector)) is None
    assert found(tmp_path, label(USUAL, "<")[:132] + label(USUAL, ">")[132:]) is None


def test_a_slice_or_a_disk_that_ends_before_its_second_sector_has_none(tmp_path: object) -> None:
    path = disk(tmp_path, label(USUAL))
    assert read(path, Extent(start=SLICE.start, sectors=1), "openbsd") is None
    assert read(path, Extent(start=DISK - 1, sectors=60), "openbsd") is None
    assert read(path, Extent(start=1 << 40, sectors=1 << 40), "openbsd") is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("sector", "words"),
    [
        ({"parts": {}, "count": 0}, "has 0 partitions, expected 1 to 22"),
        ({"parts": {}, "count": 23}, "has 23 partitions"),
        ({"parts": {}, "count": 0xFFFF}, "has 65535 partitions"),
        ({"parts": USUAL, "checksum": 1}, "checksum is wrong"),
        ({"parts": {"a": (64, 60 * MIB + 1, FFS)}}, "partition a of the disklabel leaves its slice"),
        ({"parts": {"a": (63, 2, FFS)}}, "partition a of the disklabel leaves its slice"),
        ({"parts": {"e": (0xFFFFFFFF, 0xFFFFFFFF, FFS)}}, "partition e of the disklabel lies outside"),
        ({"parts": {"e": (0, 0xFFFFFFFF, SWAP)}}, "partition e of the disklabel lies outside"),
        ({"parts": USUAL, "geometry": (0, 16)}, "cylinders have 0 sectors"),
        (
            {"parts": USUAL, "geometry": (0xFFFFFFFF, 0xFFFFFFFF)},
            "cylinders have 18446744065119617025 sectors",
        ),
        ({"parts": USUAL, "geometry": (1, SLICE.sectors + 1)}, "cylinders have"),
        ({"parts": USUAL | {"f": (64, 1, FFS)}}, "partitions a and f of the disklabel overlap"),
        ({"parts": USUAL | {"b": USUAL["a"]}}, "partitions a and b of the disklabel overlap"),
    ],
)
def test_hostile_labels_are_refused(tmp_path: object, sector: dict[str, Any], words: str, order: str) -> None:
    with pytest.raises(DisklabelError, match=words):
        found(tmp_path, label(order=order, **sector))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.sampled_from("<>"),
    family=st.sampled_from(("netbsd", "openbsd")),
    parts=st.dictionaries(
        st.sampled_from("abcdefghijklmnop"),
        st.tuples(
            st.integers(0, DISK) | st.integers(0, (1 << 48) - 1),
            st.integers(0, MIB) | st.integers(0, (1 << 48) - 1),
            st.integers(0, 255),
        ),
    ),
)
def test_whatever_a_label_says_the_partitions_lie_in_the_slice(
    tmp_path: object, order: str, family: str, parts: Parts
) -> None:
    """Or the label is refused, and nothing else is raised."""
    try:
        inside = read(disk(tmp_path, label(parts, order)), SLICE, family)
    except DisklabelError:
        return
    assert inside is not None
    previous = SLICE.start
    for part in sorted(inside.partitions.values(), key=lambda part: part.start):
        assert previous <= part.start < part.end <= SLICE.end
        previous = part.end
