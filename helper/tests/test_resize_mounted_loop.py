"""The disk tasks one after the other on loop devices: partition, file system, swap; XFS and Btrfs mounted."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import ROOT_TREE, Fs, Loop, ext4, looped, machine_of, make_image, recorded, warnings_of
from snf_image_contract.events import (
    FoundPartition,
    FoundSystem,
    FoundUsers,
    OperatorTaskWouldRun,
    WouldRun,
)
from snf_image_contract.job import AddSwap, FixPartitionTable, OperatorTask, SkippedTask, SwapPartition
from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper import (
    filesystem_resize,
    fix_partition_table,
    inspection,
    kernel_mount,
    mounts,
    partition_table,
    root_mount,
)
from snf_image_helper.detection import detect
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.families import family_of
from snf_image_helper.guest import Guest
from snf_image_helper.linux.resize_mounted import resize_mounted
from snf_image_helper.linux.swap import add_swap
from snf_image_helper.machine import Machine
from snf_image_process import run
from trees import RecordingReporter, make_job

pytestmark = pytest.mark.requires("root", "loop")
MIB = 1 << 20


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


@contextlib.contextmanager
def guest_on(machine: Machine) -> Iterator[Guest]:
    tree = mounts.mount_image(machine)
    try:
        yield Guest(
            root=tree.root,
            family=family_of(OsFamily.LINUX),
            job=machine.job,
            report=machine.report,
            disks=machine.disks,
            resize_partition=machine.resize_partition,
            target=tree.target,
        )
    finally:
        tree.unmount()


def filesystem_of(kind: str) -> Fs:
    if kind == "ext4":
        return ext4(ROOT_TREE)
    size, identifier = {"xfs": (320, "-muuid="), "btrfs": (200, "-U")}[kind]
    return Fs(size=size, argv=(f"mkfs.{kind}", "-q", f"{identifier}{uuid.uuid4()}"), tree=ROOT_TREE)


@pytest.mark.parametrize("label", ["dos", "gpt"])
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_partition_file_system_and_swap(tmp_path: Path, loop: Loop, label: str, kind: str) -> None:
    """R-TASK-FIX-11, R-TASK-FSU-5, R-TASK-FSM-2, R-TASK-SWAP-3: devices are there, the space is used."""
    path = tmp_path / "disk"
    number = 5 if label == "dos" else 3
    asked = SwapPartition(number=number, megabytes=64)
    disk = loop(make_image(path, label, filesystem_of(kind), disk_mib=700))
    machine = machine_of(
        disk, fix_partition_table=FixPartitionTable(swap=asked), add_swap=AddSwap(swap=asked)
    )
    fix_partition_table.run(machine)
    assert os.path.exists(disk.partition_device(number))
    filesystem_resize.unmounted(machine)
    with guest_on(machine) as guest:
        resize_mounted(guest)
        add_swap(guest)
        assert f"{disk.partition_device(1)}" == kernel_mount.mounted_below(guest.target)[0].source
        status = os.statvfs(guest.target)
        assert status.f_blocks * status.f_frsize > 500 * MIB
    changed = [(change.path, change.change) for change in recorded(machine).changes]
    assert changed.count(("disk 0 partition 1", "filesystem")) == 1
    assert (f"disk 0 partition {number}", "swap") in changed
    assert warnings_of(machine) == []
    check = {
        "ext4": ["e2fsck", "-f", "-n"],
        "xfs": ["xfs_repair", "-n"],
        "btrfs": ["btrfs", "check"],
    }[kind]
    run([*check, disk.partition_device(1)], timeout=120)
    assert (
        run(["blkid", "-p", "-o", "value", "-s", "TYPE", disk.partition_device(number)], timeout=30).text
        == "swap\n"
    )


def test_an_ext_that_was_grown_needs_nothing_mounted(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-FSM-2, R-TASK-4: quietly."""
    machine = machine_of(loop(make_image(tmp_path / "disk", "dos", ext4(ROOT_TREE), disk_mib=64)))
    with guest_on(machine) as guest:
        resize_mounted(guest)
    assert warnings_of(machine) == []


def test_what_is_not_mounted_is_not_grown(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-FSM-2: no entry of fstab names the last partition: a warning; likewise for other contents."""
    for last, warning in (
        (dataclasses.replace(filesystem_of("xfs"), tree={}), "xfs is not mounted and therefore not resized"),
        (Fs(size=8, argv=("true",)), "unknown contents does not grow while it is mounted"),
    ):
        directory = tmp_path / last.argv[0]
        directory.mkdir()
        machine = machine_of(loop(make_image(directory / "disk", "gpt", ext4(ROOT_TREE), last, disk_mib=500)))
        with guest_on(machine) as guest:
            resize_mounted(guest)
        assert warnings_of(machine) == [f"disk 0 partition 2: {warning}"]


def test_nothing_to_grow(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-FSM-1: RESIZE_PART is empty: a warning."""
    machine = machine_of(loop(make_image(tmp_path / "disk", "dos", ext4(ROOT_TREE), disk_mib=64)))
    with guest_on(dataclasses.replace(machine, resize_partition=None)) as guest:
        resize_mounted(guest)
    assert "no partition was enlarged" in warnings_of(machine)[0]


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_inspection_tells_and_changes_nothing(tmp_path: Path, loop: Loop) -> None:
    """D-28, D-34: partitions, system, users, the tasks that would run; the image stays as it was."""
    path = tmp_path / "disk"
    tree = ROOT_TREE | {
        "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nman:x:6:12::/:/usr/sbin/nologin\n"
        "a b\x1b:x:1000:1000::/home/a:/bin/sh\nghost:x:1001:1001::/:/bin/sh\nbroken\n",
        "/etc/shadow": "root:*:1::::::\nman:*:1::::::\na b\x1b:!:1::::::\n",
    }
    plain: Disk = make_image(path, "gpt", ext4(tree), disk_mib=64)
    before = digest(path)
    skipped = (SkippedTask(task=TaskName.ADD_SWAP, reason="EXCLUDE_TASK_AddSwap=yes"),)
    added = (OperatorTask(file="55InstallAgent"), OperatorTask(file="90Last", skipped="not today"))
    job = make_job(action="inspect", skipped=skipped, operator_tasks=added)
    disk = loop(plain)
    report = RecordingReporter()
    disks = Disks(all=(disk,))
    found = detect(disks, job, report)
    machine = Machine(
        disks=disks,
        job=job,
        report=report,
        os_family=found.os_family,
        root_partition=found.root_partition,
        resize_partition=partition_table.resize_partition(partition_table.read(disk)),
    )
    inspection.inspect(machine, found)
    events = report.events
    (partition,) = [event for event in events if isinstance(event, FoundPartition)]
    assert (partition.number, partition.start, partition.sectors, partition.filesystem, partition.role) == (
        1, 2048, 40 * 2048, "ext4", "root",
    )  # fmt: skip
    (system,) = [event for event in events if isinstance(event, FoundSystem)]
    assert (system.partition_table, system.distribution, system.version) == ("gpt", "debian", "12")
    assert (system.hostname, system.cloud_init) == ("old", "")
    (users,) = [event for event in events if isinstance(event, FoundUsers)]
    assert (users.users, users.more) == (("root", "a b\x1b"), 0)
    tasks = {event.task: event.skipped for event in events if isinstance(event, WouldRun)}
    assert list(tasks) == list(TaskName)
    assert tasks[TaskName.ADD_SWAP] == "EXCLUDE_TASK_AddSwap=yes"
    assert tasks[TaskName.INSTALL_UNATTEND] == "does not apply to linux"
    assert tasks[TaskName.ASSIGN_HOSTNAME] is None
    foretold = [event for event in events if isinstance(event, WouldRun | OperatorTaskWouldRun)]
    names = [event.task for event in foretold]
    assert names[names.index("InstallAgent") + 1] == "EnforcePersonality"
    assert foretold[-1] == OperatorTaskWouldRun(task="Last", skipped="not today")
    assert report.changes == []
    run(["sync", str(path)], timeout=30)
    assert digest(path) == before
