"""NTFS in plain files: its state, mounting it, what new files get, growing it. Mounts need root and FUSE."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_image_contract.events import Change
from snf_image_contract.job import FilesystemResizeAfterUmount, MountImage
from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper import filesystem_resize, mounts, ntfs, ntfs_security, partition_table, root_mount
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.filesystems import Volume, whole
from snf_image_helper.machine import Machine
from snf_image_helper.ntfs_security import ADMINISTRATORS, DESCRIPTOR, SYSTEM, Ace, inherited, private, sid
from snf_image_helper.root import Root
from snf_image_process import run
from trees import RecordingReporter, make_job

MIB = 1 << 20
USERS = sid(32, 545)
FULL, READ = 0x1F01FF, 0x1200A9
needs_ntfs = pytest.mark.requires("ntfs-3g")
needs_mount = pytest.mark.requires("root", "ntfs-3g", "fuse")


def make_ntfs(path: Path, *, mib: int = 8) -> Path:
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    options = ["--partition-start", "2048", "--sectors-per-track", "63", "--heads", "255"]
    run(["mkntfs", "-Q", "-F", "-q", "-s", "512", *options, str(path)], timeout=60)
    return path


def volume(path: Path) -> Volume:
    return whole(Disk(index=0, device=str(path), size=path.stat().st_size))


def make_dirty(path: Path) -> Path:
    """ntfsfix without its option leaves a volume marked for a check."""
    run(["ntfsfix", str(path)], timeout=60)
    return path


def make_unclean(path: Path) -> Path:
    """A log whose restart pages say that a client is using it."""
    text = run(["ntfsinfo", "-v", "-i", "2", str(path)], timeout=60).text
    (cluster,) = re.findall(r"^\s+0x0\s+0x([0-9a-f]+)\s+0x[0-9a-f]+$", text, re.MULTILINE | re.IGNORECASE)
    area = struct.pack("<QHHHHIHHQIHHII", 1, 1, 0xFFFF, 0, 0, 45, 0xE0, 0x40, 2 * MIB, 0, 0x30, 0x40, 1, 0)
    client = struct.pack("<QQHHH6xI", 1, 1, 0xFFFF, 0xFFFF, 0, 8) + "NTFS".encode("utf-16-le").ljust(
        128, b"\0"
    )
    head = struct.pack("<4sHHQIIHhh", b"RSTR", 0x1E, 9, 0, 4096, 4096, 0x30, 1, 1)
    page = bytearray(
        (head + struct.pack("<9H", 1, *[0] * 8)).ljust(0x30, b"\0") + area.ljust(0x40, b"\0") + client
    )
    page += bytes(4096 - len(page))
    for end in range(512, 4097, 512):
        page[end - 2 : end] = b"\1\0"
    with path.open("r+b") as file:
        file.seek(int(cluster, 16) * 4096)
        file.write(bytes(page) * 2)
    return path


@contextlib.contextmanager
def mounted(
    path: Path, top: Path, *, allow_unclean: bool = False, warned: list[str] | None = None
) -> Iterator[Root]:
    warned = [] if warned is None else warned
    top.mkdir(exist_ok=True)
    ntfs.mount(volume(path), str(top), read_only=False, allow_unclean=allow_unclean, warn=warned.append)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    changes: list[Change] = []
    try:
        yield Root(fd, record=changes.append, warn=warned.append)
    finally:
        os.close(fd)
        root_mount.unmount_below(str(top))


def make_hibernated(path: Path, top: Path) -> Path:
    with mounted(path, top) as root:
        root.write("/hiberfil.sys", b"hibr".ljust(4096, b"\0"))
    return path


# -- state ---------------------------------------------------------------------------------------------


@needs_ntfs
def test_states_of_a_volume(tmp_path: Path) -> None:
    """R-TASK-MNT-3: clean, marked dirty, with a log that needs recovery."""
    path = make_ntfs(tmp_path / "volume")
    assert (ntfs.state(volume(path)), ntfs.is_dirty(volume(path))) == (ntfs.State.CLEAN, False)
    assert ntfs.is_dirty(volume(make_dirty(path)))
    assert ntfs.state(volume(make_unclean(make_ntfs(tmp_path / "unclean")))) is ntfs.State.UNCLEAN


@needs_ntfs
@pytest.mark.parametrize("at", [0x30, 0x40, 4 * 4096, 4 * 4096 + 1024 * 3])
def test_a_damaged_volume(tmp_path: Path, at: int) -> None:
    """R-TASK-MNT-3: refused with a word, or read as it is."""
    path = make_ntfs(tmp_path / "volume")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 16)
    for look in (ntfs.state, ntfs.is_dirty):
        words = ""
        try:
            look(volume(path))
        except ImageError as error:
            words = str(error)
        assert words == "" or words.startswith("disk 0: the NTFS ")


@needs_mount
def test_names_are_found_whatever_their_case(tmp_path: Path) -> None:
    """R-TASK-MNT-3, R-TASK-5, R-TASK-UMO-1: and after the unmount nothing of the driver is left."""
    path = make_ntfs(tmp_path / "volume")
    warned: list[str] = []
    with mounted(path, tmp_path / "top", warned=warned) as root:
        root.mkdir("/WINDOWS/System32")
        root.write("/WINDOWS/File.Txt", b"one")
        root.write("/windows/FILE.txt", b"two")
        assert root.read("/Windows/file.TXT") == b"two"
        assert len(root.list("/windows")) == 2
        for wrong in ("/a:b", "/CON", "/x?"):
            with pytest.raises(ImageError, match="Invalid argument"):
                root.write(wrong, b"")
    assert warned == []
    assert ntfs._drivers_of(str(path)) == []
    assert ntfs.state(volume(path)) is ntfs.State.CLEAN


@needs_mount
def test_a_dirty_volume_is_mounted_with_a_warning(tmp_path: Path) -> None:
    """R-TASK-MNT-3"""
    warned: list[str] = []
    with mounted(make_dirty(make_ntfs(tmp_path / "volume")), tmp_path / "top", warned=warned) as root:
        root.write("/x", b"")
    assert len(warned) == 1
    assert "marked dirty" in warned[0]


@needs_mount
@pytest.mark.parametrize("kind", ["unclean", "hibernated"])
def test_an_unclean_volume_needs_consent(tmp_path: Path, kind: str) -> None:
    """R-TASK-MNT-3, T-72: not a byte is changed without it; with it there is a warning."""
    path, top = make_ntfs(tmp_path / "volume"), tmp_path / "top"
    make_unclean(path) if kind == "unclean" else make_hibernated(path, top)
    before = path.read_bytes()
    with pytest.raises(ImageError, match="ALLOW_UNCLEAN_NTFS"), mounted(path, top):
        pass
    assert path.read_bytes() == before
    warned: list[str] = []
    with mounted(path, top, allow_unclean=True, warned=warned) as root:
        root.write("/x", b"1")
        assert not root.exists("/hiberfil.sys") or kind == "unclean"
    assert "is discarded (ALLOW_UNCLEAN_NTFS)" in warned[0]
    assert ntfs.state(volume(path)) is ntfs.State.CLEAN


@needs_mount
@pytest.mark.parametrize("kind", ["clean", "unclean", "hibernated", "dirty"])
def test_looking_changes_nothing(tmp_path: Path, kind: str) -> None:
    """R-DET-6, T-72: whatever state the volume is in."""
    path, top = make_ntfs(tmp_path / "volume"), tmp_path / "top"
    top.mkdir()
    if kind == "hibernated":
        make_hibernated(path, top)
    elif kind != "clean":
        {"unclean": make_unclean, "dirty": make_dirty}[kind](path)
    before = path.read_bytes()
    ntfs.mount(volume(path), str(top), read_only=True, allow_unclean=False, warn=pytest.fail)
    os.listdir(top)
    root_mount.unmount_below(str(top))
    assert path.read_bytes() == before


@needs_mount
def test_the_root_must_be_a_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-MNT-6, R-TASK-MNT-5: the error asks about ROOT_PARTITION, and nothing stays mounted."""
    path = make_ntfs(tmp_path / "volume")
    monkeypatch.setattr(mounts, "TARGET", str(tmp_path / "target"))
    monkeypatch.setattr(mounts, "_root_volume", lambda _: volume(path))
    machine = machine_of(path, monkeypatch)
    with pytest.raises(ImageError, match=r"System32; is ROOT_PARTITION=1 right\?"):
        mounts.mount_image(machine)
    with mounted(path, tmp_path / "top") as root:
        root.mkdir("/WINDOWS/SYSTEM32")
    tree = mounts.mount_image(machine)
    assert tree.root.is_dir("/Windows/System32")
    tree.unmount()
    assert ntfs._drivers_of(str(path)) == []


# -- security descriptors --------------------------------------------------------------------------------


def aces(path: Path) -> list[tuple[int, int, bytes]]:
    found = ntfs_security.read_attribute(str(path), DESCRIPTOR)
    assert found is not None
    return [(ace.flags, ace.mask, ace.who) for ace in ntfs_security._aces(found)]


@needs_mount
def test_what_files_get_instead_of_a_mode(tmp_path: Path) -> None:
    """R-TASK-6: private files are for SYSTEM and administrators, others inherit, replaced ones keep."""
    top = tmp_path / "top"
    with mounted(make_ntfs(tmp_path / "volume"), top) as root:
        root.mkdir("/dir")
        parent = ntfs_security._packed([Ace(0, 3, FULL, ADMINISTRATORS), Ace(0, 3, READ, USERS)], 0)
        os.setxattr(top / "dir", DESCRIPTOR, parent)
        root.write("/dir/public", b"x")
        root.write("/dir/secret", b"x", mode=0o600)
        root.mkdir("/dir/hidden", mode=0o700)
        only_us = [(FULL, SYSTEM), (FULL, ADMINISTRATORS)]
        assert aces(top / "dir/public") == [(0x10, FULL, ADMINISTRATORS), (0x10, READ, USERS)]
        assert [entry[1:] for entry in aces(top / "dir/secret")] == only_us
        assert [entry[1:] for entry in aces(top / "dir/hidden")] == only_us
        own = ntfs_security._packed([Ace(0, 0, READ, USERS)] * 12, 0x1000)
        os.setxattr(top / "dir/public", DESCRIPTOR, own)
        os.setxattr(top / "dir/public", "system.ntfs_attrib", struct.pack("<I", 0x22))
        root.write("/DIR/Public", b"new", mode=0o600)
        assert aces(top / "dir/public") == [(0, READ, USERS)] * 12
        assert struct.unpack("<I", os.getxattr(top / "dir/public", "system.ntfs_attrib"))[0] & 2


@needs_mount
def test_a_short_name_is_no_second_file(tmp_path: Path) -> None:
    """R-TASK-6, D-29: the file is replaced without a warning, and keeps its short name."""
    top, warned = tmp_path / "top", list[str]()
    with mounted(make_ntfs(tmp_path / "volume"), top, warned=warned) as root:
        root.write("/A long name.text", b"one")
        os.setxattr(top / "A long name.text", ntfs_security.SHORT_NAME, b"ALONGN~1.TEX")
        root.write("/a LONG name.text", b"two")
        assert (top / "alongn~1.tex").read_bytes() == b"two"
        assert warned == []
        os.link(top / "A long name.text", top / "second")
        root.write("/second", b"three")
        assert "has 3 names; rewritten in place" in warned[0]


def test_inheritance() -> None:
    """R-TASK-6: MS-DTYP 2.5.3.4, for files and for directories."""
    creator = sid(0, authority=3)
    parent = ntfs_security._packed(
        [
            Ace(0, 0x00, FULL, SYSTEM),  # of the directory alone
            Ace(0, 0x01, READ, USERS),  # for files
            Ace(0, 0x02, READ, SYSTEM),  # for directories
            Ace(0, 0x0B, 0x10000000, creator),  # full control, for whoever makes it
            Ace(1, 0x07, 0x2, USERS),  # for what lies in it directly
        ],
        0,
    )
    of_file = ntfs_security._aces(inherited(parent, directory=False))
    assert of_file == [Ace(0, 0x10, READ, USERS), Ace(0, 0x10, FULL, ADMINISTRATORS), Ace(1, 0x10, 2, USERS)]
    assert ntfs_security._aces(inherited(parent, directory=True)) == [
        Ace(0, 0x19, READ, USERS),
        Ace(0, 0x12, READ, SYSTEM),
        Ace(0, 0x10, FULL, ADMINISTRATORS),
        Ace(0, 0x1B, 0x10000000, creator),
        Ace(1, 0x10, 2, USERS),
    ]


@pytest.mark.parametrize(
    "parent", [b"", b"\1\0\4\x80", private(directory=False), b"\xff" * 100, private(directory=True)[:60]]
)
def test_a_parent_that_passes_nothing_on(parent: bytes) -> None:
    """R-TASK-6: private is the safe end, whatever the image holds."""
    found = ntfs_security._aces(inherited(parent, directory=False))
    assert {ace.who for ace in found} <= {SYSTEM, ADMINISTRATORS}
    assert found


# -- growing -------------------------------------------------------------------------------------------


def machine_of(path: Path, monkeypatch: pytest.MonkeyPatch, **fields: object) -> Machine:
    """A machine whose partition 1 is a file, without devices of partitions."""
    disk = Disk(index=0, device=str(path), size=path.stat().st_size)
    partition = partition_table.Partition(number=1, start=0, end=disk.size // 512 - 1, type="0x07")
    table = partition_table.Table(label="mbr", disk_sectors=disk.size // 512, partitions=(partition,))
    monkeypatch.setattr(partition_table, "read", lambda _: table)
    monkeypatch.setattr(filesystem_resize, "volume_of", lambda disk, _: whole(disk))
    report = RecordingReporter()
    report.begin(TaskName.FILESYSTEM_RESIZE_AFTER_UMOUNT)
    family = fields.pop("os_family", OsFamily.WINDOWS)
    assert isinstance(family, OsFamily)
    return Machine(
        disks=Disks(all=(disk,)), job=make_job(mount_image=MountImage(), **fields), report=report,
        os_family=family, root_partition=1, resize_partition=1,
    )  # fmt: skip


def grown(path: Path, monkeypatch: pytest.MonkeyPatch, **fields: object) -> list[str]:
    """The warnings of the task."""
    machine = machine_of(path, monkeypatch, **fields)
    filesystem_resize.after_umount(machine)
    assert isinstance(machine.report, RecordingReporter)
    return [str(getattr(event, "message", "")) for event in machine.report.events]


@needs_ntfs
@pytest.mark.parametrize("skip_check", [False, True])
def test_growing_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip_check: bool) -> None:
    """R-TASK-NTFS-1: to the end of the partition, then marked for a check, or not; both are warnings."""
    path = make_ntfs(tmp_path / "volume")
    os.truncate(path, 20 * MIB)
    asked = FilesystemResizeAfterUmount(offline_ntfs=True, skip_check=skip_check)
    (warning,) = grown(path, monkeypatch, filesystem_resize_after_umount=asked)
    assert ("run CHKDSK" in warning) is skip_check
    assert 20 * MIB - 4096 <= ntfs.size(volume(path)) <= 20 * MIB
    assert ntfs.is_dirty(volume(path)) is not skip_check


@needs_ntfs
def test_nothing_left_to_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-NTFS-1: no change, no warning."""
    asked = FilesystemResizeAfterUmount(offline_ntfs=True)
    assert grown(make_ntfs(tmp_path / "volume"), monkeypatch, filesystem_resize_after_umount=asked) == []


@needs_ntfs
def test_who_grows_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-NTFS-1, R-TASK-NTFS-2: Windows itself at its first start, if nobody asks; others always."""
    path = make_ntfs(tmp_path / "volume")
    os.truncate(path, 20 * MIB)
    (warning,) = grown(path, monkeypatch)
    assert "not resized offline" in warning
    assert ntfs.size(volume(path)) == 8 * MIB
    grown(path, monkeypatch, os_family=OsFamily.WINDOWS_LEGACY)
    assert ntfs.size(volume(path)) > 19 * MIB


@needs_ntfs
def test_a_dirty_volume_is_not_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-NTFS-1"""
    path = make_dirty(make_ntfs(tmp_path / "volume"))
    os.truncate(path, 20 * MIB)
    asked = FilesystemResizeAfterUmount(offline_ntfs=True)
    with pytest.raises(ImageError, match="marked dirty and cannot be grown"):
        grown(path, monkeypatch, filesystem_resize_after_umount=asked)


@needs_ntfs
@pytest.mark.parametrize("task", [filesystem_resize.unmounted, filesystem_resize.after_umount])
def test_a_truncated_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Callable[[Machine], None]
) -> None:
    """R-TASK-NTFS-2: found before anything else is done with it."""
    path = make_ntfs(tmp_path / "volume")
    os.truncate(path, 6 * MIB)
    with pytest.raises(ImageError, match="larger than its partition"):
        task(machine_of(path, monkeypatch))


@needs_ntfs
def test_a_failure_to_grow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-NTFS-1: with the program's words."""
    path = make_ntfs(tmp_path / "volume")
    monkeypatch.setattr(ntfs, "is_dirty", lambda _: False)
    os.truncate(path, 20 * MIB)
    make_dirty(path)
    with pytest.raises(TaskError, match="cannot be enlarged: exit status 1"):
        ntfs.grow(volume(path), clear_dirty=False)


def test_waiting_for_a_driver_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-UMO-1: then the failure names the device."""
    monkeypatch.setattr(ntfs, "_drivers_of", lambda _: [1])
    with pytest.raises(TaskError, match="/dev/vda1: the NTFS driver did not end"):
        ntfs.wait_until_ended("/dev/vda1", timeout=0.0)


@needs_mount
def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    """R-TASK-5: another system made them; one of them is changed, and nothing is lost or doubled."""
    path, top = make_ntfs(tmp_path / "volume"), tmp_path / "top"
    top.mkdir()
    run(["ntfs-3g", str(path), str(top)], timeout=60)
    for name in ("unattend.xml", "UNATTEND.XML"):
        (top / name).write_text(name)
    run(["umount", str(top)], timeout=60)
    while any(str(path).encode() in words for words in map(command_line, os.listdir("/proc"))):
        time.sleep(0.05)
    with mounted(path, top) as root:
        assert root.read("/Unattend.xml") in (b"unattend.xml", b"UNATTEND.XML")
        root.write("/unattend.XML", b"new")
        assert root.read("/unattend.xml") == b"new"
        assert len(root.list("/")) == 2


def command_line(process: str) -> list[bytes]:
    try:
        return Path("/proc", process, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
