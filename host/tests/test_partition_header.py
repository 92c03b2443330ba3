"""The partition table that dumps of file systems get."""

from __future__ import annotations

import itertools
import json
import struct
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_contract.names import ImageFormat
from snf_image_host import partition_header as subject
from snf_image_host.errors import ImageError
from snf_image_host.partition_header import HEADER_SIZE, boot_code, partition_header
from snf_image_process import run

SECTOR = 512
EXT, NTFS = ImageFormat.EXTDUMP, ImageFormat.NTFSDUMP


def chs(packed: bytes) -> tuple[int, int, int]:
    """Cylinder, head, sector as a partition entry has them."""
    return packed[2] | (packed[1] & 0xC0) << 2, packed[0], packed[1] & 0x3F


@pytest.mark.parametrize(("kind", "code"), [(EXT, 0x83), (NTFS, 0x07)])
def test_every_byte_of_the_header_is_as_promised(kind: ImageFormat, code: int) -> None:
    """R-FMT-2, R-FMT-3: boot code, signature, one active entry, nothing else in 2048 sectors."""
    header = partition_header(kind, 100 * 1024 * 1024)
    assert len(header) == HEADER_SIZE == 2048 * SECTOR
    assert header[:440] == boot_code().ljust(440, b"\0")
    assert any(header[440:444])
    assert header[444:446] == bytes(2)
    flag, first, kind_code, last, start, length = struct.unpack("<B3sB3sII", header[446:462])
    assert (flag, kind_code, start, length) == (0x80, code, 2048, 204800)
    assert first == bytes((0x20, 0x21, 0x00))  # what partitioning programs write for sector 2048
    assert chs(last) == (12, 223, 19)
    assert not any(header[462:510])
    assert header[510:512] == b"\x55\xaa"
    assert not any(header[SECTOR:])


def test_the_length_is_rounded_up_to_sectors() -> None:
    """R-FMT-3."""
    lengths = [struct.unpack_from("<I", partition_header(EXT, size), 458)[0] for size in (512, 513, 1024)]
    assert lengths == [1, 2, 2]


@given(sectors=st.integers(1, (1 << 32) - 1))
def test_addresses_by_cylinder_are_right_or_capped(sectors: int) -> None:
    """R-FMT-3: 255 heads, 63 sectors; (1023, 254, 63) for what lies behind that."""
    cylinder, head, sector = chs(partition_header(EXT, sectors * SECTOR)[451:454])
    last = 2048 + sectors - 1
    if last < 1024 * 255 * 63:
        assert (cylinder * 255 + head) * 63 + sector - 1 == last
    else:
        assert (cylinder, head, sector) == (1023, 254, 63)
    assert head <= 254
    assert 1 <= sector <= 63


def test_two_disks_have_two_signatures() -> None:
    """R-FMT-2: random."""
    assert len({partition_header(EXT, SECTOR)[440:444] for _ in range(20)}) > 15


def test_a_signature_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-FMT-2: zero would mean that there is none."""
    words = itertools.chain([bytes(4), bytes(4)], itertools.repeat(b"\0\0\0\1"))
    monkeypatch.setattr("os.urandom", lambda _: next(words))
    assert partition_header(EXT, SECTOR)[440:444] == b"\0\0\0\1"


def test_what_an_entry_cannot_describe_is_refused() -> None:
    """R-FMT-5: 2^32 sectors or more; one less is the largest."""
    largest = ((1 << 32) - 1) * SECTOR
    assert struct.unpack_from("<I", partition_header(NTFS, largest), 458)[0] == 0xFFFFFFFF
    with pytest.raises(ImageError, match="2 TiB"):
        partition_header(NTFS, largest + 1)


def test_the_boot_code_leaves_room_for_the_signature() -> None:
    """R-FMT-4: at most 440 bytes."""
    assert 0 < len(boot_code()) <= 440
    assert subject.boot_code() is boot_code()


def test_the_boot_code_is_part_of_what_is_installed() -> None:
    """R-FMT-4: an installed package has it, not only a checkout."""
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["*"]
    assert any(Path("boot_code.bin").match(pattern) for pattern in patterns)


@pytest.mark.requires("fdisk")
def test_another_program_reads_the_same_table(tmp_path: Path) -> None:
    """R-FMT-2, R-FMT-3: sfdisk, which shares no code with us."""
    disk = tmp_path / "disk"
    header = partition_header(NTFS, 20480 * SECTOR)
    disk.write_bytes(header + bytes(20480 * SECTOR))
    table = json.loads(run(["sfdisk", "--json", str(disk)], timeout=30).stdout)["partitiontable"]
    assert table["label"] == "dos"
    assert int(table["id"], 16) == int.from_bytes(header[440:444], "little")
    (partition,) = table["partitions"]
    assert (partition["start"], partition["size"]) == (2048, 20480)
    assert (partition["type"], partition["bootable"]) == ("7", True)
    run(["sfdisk", "--verify", str(disk)], timeout=30)
