"""Archives without a magic number are told from images, in both directions."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulated_source import MIB, copied, image_bytes
from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource, SourceSettings
from snf_image_host.errors import ImageError
from snf_image_host.image_container import Container, recognise
from snf_image_process import run

SECTOR = 512
IMAGE = image_bytes(5)
FIELDS = {
    "name": 0,
    "mode": 100,
    "uid": 108,
    "gid": 116,
    "size": 124,
    "time": 136,
    "major": 329,
    "minor": 337,
}


def with_checksum(sector: bytes) -> bytes:
    """The sector with the right checksum where a header has it."""
    cleared = sector[:148] + b" " * 8 + sector[156:]
    return cleared[:148] + b"%06o\0 " % sum(cleared) + cleared[156:]


def v7_header(name: bytes = b"disk.raw", kind: bytes = b"\0", size: int = MIB) -> bytes:
    """A header as Unix v7 wrote it."""
    numbers = b"%06o \0%06o \0%06o \0%011o %011o " % (0o644, 0, 0, size, 1_700_000_000)
    return with_checksum((name.ljust(100, b"\0") + numbers + bytes(8) + kind).ljust(SECTOR, b"\0"))


def archive(directory: Path, *options: str) -> bytes:
    (directory / "disk.raw").write_bytes(IMAGE)
    return run(["tar", *options, "-C", str(directory), "-cf", "-", "disk.raw"], timeout=60).stdout


def deploy(data: bytes, directory: Path, container: str) -> bytes:
    image, disk = directory / "image", directory / "disk"
    image.write_bytes(data)
    source = ImageSource(
        path=str(image),
        shown="image",
        format=ImageFormat.DISKDUMP,
        container=container,
        settings=SourceSettings(containers=frozenset(Container), runtime_dir=str(directory / "run")),
    )
    copied(source, disk, size=4 * MIB)
    return disk.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_archives_of_every_age_are_unwrapped(kind: str, tmp_path: Path) -> None:
    """D-3: also the oldest kind, which has no magic number."""
    data = archive(tmp_path, f"--format={kind}")
    assert (data[257:262] == b"ustar") == (kind != "v7")
    assert recognise(data) is Container.TAR
    assert deploy(data, tmp_path, "auto")[: len(IMAGE)] == IMAGE


@pytest.mark.slow
def test_nothing_is_unwrapped_that_was_not_asked_for(tmp_path: Path) -> None:
    """R-FMT-1, T-32: an ordinary format means every byte as it is, an archive's too."""
    data = archive(tmp_path, "--format=v7")
    assert deploy(data, tmp_path, "raw")[: len(data)] == data
    with pytest.raises(ImageError, match="is not gzip: its first bytes say tar"):
        deploy(data, tmp_path, "gzip")


def test_an_old_header_is_recognised() -> None:
    """D-3: also for a first member that is a directory or a link, which the program then lists."""
    for kind in (b"\0", b"0", b"1", b"2", b"5"):
        assert recognise(v7_header(kind=kind)) is Container.TAR
    assert recognise(v7_header(name=b"\xfcbel/" + b"x" * 94)) is Container.TAR


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (0, b"\0"), (0, b"\x7fELF"), (50, b"x"), (100, b"8"), (108, bytes(8)), (116, b"-"),
        (124, b"0x"), (136, b"1.5"), (156, b"7"), (156, b"L"), (157, b"\1"), (158, b"x"), (257, b"u"),
        (257, b"USTAR"), (510, b"\x55\xaa"),
    ],
)  # fmt: skip
def test_each_field_must_make_sense(at: int, data: bytes) -> None:
    """D-3: the right checksum alone makes no archive."""
    header = v7_header()
    assert recognise(with_checksum(header[:at] + data + header[at + len(data) :])) is Container.RAW
    wrong = bytearray(header)
    wrong[147] ^= 1
    assert recognise(bytes(wrong)) is Container.RAW


def boot_sector(code: bytes, table: bytes) -> bytes:
    return code.ljust(446, b"\0")[:446] + table.ljust(64, b"\0")[:64] + b"\x55\xaa"


@given(code=st.binary(max_size=446), table=st.binary(max_size=64))
@example(code=v7_header()[:446], table=b"")
def test_a_sector_that_a_machine_starts_from_is_no_archive(code: bytes, table: bytes) -> None:
    """R-FMT-1: an MBR, a protective one, a boot sector of FAT or NTFS; with the checksum right, too."""
    sector = boot_sector(code, table)
    assert recognise(sector) is not Container.TAR
    assert recognise(with_checksum(sector)) is not Container.TAR


@given(behind=st.binary(max_size=4096))
def test_an_empty_first_sector_is_no_archive(behind: bytes) -> None:
    """R-FMT-1: of a dump of a file system, or of a disk without a table."""
    assert recognise(bytes(SECTOR) + behind) is Container.RAW
    assert recognise(with_checksum(bytes(SECTOR)) + behind) is Container.RAW


@given(data=st.binary(min_size=SECTOR, max_size=SECTOR), seed=st.integers(0, 1 << 32))
def test_noise_is_no_archive(data: bytes, seed: int) -> None:
    """R-FMT-1: even if its checksum happens to be right."""
    noise = random.Random(seed).randbytes(SECTOR)  # noqa: S311 - reproducible, not secret
    for sector in (data, noise):
        assert recognise(with_checksum(sector)) is not Container.TAR


@given(field=st.sampled_from(sorted(FIELDS)), value=st.binary(max_size=8), tail=st.binary(max_size=72))
def test_odd_fields_are_judged_without_an_end(field: str, value: bytes, tail: bytes) -> None:
    """R-BACK-9: whatever stands in a field there is an answer; no if anything is behind the last one."""
    at = FIELDS[field]
    header = bytearray(v7_header())
    header[at : at + len(value)] = value
    header[257 : 257 + len(tail)] = tail
    answer = recognise(with_checksum(bytes(header)))
    assert answer is Container.RAW or answer is Container.TAR or field == "name"
    if any(tail) and tail[:5] != b"ustar":
        assert answer is not Container.TAR


@given(start=st.integers(1, 1 << 31), length=st.integers(1, 1 << 31), kind=st.integers(1, 255))
def test_disks_are_no_archives(start: int, length: int, kind: int) -> None:
    """R-FMT-1, T-32."""
    entry = struct.pack("<B3xB3xII", 0x80, kind, start, length)
    assert recognise(boot_sector(b"\xeb\x63\x90", entry) + b"EFI PART".ljust(SECTOR, b"\0")) is Container.RAW
