"""NTFS on partitions of a loop device: beside a Linux, and as a Windows that is detected. Needs root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import windows_trees as windows
from images import (
    MIB,
    ROOT_TREE,
    ROOT_UUID,
    Fs,
    Loop,
    ext4,
    looped,
    machine_of,
    make_image,
    recorded,
    warnings_of,
)
from snf_image_contract.names import OsFamily
from snf_image_helper import kernel_mount, mounts, ntfs, root_mount
from snf_image_helper.detection import detect
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.mounts import mount_image
from snf_image_process import run
from trees import Directory, RecordingReporter, Tree, make_job, make_tree

pytestmark = pytest.mark.requires("root", "loop", "ntfs-3g", "fuse")
SERIAL = bytes.fromhex("5D00110400000004")


def ntfs_fs(size: int = 8) -> Fs:
    return Fs(size=size, argv=("mkntfs", "-Q", "-F", "-q", "-p", "2048", "-S", "63", "-H", "255"))


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories of this test alone: tests run side by side."""
    monkeypatch.setattr(mounts, "TARGET", str(tmp_path / "target"))
    monkeypatch.setattr(root_mount, "LOOK", str(tmp_path / "look"))


@pytest.fixture
def loop() -> Iterator[Loop]:
    with contextlib.ExitStack() as stack:
        yield lambda disk: stack.enter_context(looped(disk))
        root_mount.unmount_below(mounts.TARGET)


def test_ntfs_beside_a_linux(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-3, R-TASK-MNT-7, R-TASK-UMO-1: by fstab, and its driver has ended after the unmount."""
    fstab = f"UUID={ROOT_UUID} / ext4 defaults 0 1\nUUID={SERIAL.hex()} /data ntfs defaults 0 0\n"
    tree = {**ROOT_TREE, "/etc/fstab": fstab, "/data": Directory()}
    disk = make_image(tmp_path / "disk", "gpt", ext4(tree), ntfs_fs(), disk_mib=64)
    with open(disk.device, "r+b") as image:
        image.seek(41 * MIB + 72)
        image.write(SERIAL[::-1])
    machine = machine_of(loop(disk))
    mounted = mount_image(machine)
    (point,) = (point for point in kernel_mount.mounted_below(mounts.TARGET) if point.driver == "fuseblk")
    assert point.path == f"{mounts.TARGET}/data"
    flags = os.statvfs(point.path).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    assert flags & os.ST_NOEXEC
    mounted.root.write("/data/New File.txt", b"x")
    assert mounted.root.read("/data/new file.TXT") == b"x"
    mounted.unmount()
    assert ntfs._drivers_of(point.source) == []
    assert kernel_mount.mounted_below(mounts.TARGET) == ()
    assert ("/data", "disk 0 partition 2, ntfs") in [(c.path, c.detail) for c in recorded(machine).changes]
    assert warnings_of(machine) == []


def windows_disk(path: Path, label: str, tree: Tree) -> Disk:
    """A small NTFS that is no Windows, then one with ``tree``."""
    disk = make_image(path, label, ntfs_fs(), ntfs_fs(16), disk_mib=32)
    partition, top = path.with_name("partition"), path.with_name("filled")
    run(["dd", f"if={path}", f"of={partition}", "bs=1M", "skip=9", "count=16"], timeout=60)
    top.mkdir()
    run(["ntfs-3g", str(partition), str(top)], timeout=60)
    make_tree(str(top), tree)
    run(["umount", str(top)], timeout=60)
    run(["sync"], timeout=60)
    run(["dd", f"if={partition}", f"of={path}", "bs=1M", "seek=9", "conv=notrunc"], timeout=60)
    return disk


@pytest.mark.requires("hivex")
@pytest.mark.parametrize(
    ("label", "legacy", "family"),
    [
        ("gpt", False, OsFamily.WINDOWS),
        ("dos", False, OsFamily.WINDOWS),
        ("dos", True, OsFamily.WINDOWS_LEGACY),
    ],
)
def test_a_windows_is_detected(
    tmp_path: Path, loop: Loop, label: str, legacy: bool, family: OsFamily
) -> None:
    """R-DET-3, R-DET-4, R-DET-5, R-DET-6: by its directory and its registry; not a byte is written."""
    tree = windows.legacy_tree() if legacy else windows.windows_tree()
    disk = windows_disk(tmp_path / "disk", label, tree)
    kinds = ("7", "7") if label == "dos" else ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",) * 2
    for number, kind in enumerate(kinds, start=1):
        run(["sfdisk", "-q", "--part-type", disk.device, str(number), kind], timeout=30)
    before = Path(disk.device).read_bytes()
    found = detect(Disks(all=(loop(disk),)), make_job(), RecordingReporter())
    assert (found.os_family, found.root_partition) == (family, 2)
    assert found.verdicts[0].reason == "no directory \\Windows\\System32"
    assert Path(disk.device).read_bytes() == before
