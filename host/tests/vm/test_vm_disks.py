"""Descriptors of disks: opened anew, exactly as qemu will use them."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snf_image_host.errors import NodeError
from snf_image_host.vm import disks as disks_module
from snf_image_host.vm.devices import FIRST_DISK_ADDRESS, MEDIUM_ADDRESS
from snf_image_host.vm.disks import DiskAdder, cold_disk, reopen
from snf_image_host.vm.qmp import QmpError

if TYPE_CHECKING:
    from tests.vm.conftest import Disk


class FakeQmp:
    """Says yes, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def execute(self, command: str, arguments: Any = None, *, fds: Any = ()) -> Any:
        self.asked.append((command, arguments))
        return {"fdset-id": len(self.asked)} if command == "add-fd" else {}


@pytest.mark.parametrize(("read_only", "mode"), [(True, os.O_RDONLY), (False, os.O_RDWR)])
def test_the_mode_is_exact(tmp_path: Path, *, read_only: bool, mode: int) -> None:
    """R-HLP-2: whatever the host's own descriptor can do."""
    (tmp_path / "disk").write_bytes(bytes(4096))
    with open(tmp_path / "disk", "r+b") as file:
        opened = reopen(file.fileno(), read_only=read_only)
        flags = fcntl.fcntl(opened.fd, fcntl.F_GETFL)
        assert flags & os.O_ACCMODE == mode
        assert bool(flags & os.O_DIRECT) == opened.direct
        # The host goes on with its own flags.
        assert not fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_DIRECT
        os.close(opened.fd)


def test_a_disk_that_cannot_be_opened_again_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-10: the node's fault, told by the disk's name."""
    (tmp_path / "lv-1").write_bytes(b"")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with open(tmp_path / "lv-1", "rb") as file:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(NodeError, match=r"disk lv-1 cannot be opened .* Permission denied"):
            reopen(file.fileno(), read_only=True)


def test_no_descriptor_is_left(disks: tuple[Disk, ...]) -> None:
    """R-HLP-13: qemu has its own copy once it has answered, or refused."""
    before = set(os.listdir("/proc/self/fd"))
    DiskAdder(FakeQmp()).add_disk(disks[0])  # type: ignore[arg-type] # a stand-in

    class Refusing(FakeQmp):
        def execute(self, command: str, arguments: Any = None, *, fds: Any = ()) -> Any:
            raise QmpError("no")

    with pytest.raises(NodeError, match="disk 0 could not be added to the helper VM"):
        DiskAdder(Refusing()).add_disk(disks[0])  # type: ignore[arg-type] # a stand-in
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_bus_has_an_end(disks: tuple[Disk, ...]) -> None:
    """R-HLP-4: told before qemu is asked for a slot that does not exist."""
    qmp = FakeQmp()
    adder = DiskAdder(qmp)  # type: ignore[arg-type] # a stand-in
    adder.add_disk(disks[0])
    for _ in range(FIRST_DISK_ADDRESS + 1, MEDIUM_ADDRESS):
        adder.add_disk(disks[1])
    addresses = [int(asked["addr"], 16) for command, asked in qmp.asked if command == "device_add"]
    assert addresses == list(range(5, 31))
    with pytest.raises(NodeError, match="takes at most 27 disks"):
        adder.add_disk(disks[1])


def test_the_first_disk_and_the_medium_come_behind_devices_that_are_there(disks: tuple[Disk, ...]) -> None:
    """R-HLP-4: nothing is added to the bus for them, which costs the guest more than a job."""
    qmp = FakeQmp()
    adder = DiskAdder(qmp)  # type: ignore[arg-type] # a stand-in
    adder.add_disk(disks[0])
    adder.add_medium(disks[0].fd)
    put = ["add-fd", "blockdev-add", "blockdev-reopen"]
    assert [command for command, _ in qmp.asked] == [*put, "block_resize", *put]
    # To the size that it has: the guest is told, and nothing else happens.
    assert dict(qmp.asked)["block_resize"] == {"node-name": "disk-0", "size": disks[0].size}
    reopened = [asked["options"] for command, asked in qmp.asked if command == "blockdev-reopen"]
    added = [asked for command, asked in qmp.asked if command == "blockdev-add"]
    assert [[(node["node-name"], node["file"])] for [node] in reopened] == [
        [("disk-0", "disk-0-file")],
        [("parameters", "parameters-file")],
    ]
    assert [(node["node-name"], node["read-only"]) for node in added] == [
        ("disk-0-file", False),
        ("parameters-file", True),
    ]


def test_the_guest_is_not_told_the_size_of_a_disk_it_must_not_write_to(disks: tuple[Disk, ...]) -> None:
    """R-HLP-4: qemu refuses to, and the helper finds it out by itself."""
    qmp = FakeQmp()
    read_only = dataclasses.replace(disks[0], read_only=True)
    DiskAdder(qmp).add_disk(read_only)  # type: ignore[arg-type] # a stand-in
    assert [command for command, _ in qmp.asked] == ["add-fd", "blockdev-add", "blockdev-reopen"]


def test_block_devices_are_opened_as_such(disks: tuple[Disk, ...]) -> None:
    """R-HLP-4, T-40: qemu's file driver refuses them."""

    class Block:
        fd, index, read_only, size, is_block = disks[0].fd, 3, False, 4096, True

    qmp = FakeQmp()
    DiskAdder(qmp).add_disk(Block())  # type: ignore[arg-type] # stand-ins
    node = next(asked for command, asked in qmp.asked if command == "blockdev-add")
    assert node["file"]["driver"] == "host_device"
    assert node["driver"] == "raw"
    cold = cold_disk(Block())
    assert (cold.is_block, cold.serial) == (True, "snf-disk-3")
    os.close(cold.fd)


def test_growth_is_limited_to_the_largest_file(
    disks: tuple[Disk, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-2: block devices do not count; a process that is gone is somebody else's business."""
    seen: list[Any] = []
    monkeypatch.setattr(resource, "prlimit", lambda *given: seen.append(given))
    disks_module.forbid_growth(42, disks)
    disks_module.forbid_growth(42, ())
    assert [limits for _, _, limits in seen] == [(1048576, 1048576), (0, 0)]
    monkeypatch.undo()
    disks_module.forbid_growth(2**22 + 1, disks)
