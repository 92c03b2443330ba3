"""Writing to a disk: past the page cache where it can be, zeros by the kernel, nothing lost otherwise."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_host.copying import disarm
from snf_image_host.copying import target as subject
from snf_image_host.copying.buffers import Buffer, make_buffers
from snf_image_host.copying.target import ALIGNMENT, MIB, Target
from snf_image_host.deployment import TargetDisk
from snf_image_host.disks import OpenDisk, open_disks
from snf_image_host.errors import NodeError
from snf_image_host.extents import GRANULE
from snf_image_process import run

OLD = b"\xaa"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[OpenDisk]:
    with open_disks([TargetDisk(index=0, path=str(path))]) as (disk,):
        yield disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OpenDisk]:
    """A file of 8 MiB, none of it zero."""
    path = tmp_path / "disk"
    path.write_bytes(OLD * 8 * MIB)
    with opened(path) as disk:
        yield disk


def content(disk: OpenDisk) -> bytes:
    return Path(disk.path).read_bytes()


def aligned(data: bytes) -> memoryview:
    """``data`` in memory that direct I/O takes."""
    (buffer,) = make_buffers(1, max(4 * MIB, len(data)))
    buffer.view[: len(data)] = data
    return buffer.view[: len(data)]


@pytest.mark.parametrize("length", [1, 511, 4096, 4097, 300_000])
@pytest.mark.parametrize("offset", [0, 512, 4096, 65536])
def test_every_byte_arrives_whatever_its_alignment(disk: OpenDisk, offset: int, length: int) -> None:
    """R-DST-LOCAL-1: direct where alignment allows, the rest through the page cache."""
    data = bytes(index % 251 + 1 for index in range(length))
    with Target(disk) as target:
        target.write_direct(aligned(data), offset)
        target.flush()
    got = content(disk)
    assert got[offset : offset + length] == data
    assert got[:offset] == OLD * offset
    assert got[offset + length :] == OLD * (8 * MIB - offset - length)


def test_large_writes_pass_the_page_cache_by(disk: OpenDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-DST-LOCAL-1: whole pages through a descriptor with O_DIRECT, what is left through the other."""
    written: list[tuple[bool, int]] = []
    pwrite = os.pwrite

    def watched(fd: int, data: bytes, offset: int) -> int:
        written.append((fd == disk.fd, len(data)))
        return pwrite(fd, data, offset)

    with Target(disk) as target:
        if not target.is_direct:
            pytest.skip("this file system has no direct I/O")
        monkeypatch.setattr(os, "pwrite", watched)
        target.write_direct(aligned(bytes(3 * MIB + 5)), 0)
    assert written == [(False, 3 * MIB), (True, 5)]


def test_a_disk_that_refuses_direct_writes_gets_others(
    disk: OpenDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-DST-LOCAL-1: some want more than pages, and say so only when they are written to."""
    pwrite, data = os.pwrite, os.urandom(MIB)

    def picky(fd: int, part: bytes, offset: int) -> int:
        if fd != disk.fd:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return pwrite(fd, part, offset)

    monkeypatch.setattr(os, "pwrite", picky)
    with Target(disk) as target:
        target.write_direct(aligned(data), 4096)
        assert not target.is_direct
        target.write_direct(aligned(data), 4096 + MIB)
    assert content(disk)[4096 : 4096 + 2 * MIB] == data * 2


def test_without_direct_writes_the_page_cache_does_not_fill(
    disk: OpenDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-DST-LOCAL-1: a copy through the page cache is flushed as it goes, not gigabytes at its end."""
    flushed: list[int] = []
    monkeypatch.setattr(subject, "_open_direct", lambda fd: None)
    monkeypatch.setattr(subject, "_DIRTY_LIMIT", 2 * MIB)
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    with Target(disk) as target:
        for offset in range(0, 8 * MIB, MIB):
            target.write_direct(aligned(bytes(MIB)), offset)
    assert flushed == [disk.fd, disk.fd]


def test_a_short_write_is_continued(disk: OpenDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, data = os.pwrite, os.urandom(MIB)
    monkeypatch.setattr(os, "pwrite", lambda fd, part, offset: pwrite(fd, part[: 64 * 1024], offset))
    with Target(disk) as target:
        target.write_direct(aligned(data), 0)
    assert content(disk)[:MIB] == data


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "space"), (errno.EDQUOT, "space"), (errno.EIO, "kernel's log")]
)
@pytest.mark.parametrize("where", ["pwrite", "fdatasync"])
def test_a_failing_disk_is_named(
    disk: OpenDisk, monkeypatch: pytest.MonkeyPatch, number: int, hint: str, where: str
) -> None:
    """R-DST-LOCAL-1: a write and a flush that fail both fail the copy, with what can be done."""

    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, where, failing)
    with Target(disk) as target:

        def write_and_flush() -> None:
            target.write(memoryview(b"x"), 7)
            target.flush()

        with pytest.raises(NodeError, match="cannot be written") as error:
            write_and_flush()
    assert disk.path in str(error.value)
    assert hint in error.value.hint
    assert ("at byte 7" in str(error.value)) is (where == "pwrite")


SMALL = 256 * 1024


@settings(deadline=None)
@given(offset=st.integers(0, SMALL), length=st.integers(0, SMALL))
def test_zeroing_is_exact(offset: int, length: int) -> None:
    """D-10: the range and no byte beside it; the file keeps its size."""
    length = min(length, SMALL - offset)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "disk")
        path.write_bytes(OLD * SMALL)
        with opened(path) as disk, Target(disk) as target:
            target.zero(offset, length)
        assert path.read_bytes() == OLD * offset + bytes(length) + OLD * (SMALL - offset - length)


def test_zeros_are_written_where_the_kernel_cannot_make_them(
    disk: OpenDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-10: else written."""
    monkeypatch.setattr(subject, "_fallocate", lambda *_: False)
    with Target(disk) as target:
        assert target.zero(5, 3 * MIB) == 3 * MIB
    assert content(disk) == OLD * 5 + bytes(3 * MIB) + OLD * (5 * MIB - 5)


def test_a_block_device_without_zeroing_is_written(disk: OpenDisk) -> None:
    """D-10: a file refuses the command as such a device does."""
    with Target(dataclasses.replace(disk, is_block=True)) as target:
        assert target.zero(0, MIB) == MIB
    assert content(disk) == bytes(MIB) + OLD * 7 * MIB


def test_a_discard_is_no_zeroing(disk: OpenDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-10: a block device is asked for zeros by BLKZEROOUT; BLKDISCARD is for what nobody reads."""
    asked: list[tuple[int, int, int]] = []

    def ioctl(_: int, request: int, argument: bytes) -> int:
        asked.append((request, *struct.unpack("QQ", argument)))
        return 0

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    with Target(dataclasses.replace(disk, is_block=True)) as target:
        assert target.zero(0, 4096) == 0
        target.discard(5000, 20_000)
    assert asked == [(0x127F, 0, 4096), (0x1277, 8192, 16384)]


def test_a_device_that_cannot_discard_is_left_alone(disk: OpenDisk) -> None:
    """R-DST-LOCAL-4: discard, where it is supported."""
    with Target(dataclasses.replace(disk, is_block=True)) as target:
        target.discard(0, 8 * MIB)
    assert content(disk) == OLD * 8 * MIB


def test_large_ranges_are_zeroed_in_steps(disk: OpenDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """COPY_IDLE_TIMEOUT and Ctrl-C need a moment between two commands to the kernel."""
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(subject, "_ZERO_STEP", 3 * MIB)

    def zeroed(fd: int, mode: int, offset: int, length: int) -> bool:
        steps.append((offset, length))
        return True

    monkeypatch.setattr(subject, "_fallocate", zeroed)
    checks: list[int] = []
    with Target(disk, check=lambda: checks.append(1)) as target:
        target.zero(0, 8 * MIB)
    assert steps == [(0, 3 * MIB), (3 * MIB, 3 * MIB), (6 * MIB, 2 * MIB)]
    assert len(checks) == 3


def blocks(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_zeroing_keeps_the_blocks_of_a_file_that_has_all(tmp_path: Path) -> None:
    """R-DST-LOCAL-1: who gave a disk all its blocks wants it never to run out of space; others want holes."""
    full, sparse = tmp_path / "full", tmp_path / "sparse"
    full.write_bytes(OLD * 8 * MIB)
    with sparse.open("wb") as file:
        file.write(OLD * 4 * MIB)
        file.truncate(8 * MIB)
    for path in (full, sparse):
        with opened(path) as disk, Target(disk) as target:
            target.zero(0, 4 * MIB)
            target.flush()
        assert not any(path.read_bytes()[: 4 * MIB])
    assert blocks(sparse) < MIB
    assert blocks(full) >= 8 * MIB or blocks(full) < 5 * MIB  # a file system without ZERO_RANGE makes holes


WORDS = st.lists(st.sampled_from([b"\0", b"\1", b"\0\1", b"\1\0"]), min_size=1, max_size=24)


@settings(deadline=None)
@given(WORDS, st.integers(1, GRANULE))
def test_runs_of_zeros_are_found(granules: list[bytes], last: int) -> None:
    """R-DST-LOCAL-4: maximal, without gaps, true in every byte; a granule with one other byte is data."""
    data = b"".join(
        (word[:1] * (GRANULE - 1) + word[-1:]) if number < len(granules) - 1 else word[:1] * last
        for number, word in enumerate(granules)
    )
    (buffer,) = make_buffers(1, 4 * MIB)
    buffer.view[: len(data)] = data
    runs = list(buffer.runs(len(data)))
    assert [start for start, _, _ in runs] == [0, *(end for _, end, _ in runs[:-1])]
    assert runs[-1][1] == len(data)
    for (_, _, one), (_, _, next_) in itertools.pairwise(runs):
        assert one is not next_
    for start, end, is_zero in runs:
        parts = [data[at : min(at + GRANULE, end)] for at in range(start, end, GRANULE)]
        assert all(any(part) is not is_zero for part in parts)


def test_buffers_are_apart_and_aligned() -> None:
    buffers: tuple[Buffer, ...] = make_buffers(3, 64 * 1024)
    for number, buffer in enumerate(buffers):
        assert buffer._address % ALIGNMENT == 0
        buffer.view[:] = bytes([number + 1]) * len(buffer.view)
    assert [set(buffer.view) for buffer in buffers] == [{1}, {2}, {3}]


def protective(flag: int, kind: int) -> bytes:
    return bytes([flag, 0, 2, 0, kind, 255, 255, 255]) + struct.pack("<II", 1, 0xFFFFFFFF)


def test_disarming_a_gpt_disk_hides_its_table_from_uefi(disk: OpenDisk) -> None:
    """D-12, R-SCR-CREATE-3: firmware takes a GPT behind a protective entry without a look at 55 AA."""
    sector = bytes(446) + protective(0, 0xEE) + protective(0x80, 0x83) + bytes(32) + b"\x55\xaa"
    with Target(disk) as target:
        target.write(memoryview(sector + b"EFI PART"), 0)
    disarm(disk)
    expected = bytes(446) + protective(0, 0) + protective(0x80, 0x83) + bytes(32) + bytes(2) + b"EFI PART"
    assert content(disk)[:520] == expected


def test_disarming_never_fails(disk: OpenDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-12: it runs while another error is on its way."""

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwrite", failing)
    disarm(disk)
    disarm(dataclasses.replace(disk, fd=-1))
    assert content(disk) == OLD * 8 * MIB


def test_disarming_does_not_enlarge_a_tiny_disk(tmp_path: Path) -> None:
    """T-138: not even a file of less than a sector."""
    path = tmp_path / "disk"
    path.write_bytes(OLD * 100)
    with opened(path) as disk:
        disarm(disk)
    assert path.read_bytes() == OLD * 100


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    """A block device of 8 MiB, none of it zero."""
    backing = tmp_path / "backing"
    backing.write_bytes(OLD * 8 * MIB)
    name = run(["losetup", "--find", "--show", str(backing)], timeout=30).text.strip()
    try:
        yield Path(name)
    finally:
        run(["losetup", "--detach", name], timeout=30)


@pytest.mark.requires("root", "loop")
@pytest.mark.parametrize("act", [Target.zero, Target.discard], ids=["zero", "discard"])
def test_a_real_block_device(loop_device: Path, act: Callable[[Target, int, int], object]) -> None:
    """D-10, R-DST-LOCAL-1: written directly, zeroed by command; a loop device discards to zeros too."""
    data = os.urandom(MIB)
    with opened(loop_device) as disk, Target(disk) as target:
        assert target.is_direct
        target.write_direct(aligned(data), MIB)
        act(target, 4 * MIB, 2 * MIB)
        target.zero(7 * MIB + 3, 10)
        target.flush()
    got = loop_device.read_bytes()
    assert got[:MIB] == OLD * MIB
    assert got[MIB : 2 * MIB] == data
    assert got[4 * MIB : 6 * MIB] == bytes(2 * MIB)
    assert got[7 * MIB :] == OLD * 3 + bytes(10) + OLD * (MIB - 13)
