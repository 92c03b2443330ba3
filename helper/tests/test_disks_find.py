"""Disks are found by their serials, whatever the kernel calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snf_image_contract.job import JobDisk
from snf_image_helper import disks
from snf_image_helper.disks import Disk, find_disks
from snf_image_helper.errors import TaskError


def block_device(sys_block: Path, name: str, serial: str | None, sectors: int = 4096, ro: str = "0") -> None:
    directory = sys_block / name
    directory.mkdir(parents=True)
    (directory / "size").write_text(f"{sectors}\n")
    (directory / "ro").write_text(f"{ro}\n")
    if serial is not None:
        (directory / "serial").write_text(f"{serial}\n")


@pytest.fixture
def sys_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    block = tmp_path / "block"
    block.mkdir()
    monkeypatch.setattr(disks, "SYS_BLOCK", str(block))
    monkeypatch.setattr(disks, "PCI_RESCAN", str(tmp_path / "rescan"))
    monkeypatch.setattr("os.path.exists", lambda path: str(path).startswith("/dev/"))
    return block


def test_by_serial_and_never_by_letter(sys_block: Path) -> None:
    """R-HLP-4: the second disk came first; the helper's own root and the medium are nobody's disk."""
    block_device(sys_block, "sda", None)
    block_device(sys_block, "vda", "snf-disk-1", sectors=100, ro="1")
    block_device(sys_block, "vdb", "snf-params")
    block_device(sys_block, "vdc", "snf-disk-0", sectors=8388608)
    found = find_disks([JobDisk(index=0), JobDisk(index=1)], timeout=0)
    assert found.all == (
        Disk(index=0, device="/dev/vdc", size=4 << 30),
        Disk(index=1, device="/dev/vda", size=51200, read_only=True),
    )
    assert found.first.device == "/dev/vdc"


def test_a_disk_that_does_not_come(sys_block: Path) -> None:
    """R-HLP-4: named by its number, after the time given; one without a size yet is not there."""
    block_device(sys_block, "vda", "snf-disk-0")
    block_device(sys_block, "vdb", "snf-disk-1", sectors=0)
    with pytest.raises(TaskError, match=r"disk 1 of the instance did not appear within 0\.05 seconds"):
        find_disks([JobDisk(index=0), JobDisk(index=1)], timeout=0.05)


def test_a_disk_that_was_added_is_looked_for(sys_block: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-4: a kernel without ACPI finds what came to the bus only when it is asked to look again."""
    block_device(sys_block, "vda", "snf-disk-0")
    monkeypatch.setattr("time.sleep", lambda _: block_device(sys_block, "vdb", "snf-disk-1"))
    assert len(find_disks([JobDisk(index=0)], timeout=0).all) == 1
    assert not (sys_block.parent / "rescan").exists()
    assert len(find_disks([JobDisk(index=0), JobDisk(index=1)], timeout=5).all) == 2
    assert (sys_block.parent / "rescan").read_text() == "1"


def test_the_ninth_disk(sys_block: Path) -> None:
    """T-39: there is no gap in the sequence of letters."""
    for index, letter in enumerate("abcdefghij"):
        block_device(sys_block, f"vd{letter}", f"snf-disk-{index}")
    found = find_disks([JobDisk(index=index) for index in range(10)], timeout=0)
    assert found.all[8].device == "/dev/vdi"


def test_partition_devices_are_named_as_the_kernel_does() -> None:
    """R-HLP-4: with a p after a digit."""
    assert Disk(index=0, device="/dev/vda", size=0).partition_device(15) == "/dev/vda15"
    assert Disk(index=0, device="/dev/loop3", size=0).partition_device(1) == "/dev/loop3p1"
