"""Growing ext2, ext3 and ext4 offline, on file systems in plain files: no root needed."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import MIB, ext4, make_filesystem, recorded, warnings_of
from snf_image_contract.job import FilesystemResizeUnmounted
from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper import filesystem_resize, partition_table
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.ext_superblock import read_superblock
from snf_image_helper.filesystems import whole
from snf_image_helper.machine import Machine
from snf_image_process import Completed, run
from trees import Node, RecordingReporter, make_job

TREE: dict[str, Node] = {"/etc/hostname": "old\n", "/big": b"x" * 300_000}
OLD, NEW = 8, 20
"""Mebibytes of the file system and of its partition."""
SUPERBLOCK = 1024
NTFS = b"\xeb\x52\x90NTFS    " + b"\0\2" + bytes(497) + b"\x55\xaa"


class OneVolume:
    """Stands for a disk whose partition 1 is a file: the task then needs no devices of partitions."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._monkeypatch = monkeypatch

    def machine(self, *, sync: bool = False, number: int | None = 1) -> Machine:
        disk = Disk(index=0, device=str(self.path), size=self.path.stat().st_size)
        partition = partition_table.Partition(number=1, start=0, end=disk.size // 512 - 1, type="0x83")
        table = partition_table.Table(label="mbr", disk_sectors=disk.size // 512, partitions=(partition,))
        self._monkeypatch.setattr(partition_table, "read", lambda _: table)
        self._monkeypatch.setattr(filesystem_resize, "volume_of", lambda disk, _: whole(disk))
        report = RecordingReporter()
        report.begin(TaskName.FILESYSTEM_RESIZE_UNMOUNTED)
        return Machine(
            disks=Disks(all=(disk,)),
            job=make_job(filesystem_resize_unmounted=FilesystemResizeUnmounted(sync=sync)),
            report=report,
            os_family=OsFamily.LINUX,
            root_partition=1,
            resize_partition=number,
        )

    def patch(self, offset: int, form: str, value: int) -> None:
        with self.path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(struct.pack(form, value))

    def field(self, offset: int, form: str) -> int:
        with self.path.open("rb") as stream:
            stream.seek(offset)
            return int(struct.unpack(form, stream.read(struct.calcsize(form)))[0])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 without checksums, so that tests may edit its superblock."""
    path = tmp_path_factory.mktemp("template") / "volume"
    make_filesystem(path, ext4(TREE, size=OLD, options=("-O", "^metadata_csum,^metadata_csum_seed")))
    return path


@pytest.fixture
def volume(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> OneVolume:
    """That file system on a larger partition."""
    path = tmp_path / "volume"
    shutil.copyfile(template, path)
    os.truncate(path, NEW * MIB)
    return OneVolume(path, monkeypatch)


def sound(path: Path) -> bool:
    return run(["e2fsck", "-f", "-n", str(path)], timeout=60, accept=(0, 4)).status == 0


def mount_after_check(volume: OneVolume) -> None:
    """Set the time of the last mount to a second after that of the last check."""
    volume.patch(SUPERBLOCK + 44, "<I", volume.field(SUPERBLOCK + 64, "<I") + 1)


@pytest.mark.parametrize("mounted", [False, True])
def test_everything_is_checked_if_it_was_in_use_since_it_was_checked(
    volume: OneVolume, monkeypatch: pytest.MonkeyPatch, *, mounted: bool
) -> None:
    """R-TASK-FSU-2: in preen mode always, with force by the rule that resize2fs has."""
    seen: list[Sequence[str]] = []

    def spy(argv: Sequence[str], **given: Any) -> Completed:
        seen.append(argv)
        return run(argv, **given)

    monkeypatch.setattr(filesystem_resize, "run", spy)
    if mounted:
        mount_after_check(volume)
    filesystem_resize.unmounted(volume.machine())
    assert seen[0][:-1] == (["e2fsck", "-f", "-p"] if mounted else ["e2fsck", "-p"])
    assert sound(volume.path)


def test_the_time_of_a_check_has_forty_bits(volume: OneVolume) -> None:
    """R-TASK-FSU-2: a file system of the year 2110 that was mounted in 2040."""
    volume.patch(SUPERBLOCK + 44, "<I", 0x84000000)
    volume.patch(SUPERBLOCK + 64, "<I", 0x08000000)
    volume.patch(SUPERBLOCK + 0x277, "B", 1)
    with volume.path.open("rb") as stream:
        read = read_superblock(lambda at, length: os.pread(stream.fileno(), length, at))
    assert not read.mounted_since_check


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
@pytest.mark.parametrize("sync", [False, True])
def test_it_grows_to_its_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, sync: bool
) -> None:
    """R-TASK-FSU-1, R-TASK-FSU-2: by its superblock, forced, checked before, on the disk after."""
    path = tmp_path / "volume"
    fs = ext4(TREE, size=OLD)
    make_filesystem(path, dataclasses.replace(fs, argv=(f"mkfs.{kind}", *fs.argv[1:])))
    os.truncate(path, NEW * MIB + 700)
    machine = OneVolume(path, monkeypatch).machine(sync=sync)
    filesystem_resize.unmounted(machine)
    with path.open("rb") as stream:
        after = read_superblock(lambda at, length: os.pread(stream.fileno(), length, at))
    assert after.size == NEW * MIB
    assert sound(path)
    (change,) = recorded(machine).changes
    assert (change.change, change.detail) == (
        "filesystem",
        f"{kind} grown from {OLD * MIB} to {NEW * MIB} bytes",
    )
    assert warnings_of(machine) == []


def test_a_file_system_that_fills_its_partition(volume: OneVolume) -> None:
    """R-TASK-FSU-2: it is checked and stays as it is."""
    os.truncate(volume.path, OLD * MIB)
    machine = volume.machine()
    filesystem_resize.unmounted(machine)
    assert recorded(machine).changes == []
    assert sound(volume.path)


def test_a_full_file_system_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-FSU-2: bad input of its own kind: not a block is free."""
    path = tmp_path / "volume"
    make_filesystem(path, ext4({"/big": b"x" * (3 * MIB)}, size=OLD))
    rest = tmp_path / "rest"
    rest.write_bytes(b"y" * (8 * MIB))
    # debugfs writes as much of it as there is room for, and says so.
    run(["debugfs", "-w", "-R", f"write {rest} rest", str(path)], timeout=60, accept=(0, 1))
    run(["e2fsck", "-f", "-p", str(path)], timeout=60, accept=(0, 1))
    assert b"Free blocks:              0\n" in run(["dumpe2fs", "-h", str(path)], timeout=30).stdout
    os.truncate(path, NEW * MIB)
    filesystem_resize.unmounted(OneVolume(path, monkeypatch).machine())
    assert sound(path)


def test_no_partition_grows(volume: OneVolume) -> None:
    """R-TASK-FSU-1: RESIZE_PART is empty: a warning."""
    machine = volume.machine(number=None)
    filesystem_resize.unmounted(machine)
    assert "no partition was enlarged" in warnings_of(machine)[0]


def test_what_was_in_use_is_refused(volume: OneVolume) -> None:
    """R-TASK-FSU-2: dirty: not cleanly unmounted, and nothing that could replay it."""
    volume.patch(SUPERBLOCK + 58, "<H", 0)
    before = volume.path.read_bytes()
    with pytest.raises(ImageError, match="is not clean: it was in use when the image was made"):
        filesystem_resize.unmounted(volume.machine())
    assert volume.path.read_bytes() == before


def test_known_errors_are_refused(volume: OneVolume) -> None:
    """R-TASK-FSU-2."""
    volume.patch(SUPERBLOCK + 58, "<H", 3)
    with pytest.raises(ImageError, match="is marked as having errors"):
        filesystem_resize.unmounted(volume.machine())


def test_a_journal_is_replayed_with_a_warning(volume: OneVolume) -> None:
    """R-TASK-FSU-2: needs_recovery with a clean state is what a running system leaves."""
    features = volume.field(SUPERBLOCK + 96, "<I")
    volume.patch(SUPERBLOCK + 96, "<I", features | 0x4)
    machine = volume.machine()
    filesystem_resize.unmounted(machine)
    assert "has a journal that needs recovery; it is replayed" in warnings_of(machine)[0]
    assert volume.field(SUPERBLOCK + 96, "<I") & 0x4 == 0
    assert sound(volume.path)


def test_errors_that_e2fsck_corrects_are_no_failure(volume: OneVolume) -> None:
    """R-TASK-FSU-2, T-59: status 1, which is told; here a wrong count of links."""
    argv = ["debugfs", "-w", "-R", "set_inode_field big links_count 5", str(volume.path)]
    run(argv, timeout=30)
    mount_after_check(volume)
    assert run(["e2fsck", "-f", "-n", str(volume.path)], timeout=60, accept=(4,)).status == 4
    machine = volume.machine()
    filesystem_resize.unmounted(machine)
    assert any("e2fsck corrected errors of the ext4 file system" in said for said in warnings_of(machine))
    assert sound(volume.path)


def test_errors_that_preen_mode_does_not_correct_fail(volume: OneVolume) -> None:
    """R-TASK-FSU-2: any other status; the text has e2fsck's own reason."""
    inode_table = (
        run(["dumpe2fs", str(volume.path)], timeout=30).text.split("Inode table at ")[1].split("-")[0]
    )
    block_size = 1024 << volume.field(SUPERBLOCK + 24, "<I")
    # The root directory's inode, number 2, becomes a FIFO.
    volume.patch(int(inode_table) * block_size + volume.field(SUPERBLOCK + 88, "<H"), "<H", 0x1000)
    mount_after_check(volume)
    with pytest.raises(ImageError, match="the check of the file system failed: exit status 4"):
        filesystem_resize.unmounted(volume.machine())


@pytest.mark.parametrize(
    ("offset", "bit", "name"),
    [(92, 0x10000, "compat 0x10000"), (96, 0x80000, "incompat 0x80000"), (96, 0x1, "incompat 0x1"),
     (100, 0x20000, "ro_compat 0x20000")],
)  # fmt: skip
def test_features_of_the_future_are_listed(volume: OneVolume, offset: int, bit: int, name: str) -> None:
    """R-TASK-FSU-2: nothing is tried."""
    volume.patch(SUPERBLOCK + offset, "<I", volume.field(SUPERBLOCK + offset, "<I") | bit)
    with pytest.raises(ImageError, match=f"has features this helper does not know: {name}$"):
        filesystem_resize.unmounted(volume.machine())


def test_a_truncated_image(volume: OneVolume) -> None:
    """R-TASK-FSU-2: the file system says more than the partition has."""
    os.truncate(volume.path, (OLD - 1) * MIB)
    with pytest.raises(ImageError, match=r"larger than its partition of .*: the image seems to be truncated"):
        filesystem_resize.unmounted(volume.machine())


@pytest.mark.parametrize("log_size", [7, 31, 0xFFFFFFFF])
def test_absurd_block_sizes(volume: OneVolume, log_size: int) -> None:
    """R-TASK-FSU-2: bounded before anything is computed with them."""
    volume.patch(SUPERBLOCK + 24, "<I", log_size)
    with pytest.raises(ImageError, match="ext superblock: blocks of 1024 times 2 to the"):
        filesystem_resize.unmounted(volume.machine())


def test_block_numbers_of_32_bits_end_at_16_tib() -> None:
    """R-TASK-FSU-2: without feature 64bit no more can be said; with it 48 bits count."""

    def superblock(incompatible: int) -> bytes:
        block = bytearray(2048)
        struct.pack_into("<I", block, SUPERBLOCK + 24, 2)
        struct.pack_into("<H", block, SUPERBLOCK + 56, 0xEF53)
        struct.pack_into("<I", block, SUPERBLOCK + 96, incompatible)
        return bytes(block)

    small, large = (superblock(flags) for flags in (0x40, 0xC0))
    assert read_superblock(lambda at, length: small[at : at + length]).max_size == (16 << 40) - 4096
    assert read_superblock(lambda at, length: large[at : at + length]).max_size == (1 << 60) - 4096


def test_a_resize_that_fails_is_told(volume: OneVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-FSU-2: the program's reason, and whose fault it is."""
    monkeypatch.setattr(filesystem_resize, "_check", lambda *_, everything: None)
    monkeypatch.setattr(
        filesystem_resize, "_resize_argv", lambda device, blocks: ["resize2fs", "-f", device, "1"]
    )
    with pytest.raises(TaskError, match="the file system cannot be enlarged: exit status 1"):
        filesystem_resize.unmounted(volume.machine())


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (NTFS, "NTFS is not resized in this task"),
        (bytes(512), "unknown contents .* is not resized"),
        (b"LUKS\xba\xbe" + bytes(512), "LUKS .* is not resized"),
        (b"XFSB" + bytes(512), None),
    ],
)
def test_what_else_may_lie_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, warning: str | None
) -> None:
    """R-TASK-FSU-1, R-TASK-FSU-5: XFS and Btrfs grow when mounted; of NTFS and the rest a warning tells."""
    path = tmp_path / "volume"
    path.write_bytes(content.ljust(MIB, b"\0"))
    machine = OneVolume(path, monkeypatch).machine()
    filesystem_resize.unmounted(machine)
    if warning is None:
        assert warnings_of(machine) == []
    else:
        assert re.search(warning, warnings_of(machine)[0])


def test_nothing_is_left_to_do_after_the_unmount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-NTFS-2: what is no NTFS has grown before, or never does."""
    path = tmp_path / "volume"
    path.write_bytes(bytes(MIB))
    machine = OneVolume(path, monkeypatch).machine()
    filesystem_resize.after_umount(machine)
    assert recorded(machine).changes == []


@settings(deadline=None)
@given(st.binary(max_size=1024))
def test_any_superblock_is_read_or_refused(noise: bytes) -> None:
    """R-TASK-FSU-2: no other exception."""
    data = bytearray(bytes(1024) + noise.ljust(1024, b"\0"))
    data[1080:1082] = b"\x53\xef"
    try:
        found = read_superblock(lambda at, length: bytes(data[at : at + length]))
    except ImageError:
        assert struct.unpack_from("<I", data, 1048)[0] > 6
    else:
        assert found.size == found.blocks * found.block_size
