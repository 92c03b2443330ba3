"""Small disk images with real file systems, and loop devices for tests that mount them as root."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper import partition_table
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.machine import Machine
from snf_image_process import run
from trees import Node, RecordingReporter, Tree, make_job, make_tree

MIB = 1 << 20
ROOT_UUID = "11111111-2222-4333-8444-555555555555"
ROOT_TREE: dict[str, Node] = {
    "/etc/fstab": f"UUID={ROOT_UUID} / ext4 defaults 0 1\n",
    "/etc/os-release": "ID=debian\nVERSION_ID=12\nPRETTY_NAME=Debian\n",
    "/etc/hostname": "old\n",
}
"""What makes a tree a Linux one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fs:
    """One partition: sizes in MiB; ``argv`` is a mkfs without its device."""

    size: int
    argv: tuple[str, ...]
    tree: Tree = dataclasses.field(default_factory=dict)


def ext4(tree: Tree, *, size: int = 40, uuid: str = ROOT_UUID, options: tuple[str, ...] = ()) -> Fs:
    return Fs(size=size, argv=("mkfs.ext4", "-q", "-F", "-U", uuid, *options), tree=tree)


def make_filesystem(path: Path, fs: Fs) -> None:
    """A file system in a file of its own, its tree inside. ext is filled without a mount, others with one."""
    with path.open("wb") as stream:
        stream.truncate(fs.size * MIB)
    tree = path.with_suffix(".tree")
    make_tree(str(tree), fs.tree) if fs.tree else tree.mkdir()
    if fs.argv[0].startswith("mkfs.ext"):
        run([*fs.argv, "-d", str(tree), str(path)], timeout=60)
        return
    run([*fs.argv, str(path)], timeout=60)
    if fs.tree:
        with mounted(path) as top:
            make_tree(top, fs.tree)


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[str]:
    """A file system in a file, mounted through a loop device. Needs root."""
    top = path.with_suffix(".mounted")
    top.mkdir(exist_ok=True)
    run(["mount", "-o", "loop", str(path), str(top)], timeout=60)
    try:
        yield str(top)
    finally:
        run(["umount", str(top)], timeout=60)


def make_image(path: Path, label: str, *parts: Fs, disk_mib: int) -> Disk:
    """A partitioned disk with the file systems in order, each on whole MiB, on a disk of ``disk_mib``."""
    script, at = [f"label: {label}"], 1
    pieces = []
    for number, fs in enumerate(parts, start=1):
        piece = path.with_name(f"{path.name}-{number}")
        make_filesystem(piece, fs)
        pieces.append((at, piece))
        script.append(f"start={at * 2048}, size={fs.size * 2048}")
        at += fs.size
    with path.open("wb") as stream:
        stream.truncate((at + 1) * MIB)
    run(["sfdisk", "-q", str(path)], timeout=30, stdin="\n".join(script).encode() + b"\n")
    for start, piece in pieces:
        run(["dd", f"if={piece}", f"of={path}", "bs=1M", f"seek={start}", "conv=notrunc,sparse"], timeout=60)
    os.truncate(path, disk_mib * MIB)
    return Disk(index=0, device=str(path), size=disk_mib * MIB)


@contextlib.contextmanager
def looped(disk: Disk) -> Iterator[Disk]:
    """The same disk as a block device, whose partitions can be made. Needs root."""
    argv = ["losetup", "--find", "--show", "--partscan", disk.device]
    device = run(argv, timeout=30).text.strip()
    try:
        yield dataclasses.replace(disk, device=device)
    finally:
        run(["losetup", "--detach", device], timeout=30)


Loop = Callable[[Disk], Disk]


def machine_of(
    *disks: Disk, task: TaskName = TaskName.MOUNT_IMAGE, root_partition: int = 1, **fields: object
) -> Machine:
    """A machine with these disks, ready for ``task``."""
    report = RecordingReporter()
    report.begin(task)
    table = partition_table.read(disks[0])
    return Machine(
        disks=Disks(all=disks),
        job=make_job(**fields),
        report=report,
        os_family=OsFamily.LINUX,
        root_partition=root_partition,
        resize_partition=partition_table.resize_partition(table),
    )


def recorded(machine: Machine) -> RecordingReporter:
    assert isinstance(machine.report, RecordingReporter)
    return machine.report


def warnings_of(machine: Machine) -> list[str]:
    return [str(getattr(event, "message", "")) for event in recorded(machine).events]
