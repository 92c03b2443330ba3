"""Disklabels of OpenBSD and NetBSD (R-TASK-FIX-12), against labels that are built here by hand."""

from __future__ import annotations

import functools
import operator
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_contract.names import OsFamily
from snf_image_helper.bsd.disklabel import FS_BSDFFS, FS_SWAP, enlarged, parse
from snf_image_helper.errors import ImageError

OPENBSD, NETBSD = OsFamily.OPENBSD, OsFamily.NETBSD
MIB = 2048
START = 64
Parts = dict[str, tuple[int, int, int]]
"""By letter: first sector, sectors, type."""
FFS: Parts = {"a": (START, 10 * MIB, FS_BSDFFS), "e": (START + 14 * MIB, 20 * MIB, FS_BSDFFS)}
SWAP_LAST: Parts = FFS | {"b": (START + 40 * MIB, 4 * MIB, FS_SWAP)}


def label(parts: Parts, *, disk: int = 64 * MIB, sectors: int = 63, tracks: int = 255) -> bytes:
    """A label sector with bytes of no known field set, so that a lost one shows."""
    data = bytearray(range(256)) * 2
    struct.pack_into("<I", data, 0, 0x82564557)
    struct.pack_into(
        "<6I", data, 40, 512, sectors, tracks, disk // (sectors * tracks), sectors * tracks, disk
    )
    data[64:72] = bytes.fromhex("0123456789abcdef")
    struct.pack_into("<H", data, 78, 0)
    struct.pack_into("<HI", data, 76, 0, START)
    struct.pack_into("<H", data, 112, 0)
    struct.pack_into("<I", data, 132, 0x82564557)
    struct.pack_into("<H", data, 138, 16)
    data[148 : 148 + 256] = bytes(256)
    for letter, (start, size, kind) in ({"c": (0, disk, 0)} | parts).items():
        at = 148 + 16 * (ord(letter) - ord("a"))
        struct.pack_into("<IIHHBBH", data, at, size, start, 0, 0, kind, 0x35, 0x1234)
    return sealed(data)


def sealed(data: bytearray) -> bytes:
    """With the checksum that makes all words up to the last partition XOR to nothing."""
    struct.pack_into("<H", data, 136, 0)
    words = struct.unpack_from("<202H", data)
    struct.pack_into("<H", data, 136, functools.reduce(operator.xor, words))
    return bytes(data)


def grown(
    parts: Parts, family: OsFamily, *, disk: int, slice_end: int, slice_start: int = START
) -> dict[str, int]:
    """Sectors of each partition after the label was enlarged."""
    before = parse(label(parts), family)
    assert before is not None
    after = parse(enlarged(before, disk_sectors=disk, slice_start=slice_start, slice_end=slice_end), family)
    assert after is not None
    return {entry.letter: entry.sectors for entry in after.partitions}


def test_a_label_is_told_by_both_magic_numbers() -> None:
    """R-TASK-FIX-12: no label is no error, a damaged one is."""
    good = label(FFS)
    found = parse(good, OPENBSD)
    assert found is not None
    assert found.duid == "0123456789abcdef"
    assert [entry.letter for entry in found.partitions] == ["a", "c", "e"]
    assert parse(bytes(512), OPENBSD) is None
    assert parse(good[:132] + b"\0" + good[133:], OPENBSD) is None
    assert parse(good[:100], OPENBSD) is None
    for at, byte in ((60, 1), (138, 99)):
        with pytest.raises(ImageError, match="damaged"):
            parse(good[:at] + bytes([good[at] ^ byte]) + good[at + 1 :], OPENBSD)


@pytest.mark.parametrize("family", [OPENBSD, NETBSD])
def test_the_last_partition_grows_and_nothing_else(family: OsFamily) -> None:
    """R-TASK-FIX-12: by its end, whatever its letter."""
    sizes = grown(FFS, family, disk=200 * MIB, slice_end=199 * MIB)
    assert sizes["a"] == 10 * MIB
    end = START + 14 * MIB + sizes["e"]
    assert 199 * MIB - 63 * 255 <= end <= 199 * MIB
    if family is OPENBSD:
        assert sizes["e"] % 32 == 0
        assert sizes["c"] == 200 * MIB
    else:
        assert end == 199 * MIB
        assert (sizes["c"], sizes["d"]) == (199 * MIB - START, 200 * MIB)


def test_swap_at_the_end_is_not_enlarged() -> None:
    """T-65, R-TASK-FIX-12."""
    for family in (OPENBSD, NETBSD):
        sizes = grown(SWAP_LAST, family, disk=200 * MIB, slice_end=199 * MIB)
        assert (sizes["a"], sizes["b"]) == (10 * MIB, 4 * MIB)
        assert sizes["c"] > 64 * MIB


def test_a_label_that_fits_stays_as_it_is() -> None:
    """R-TASK-FIX-12: nothing shrinks."""
    sizes = grown(FFS, OPENBSD, disk=64 * MIB, slice_end=20 * MIB)
    assert sizes["e"] == 20 * MIB


def test_partitions_outside_of_the_disk_are_refused() -> None:
    """R-TASK-FIX-12: of any letter but those of the whole disk."""
    for letter in "abe":
        before = parse(label(FFS | {letter: (START, 900 * MIB, FS_BSDFFS)}), OPENBSD)
        assert before is not None
        with pytest.raises(ImageError, match=f"disklabel: partition {letter} lies outside"):
            enlarged(before, disk_sectors=200 * MIB, slice_start=START, slice_end=199 * MIB)


def test_sizes_of_openbsd_have_48_bits() -> None:
    """R-TASK-FIX-12: the high parts stand in fields of their own; cylinders follow."""
    disk = 5 * 2**32 + 12345
    before = parse(label(FFS), OPENBSD)
    assert before is not None
    data = enlarged(before, disk_sectors=disk, slice_start=START, slice_end=disk)
    cylinders = disk // (63 * 255)
    assert struct.unpack_from("<I", data, 52)[0] == cylinders
    assert struct.unpack_from("<H", data, 112)[0] << 32 | struct.unpack_from("<I", data, 60)[0] == disk
    bound = struct.unpack_from("<H", data, 78)[0] << 32 | struct.unpack_from("<I", data, 84)[0]
    assert bound == cylinders * 63 * 255
    after = parse(data, OPENBSD)
    assert after is not None
    last = after.find("e")
    assert last is not None
    assert last.sectors == (bound - last.start) // 32 * 32


def test_cylinders_of_netbsd_are_bounded() -> None:
    """R-TASK-FIX-12: 16383 from 16514064 sectors on; ``d`` is the disk."""
    parts: Parts = {"a": (START, 10 * MIB, FS_BSDFFS)}
    before = parse(label(parts), NETBSD)
    assert before is not None
    for disk, cylinders in ((16514063, 16514063 // (63 * 255)), (16514064, 16383), (2**33, 16383)):
        data = enlarged(before, disk_sectors=disk, slice_start=START, slice_end=disk)
        assert struct.unpack_from("<I", data, 52)[0] == cylinders
        assert struct.unpack_from("<I", data, 148 + 3 * 16)[0] == min(disk, 2**32 - 1)


@pytest.mark.parametrize("family", [OPENBSD, NETBSD])
def test_unknown_bytes_are_kept(family: OsFamily) -> None:
    """R-TASK-FIX-12: only the known fields differ."""
    old = label(FFS)
    before = parse(old, family)
    assert before is not None
    new = enlarged(before, disk_sectors=100 * MIB, slice_start=START, slice_end=99 * MIB)
    known = {*range(52, 56), *range(60, 64), *range(78, 80), *range(84, 88), 112, 113, 136, 137}
    known |= {148 + 16 * index + at for index in (2, 3, 4) for at in (0, 1, 2, 3, 10, 11)}
    assert {at for at in range(512) if old[at] != new[at]} <= known
    assert sealed(bytearray(new)) == new


@given(st.binary(min_size=512, max_size=512), st.integers(min_value=0, max_value=2**47))
def test_nonsense_is_an_image_error(noise: bytes, disk: int) -> None:
    """R-TASK-FIX-12: whatever a label says, it is enlarged or refused."""
    data = bytearray(noise)
    for at in (0, 132):
        struct.pack_into("<I", data, at, 0x82564557)
    struct.pack_into("<H", data, 138, 16)
    for family in (OPENBSD, NETBSD):
        try:
            found = parse(sealed(data), family)
            assert found is not None
            new = enlarged(found, disk_sectors=disk, slice_start=0, slice_end=disk)
        except ImageError as error:
            assert "disklabel" in str(error)  # noqa: PT017 - either outcome is good
        else:
            assert len(new) == 512
