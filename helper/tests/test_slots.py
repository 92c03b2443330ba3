"""Slots: what the kernel found in them while they were empty, and what it finds when they are filled."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from snf_image_helper import disks, slots
from snf_image_helper.errors import TaskError


class Kernel:
    """Two virtio disks, found while they were empty; what it was asked for, in order."""

    def __init__(self, directory: Path) -> None:
        self.asked: list[tuple[str, object]] = []
        self._block = directory / "block"
        for name, serial, device in (("vda", "snf-params", "virtio3"), ("vdb", "snf-disk-0", "virtio2")):
            (self._block / name).mkdir(parents=True)
            (directory / device).mkdir()
            (self._block / name / "device").symlink_to(directory / device)
            (self._block / name / "serial").write_text(serial)
        for name in ("bind", "unbind"):
            (directory / name).touch()
        self.finds("vda", 262144)
        self.finds("vdb", 1)

    def finds(self, name: str, sectors: int) -> None:
        (self._block / name / "size").write_text(f"{sectors}\n")

    def forget(self, name: str) -> None:
        (self._block / name / "serial").write_text("another")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(tmp_path)
    monkeypatch.setattr(disks, "SYS_BLOCK", str(tmp_path / "block"))
    monkeypatch.setattr(slots, "SYS_BLOCK", str(tmp_path / "block"))
    monkeypatch.setattr(slots, "DRIVER", str(tmp_path))
    monkeypatch.setattr(os.path, "exists", lambda path: path in ("/dev/vda", "/dev/vdb"))
    open_, write = os.open, os.write

    def open_disk(path: str, flags: int) -> int:
        return open_("/dev/null" if path == "/dev/vdb" else path, flags)

    def note_write(fd: int, data: bytes) -> int:
        kernel.asked.append((os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), data))
        return write(fd, data)

    def note_request(_: int, request: int) -> None:
        kernel.asked.append(("ioctl", request))

    monkeypatch.setattr(os, "open", open_disk)
    monkeypatch.setattr(os, "write", note_write)
    monkeypatch.setattr(fcntl, "ioctl", note_request)
    return kernel


def test_a_disk_whose_size_the_kernel_was_told_needs_only_its_partitions(kernel: Kernel) -> None:
    """R-HLP-4, D-19: by serial and not by letter; nothing is asked for before the slot is filled."""
    both = slots.Slots()
    assert both.medium == "/dev/vda"
    assert kernel.asked == []
    kernel.finds("vdb", 8388608)
    both.take_disk()
    assert kernel.asked == [("ioctl", 0x125F)]  # BLKRRPART of linux/fs.h


def test_a_disk_of_whose_size_the_kernel_knows_nothing_is_driven_anew(kernel: Kernel) -> None:
    """R-HLP-4: one that the helper must not write to."""
    slots.Slots().take_disk()
    assert kernel.asked == [("unbind", b"virtio2"), ("bind", b"virtio2")]


def test_a_vm_without_the_slot_that_was_announced(kernel: Kernel) -> None:
    kernel.forget("vdb")
    with pytest.raises(TaskError, match="no slot for disk snf-disk-0"):
        slots.Slots()
    assert kernel.asked == []
