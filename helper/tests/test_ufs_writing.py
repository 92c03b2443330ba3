"""UFS that is written to by a driver that knows little of it: the root of a BSD, and what of it must stay.

Mounts are recorded, not made: the virtual machines of the matrix make them.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from images import machine_of
from layouts import Part, gpt_disk, mbr_disk
from snf_image_contract.names import OsFamily
from snf_image_helper import kernel_mount, mounts
from snf_image_helper.disks import Disk
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.filesystems import Volume, volume_of
from snf_image_helper.machine import Machine
from snf_image_helper.mounts import Mounted, mount_image
from snf_image_helper.partition_table import read
from snf_image_helper.partition_table.types import GPT_FREEBSD_UFS
from snf_image_helper.root_mount import mount_volume
from snf_image_helper.signatures import Kind
from snf_image_helper.ufs.writing import Writing, grow_volume
from test_disklabel import FFS, label
from ufs.mkfs import make
from ufs.reader import Reader
from ufs.superblock import Shape
from ufs.verify import verify
from ufs_images import MIB, NODES

START = 2048
SIZE = 8 * MIB
UFS1 = Shape(version=1, size=SIZE, bsize=8192, fsize=1024)
UFS2 = Shape(version=2, size=SIZE, bsize=8192, fsize=1024, hashes=True)
_FLAGS = {1: 100, 2: 88}
"""By version: where an inode has its file flags."""


class VolumeInFile(Volume):
    """A partition that is reached without a device: a file of its own."""

    def device(self) -> str:
        return f"{self.disk.device}-{self.number}"


def machine_on(path: Path, family: OsFamily, shape: Shape | None, kind: str | int) -> Machine:
    """A disk whose only partition has a UFS, or what looks like an ext2."""
    part = Part(start=START, end=START + SIZE // 512 - 1, type=kind)
    sectors = START + SIZE // 512 + 2048
    table = mbr_disk(sectors, [part]) if isinstance(kind, int) else gpt_disk(sectors, {1: part})
    table.save(str(path))
    inside = path.with_name(f"{path.name}-1")
    fd = os.open(inside, os.O_RDWR | os.O_CREAT)
    if shape is None:
        os.pwrite(fd, b"\x53\xef", 1024 + 56)
    else:
        make(fd, shape, NODES)
    content = os.pread(fd, SIZE, 0)
    os.close(fd)
    with path.open("r+b") as disk:
        disk.seek(START * 512)
        disk.write(content)
    found = machine_of(Disk(index=0, device=str(path), size=sectors * 512))
    return dataclasses.replace(found, os_family=family)


def root_of(machine: Machine) -> VolumeInFile:
    disk = machine.disks.first
    (partition,) = read(disk).usable
    volume = volume_of(disk, partition)
    fields = {field.name: getattr(volume, field.name) for field in dataclasses.fields(Volume)}
    return VolumeInFile(**fields)


Mounts = list[tuple[str, str]]


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> Mounts:
    """Driver and options of each mount that is asked for."""
    asked: Mounts = []

    def note(_source: str, _target: str, driver: str, *, options: str, **_: object) -> None:
        asked.append((driver, options))

    monkeypatch.setattr(kernel_mount, "mount", note)
    return asked


@pytest.mark.parametrize("shape", [UFS1, UFS2])
@pytest.mark.parametrize("slice_type", [0xA6, GPT_FREEBSD_UFS])
def test_the_superblock_decides(shape: Shape, slice_type: int | str, tmp_path: Path, mounted: Mounts) -> None:
    """R-TASK-MNT-2, U-1: versions are told by it, and a slice means what lies at its start, partition a."""
    family = OsFamily.OPENBSD if isinstance(slice_type, int) else OsFamily.FREEBSD
    machine = machine_on(tmp_path / "disk", family, shape, slice_type)
    if isinstance(slice_type, int):
        with open(tmp_path / "disk", "r+b") as disk:
            disk.seek((START + 1) * 512)
            disk.write(label(FFS))
    volume = root_of(machine)
    assert volume.kind is {1: Kind.UFS1, 2: Kind.UFS2}[shape.version]
    mount_volume(volume, "/nowhere", read_only=False)
    assert mounted == [("ufs", {1: "ufstype=44bsd", 2: "ufstype=ufs2"}[shape.version])]


@pytest.mark.parametrize(("field", "value"), [(4, 0), (92, 0x7FFFFFF0), (96, 0x7FFFFFFF)])
@pytest.mark.parametrize("shape", [UFS1, UFS2])
@pytest.mark.parametrize("use", [grow_volume, lambda machine, volume: Writing(machine).prepare(volume)])
def test_damaged_groups_are_refused_before_the_first_write(
    shape: Shape, field: int, value: int, tmp_path: Path, use: Callable[[Machine, Volume], None]
) -> None:
    """R-TASK-FSU-3: the driver would search maps without end that lie behind their cylinder group."""
    machine = machine_on(tmp_path / "disk", OsFamily.FREEBSD, shape, GPT_FREEBSD_UFS)
    volume = root_of(machine)
    fd = os.open(volume.device(), os.O_RDWR)
    ufs = Reader(fd)
    os.pwrite(fd, struct.pack("<I", value), ufs.place(ufs.groups - 1, "cblkno") + field)
    before = os.pread(fd, SIZE, 0)
    with pytest.raises(ImageError, match=rf"^disk 0 partition 1: UFS: .*cylinder group {ufs.groups - 1} "):
        use(machine, volume)
    assert os.pread(fd, SIZE, 0) == before
    os.close(fd)


@pytest.mark.parametrize("family", [OsFamily.FREEBSD, OsFamily.NETBSD, OsFamily.OPENBSD])
def test_nothing_else_is_a_root_of_a_bsd(family: OsFamily, tmp_path: Path, mounted: Mounts) -> None:
    """R-TASK-MNT-2: and a UFS is no root of a Linux."""
    with pytest.raises(ImageError, match=f"ext2 is no root of {family}"):
        mount_image(machine_on(tmp_path / "ext", family, None, GPT_FREEBSD_UFS))
    with pytest.raises(ImageError, match="ufs2 is no root of linux"):
        mount_image(machine_on(tmp_path / "ufs", OsFamily.LINUX, UFS2, GPT_FREEBSD_UFS))
    assert mounted == []


def inode_of(fd: int, path: str) -> tuple[int, int]:
    """Number of a file's inode, and where it lies."""
    reader = Reader(fd)
    (found,) = (file for file in reader.walk() if file.path == path)
    size = {1: 128, 2: 256}[reader.version]
    group, index = divmod(found.number, reader.fs["ipg"])
    return found.number, reader.place(group, "iblkno") + index * size


def status_of(number: int) -> os.stat_result:
    """What the kernel says of a file on a device without a number, as a file is."""
    return os.stat_result((0o100644, number, 0, 1, 0, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("shape", [UFS1, UFS2])
def test_what_the_driver_does_not_show(shape: Shape, tmp_path: Path) -> None:
    """U-7, U-8: files with attributes or flags are known, so that they are not replaced; both stay."""
    machine = machine_on(tmp_path / "disk", OsFamily.FREEBSD, shape, GPT_FREEBSD_UFS)
    volume = root_of(machine)
    writing = Writing(machine)
    with open(volume.device(), "r+b", buffering=0) as file:
        plain, place = inode_of(file.fileno(), "/etc/rc.conf")
        attributed, _ = inode_of(file.fileno(), "/attributes")
        writing.prepare(volume)
        assert not writing.carries_more(status_of(plain))
        # Of UFS1 the attributes are files of their own.
        assert writing.carries_more(status_of(attributed)) is (shape.version == 2)
        immutable = struct.pack("<I", 0o200000)
        os.pwrite(file.fileno(), immutable, place + _FLAGS[shape.version])
        assert writing.carries_more(status_of(plain))
        writing.finish()
        assert os.pread(file.fileno(), 4, place + _FLAGS[shape.version]) == immutable
        assert verify(file.fileno()) == []


def test_what_could_not_be_unmounted_is_not_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U-5, T-76, R-TASK-UMO-1: the deployment fails, and check hashes stay off what may be half written."""
    machine = machine_on(tmp_path / "disk", OsFamily.FREEBSD, UFS2, GPT_FREEBSD_UFS)
    volume = root_of(machine)
    writing = Writing(machine)
    writing.prepare(volume)

    def fail(_: str) -> None:
        raise TaskError("cannot unmount /: Device or resource busy")

    monkeypatch.setattr(mounts, "unmount_below", fail)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    tree = Mounted(str(tmp_path), root, machine, [volume.device()], writing)
    with pytest.raises(TaskError, match="cannot unmount /"):
        tree.unmount()
    with open(volume.device(), "rb") as file:
        assert Reader(file.fileno()).fs["metackhash"] == 0
    monkeypatch.setattr(mounts, "unmount_below", lambda _: None)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    Mounted(str(tmp_path), root, machine, [volume.device()], writing).unmount()
    with open(volume.device(), "rb") as file:
        assert Reader(file.fileno()).fs["metackhash"] == 7
