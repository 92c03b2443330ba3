"""Real mounts on loop devices: few, because the virtual machines of the matrix prove the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import (
    ROOT_TREE,
    ROOT_UUID,
    Fs,
    Loop,
    ext4,
    looped,
    machine_of,
    make_image,
    mounted,
    recorded,
    warnings_of,
)
from snf_image_contract.names import OsFamily
from snf_image_helper import kernel_mount, mounts, root_mount
from snf_image_helper.detection import detect
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.machine import Machine
from snf_image_helper.mounts import Mounted, mount_image
from snf_image_process import run
from trees import Directory, Link, Node, RecordingReporter, make_job

pytestmark = pytest.mark.requires("root", "loop")

BOOT_UUID = "22222222-2222-4333-8444-555555555555"
OTHER_UUID = "33333333-2222-4333-8444-555555555555"


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
def image_mounted(machine: Machine) -> Iterator[Mounted]:
    tree = mount_image(machine)
    try:
        yield tree
    finally:
        tree.unmount()


def root_with_fstab(*lines: str) -> dict[str, Node]:
    tree = dict(ROOT_TREE)
    tree["/etc/fstab"] = "\n".join((f"UUID={ROOT_UUID} / ext4 defaults 0 1", *lines)) + "\n"
    return tree


def test_root_and_fstab_are_mounted_and_unmounted(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-1, R-TASK-MNT-5, R-TASK-MNT-7, R-TASK-7, R-TASK-UMO-1: flags everywhere, nothing left."""
    tree = root_with_fstab(
        f"UUID={BOOT_UUID} /boot ext4 defaults 0 2", "LABEL=EFI /boot/efi ext2 umask=0077 0 1"
    )
    tree |= {"/boot": Directory()}
    parts = [
        ext4(tree),
        ext4({"/efi": Directory(), "/kernel": "x"}, uuid=BOOT_UUID),
        Fs(size=34, argv=("mkfs.ext2", "-q", "-L", "EFI")),
    ]
    machine = machine_of(loop(make_image(tmp_path / "disk", "gpt", *parts, disk_mib=128)))
    with image_mounted(machine) as mounted_tree:
        points = kernel_mount.mounted_below(mounts.TARGET)
        assert [point.path.removeprefix(mounts.TARGET) for point in points] == ["/boot/efi", "/boot", ""]
        assert [point.driver for point in points] == ["ext4", "ext4", "ext4"]
        for point in points:
            flags = os.statvfs(point.path).f_flag
            assert flags & os.ST_NOSUID
            assert flags & os.ST_NODEV
            assert flags & os.ST_NOEXEC
        assert mounted_tree.root.read("/boot/kernel") == b"x"
        mounted_tree.root.write("/boot/efi/new", b"y")
    assert kernel_mount.mounted_below(mounts.TARGET) == ()
    assert [(change.path, change.change, change.detail) for change in recorded(machine).changes] == [
        ("/", "mount", "disk 0 partition 1, ext4"),
        ("/boot", "mount", "disk 0 partition 2, ext4"),
        ("/boot/efi", "mount", "disk 0 partition 3, ext2"),
        ("/boot/efi/new", "created", ""),
    ]
    assert warnings_of(machine) == []


@pytest.mark.parametrize("target", ["/link", "/up/../../../..//boot", "/absolute"])
def test_mount_points_lead_nowhere_but_into_the_image(tmp_path: Path, loop: Loop, target: str) -> None:
    """R-TASK-MNT-12, R-TASK-5, T-71: links and .. are resolved beneath the target, without a race."""
    tree = root_with_fstab(f"UUID={BOOT_UUID} {target} ext4 defaults 0 2")
    tree |= {
        "/boot": Directory(),
        "/up": Directory(),
        "/link": Link("../../../../../boot"),
        "/absolute": Link("/boot"),
    }
    disk = make_image(tmp_path / "disk", "dos", ext4(tree), ext4({}, uuid=BOOT_UUID), disk_mib=128)
    with image_mounted(machine_of(loop(disk))):
        assert kernel_mount.mounted_below(mounts.TARGET)[0].path == f"{mounts.TARGET}/boot"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"UUID={BOOT_UUID} /missing ext4 defaults", "the mount point /missing is missing"),
        (f"UUID={BOOT_UUID} /etc/hostname ext4 defaults", "/etc/hostname"),
        (f"UUID={BOOT_UUID} /loop ext4 defaults", "/loop"),
        (f"UUID={OTHER_UUID} /boot ext4 defaults", f"no disk of the instance has UUID={OTHER_UUID}"),
        ("PARTLABEL=nobody /boot ext4 defaults", "no disk of the instance has PARTLABEL=nobody"),
    ],
)
def test_what_cannot_be_mounted_is_an_error_or_with_nofail_a_warning(
    tmp_path: Path, loop: Loop, line: str, problem: str
) -> None:
    """R-TASK-MNT-9, R-TASK-MNT-12, T-68: and nothing stays mounted after the error."""
    for options in ("", ",nofail"):
        tree = root_with_fstab(line + options) | {"/boot": Directory(), "/loop": Link("/loop")}
        directory = tmp_path / f"x{options}"
        directory.mkdir()
        disk = make_image(directory / "disk", "dos", ext4(tree), ext4({}, uuid=BOOT_UUID), disk_mib=128)
        machine = machine_of(loop(disk))
        if options:
            with image_mounted(machine):
                assert len(kernel_mount.mounted_below(mounts.TARGET)) == 1
            assert problem in warnings_of(machine)[0]
        else:
            with pytest.raises(ImageError, match=f"/etc/fstab line 2 .*{problem}"):
                mount_image(machine)
        assert kernel_mount.mounted_below(mounts.TARGET) == ()


@pytest.mark.parametrize("target", ["/boot", "/other"])
def test_a_mount_point_that_is_taken_is_left_out(tmp_path: Path, loop: Loop, target: str) -> None:
    """R-TASK-MNT-8: by the directory it really is."""
    tree = root_with_fstab(
        f"UUID={BOOT_UUID} /boot ext4 defaults", f"UUID={OTHER_UUID} {target} ext4 defaults"
    ) | {"/boot": Directory(), "/other": Link("boot")}
    parts = [ext4(tree), ext4({}, uuid=BOOT_UUID), ext4({}, uuid=OTHER_UUID)]
    machine = machine_of(loop(make_image(tmp_path / "disk", "gpt", *parts, disk_mib=160)))
    with image_mounted(machine):
        assert len(kernel_mount.mounted_below(mounts.TARGET)) == 2
    assert "something is mounted there already" in warnings_of(machine)[0]


def test_disks_of_the_helper_are_not_candidates(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-9, T-67: another block device of this machine has the UUID."""
    stranger = make_image(tmp_path / "other", "gpt", ext4({}, uuid=BOOT_UUID), disk_mib=64)
    loop(stranger)
    tree = root_with_fstab(f"UUID={BOOT_UUID} /boot ext4 defaults") | {"/boot": Directory()}
    machine = machine_of(loop(make_image(tmp_path / "disk", "gpt", ext4(tree), disk_mib=64)))
    with pytest.raises(ImageError, match="no disk of the instance has"):
        mount_image(machine)


def test_a_file_system_that_comes_up_read_only(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-5, T-70: ext4's feature "read-only" does it without any error."""
    path = tmp_path / "disk"
    disk = make_image(path, "dos", ext4(ROOT_TREE, options=("-O", "^metadata_csum")), disk_mib=64)
    with path.open("r+b") as stream:
        stream.seek((1 << 20) + 1024 + 100)
        features = int.from_bytes(stream.read(4), "little")
        stream.seek(-4, os.SEEK_CUR)
        stream.write((features | 0x1000).to_bytes(4, "little"))
    with pytest.raises(ImageError, match="can be mounted read-only only"):
        mount_image(machine_of(loop(disk)))
    assert kernel_mount.mounted_below(mounts.TARGET) == ()


def test_a_tree_without_etc(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-6: the hint names the property."""
    disk = make_image(tmp_path / "disk", "dos", ext4({"/kernel": "x"}), disk_mib=64)
    with pytest.raises(ImageError, match=r"no directory /etc; is ROOT_PARTITION=1 right\?"):
        mount_image(machine_of(loop(disk)))


def test_a_tree_of_ostree(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-6: what it is, and what one can do, instead of a question about the partition."""
    tree = {"/ostree/deploy/fedora-coreos/deploy/0123.0/etc/fstab": ""}
    disk = make_image(tmp_path / "disk", "gpt", ext4(tree), disk_mib=64)
    with pytest.raises(
        ImageError, match=r"partition 1: holds an OSTree or bootc system .*EXCLUDE_ALL_TASKS=yes"
    ):
        mount_image(machine_of(loop(disk)))
    assert kernel_mount.mounted_below(mounts.TARGET) == ()


@pytest.mark.parametrize(("fstab", "warning"), [(None, "is missing"), ("# empty\n", "has no usable entries")])
def test_an_fstab_that_says_nothing(tmp_path: Path, loop: Loop, fstab: str | None, warning: str) -> None:
    """R-TASK-MNT-6: only the root file system, with a warning."""
    tree = {path: node for path, node in ROOT_TREE.items() if path != "/etc/fstab"}
    if fstab is not None:
        tree["/etc/fstab"] = fstab
    machine = machine_of(loop(make_image(tmp_path / "disk", "dos", ext4(tree), disk_mib=64)))
    with image_mounted(machine):
        assert len(kernel_mount.mounted_below(mounts.TARGET)) == 1
    assert warning in warnings_of(machine)[0]


def test_an_unmount_that_fails_fails_the_run(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-TASK-UMO-1, T-76: busy is tried again, then an error that names the mount."""
    monkeypatch.setattr(root_mount, "_BUSY_SECONDS", 0.2)
    machine = machine_of(loop(make_image(tmp_path / "disk", "dos", ext4(ROOT_TREE), disk_mib=64)))
    tree = mount_image(machine)
    held = os.open(f"{mounts.TARGET}/etc/hostname", os.O_RDONLY)
    with pytest.raises(TaskError, match="cannot unmount /: Device or resource busy"):
        tree.unmount()
    os.close(held)
    root_mount.unmount_below(mounts.TARGET)
    assert kernel_mount.mounted_below(mounts.TARGET) == ()


LOST: dict[int, tuple[type[TaskError], str]] = {
    errno.EIO: (TaskError, "/: not everything could be written"),
    errno.ENOSPC: (ImageError, "/: the file system is full"),
    errno.EUCLEAN: (ImageError, "/: the file system is damaged"),
}


@pytest.mark.parametrize("number", list(LOST))
def test_a_write_that_was_lost_fails_the_run_with_everything_unmounted(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """R-TASK-UMO-1, T-76: what no file told when it was written, its file system tells at the end."""

    def lose(_: str) -> None:
        raise OSError(number, os.strerror(number))

    machine = machine_of(loop(make_image(tmp_path / "disk", "dos", ext4(ROOT_TREE), disk_mib=64)))
    tree = mount_image(machine)
    monkeypatch.setattr(kernel_mount, "write_out", lose)
    kind, said = LOST[number]
    with pytest.raises(TaskError, match=said) as raised:
        tree.unmount()
    assert type(raised.value) is kind
    assert kernel_mount.mounted_below(mounts.TARGET) == ()


def test_a_file_that_others_mounted_goes_too(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-UMO-1: a custom task may bind a file over another one."""
    machine = machine_of(loop(make_image(tmp_path / "disk", "dos", ext4(ROOT_TREE), disk_mib=64)))
    tree = mount_image(machine)
    other = tmp_path / "other"
    other.write_text("other")
    run(["mount", "--bind", str(other), f"{mounts.TARGET}/etc/hostname"], timeout=30)
    tree.unmount()
    assert kernel_mount.mounted_below(mounts.TARGET) == ()


def test_what_others_mounted_below_goes_too(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-UMO-1: a custom task may mount; deepest first, exact path prefix."""
    neighbour = Path(f"{mounts.TARGET}-neighbour")
    neighbour.mkdir(exist_ok=True)
    machine = machine_of(loop(make_image(tmp_path / "disk", "dos", ext4(ROOT_TREE), disk_mib=64)))
    tree = mount_image(machine)
    for place in (f"{mounts.TARGET}/etc", str(neighbour)):
        run(["mount", "-t", "tmpfs", "none", place], timeout=10)
    tree.unmount()
    tree.unmount()
    assert kernel_mount.mounted_below(mounts.TARGET) == ()
    assert len(kernel_mount.mounted_below(str(neighbour))) == 1
    run(["umount", str(neighbour)], timeout=10)


def btrfs_image(path: Path, *, subvolumes: tuple[str, ...], fstab: str, root: str) -> Disk:
    """A Btrfs whose root tree is in the subvolume ``root``; ``UUID`` in ``fstab`` is its own.

    The kernel knows a Btrfs by its UUID, so that tests that run side by side need different ones.
    """
    identifier = str(uuid.uuid4())
    fs = Fs(size=200, argv=("mkfs.btrfs", "-q", "-U", identifier), tree={"/marker": "top"})
    disk = make_image(path, "gpt", fs, disk_mib=256)
    piece = path.with_name(f"{path.name}-1")
    with mounted(piece) as top:
        for name in subvolumes:
            run(["btrfs", "subvolume", "create", f"{top}/{name}"], timeout=30)
            Path(f"{top}/{name}/name").write_text(name)
        Path(f"{top}/{root}/etc").mkdir()
        Path(f"{top}/{root}/home").mkdir()
        Path(f"{top}/{root}/etc/fstab").write_text(fstab.replace("UUID", f"UUID={identifier}"))
    run(["dd", f"if={piece}", f"of={path}", "bs=1M", "seek=1", "conv=notrunc,sparse"], timeout=60)
    return disk


@pytest.mark.parametrize("root", ["@", "root", "odd"])
def test_btrfs_subvolumes(tmp_path: Path, loop: Loop, root: str) -> None:
    """R-TASK-MNT-4, T-69: the root's subvolume is found, also by an fstab; subvol= of entries is honoured."""
    fstab = f"UUID / btrfs subvol={root} 0 0\nUUID /home btrfs subvol=/@home 0 0\n"
    disk = loop(btrfs_image(tmp_path / "disk", subvolumes=(root, "@home"), fstab=fstab, root=root))
    found = detect(Disks(all=(disk,)), make_job(), RecordingReporter())
    assert (found.os_family, found.root_partition) == (OsFamily.LINUX, 1)
    with image_mounted(machine_of(disk)) as tree:
        assert tree.root.read("/name") == root.encode()
        assert tree.root.read("/home/name") == b"@home"


def test_the_default_subvolume_of_a_btrfs_comes_first(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-4."""
    disk = btrfs_image(tmp_path / "disk", subvolumes=("@", "first"), fstab="\n", root="first")
    piece = tmp_path / "disk-1"
    with mounted(piece) as top:
        Path(f"{top}/@/etc").mkdir()
        run(["btrfs", "subvolume", "set-default", f"{top}/first"], timeout=30)
    run(["dd", f"if={piece}", f"of={tmp_path / 'disk'}", "bs=1M", "seek=1", "conv=notrunc"], timeout=60)
    with image_mounted(machine_of(loop(disk))) as tree:
        assert tree.root.read("/name") == b"first"


# -- detection ------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def in_use_image(path: Path) -> Disk:
    """An ext4 that was copied while mounted: its journal needs recovery, and an inode is orphaned."""
    disk = make_image(path, "dos", ext4(ROOT_TREE), disk_mib=64)
    piece = path.with_name(f"{path.name}-1")
    with mounted(piece) as top, open(f"{top}/orphan", "wb") as orphan:
        orphan.write(bytes(100_000))
        orphan.flush()
        os.unlink(f"{top}/orphan")
        Path(f"{top}/etc/late").write_text("late")
        os.sync()
        run(["dd", f"if={piece}", f"of={path}", "bs=1M", "seek=1", "conv=notrunc"], timeout=60)
    return disk


def test_detection_writes_nothing(tmp_path: Path, loop: Loop) -> None:
    """R-DET-5, R-DET-6, D-28: no journal is replayed, no orphan is cleaned up, not even by the kernel."""
    path = tmp_path / "disk"
    disk = in_use_image(path)
    before = digest(path)
    device = loop(disk)
    report = RecordingReporter()
    found = detect(Disks(all=(device,)), make_job(), report)
    assert (found.os_family, found.root_partition, found.distribution, found.version) == (
        OsFamily.LINUX, 1, "debian", "12",
    )  # fmt: skip
    (event,) = report.events
    assert "detected OSFAMILY=linux ROOT_PARTITION=1 (debian 12)" in str(event)
    run(["sync", str(path)], timeout=30)
    assert digest(path) == before
    # The device is writable again: the tasks come next.
    with image_mounted(machine_of(device)):
        pass


def test_a_partition_without_linux_is_passed_over(tmp_path: Path, loop: Loop) -> None:
    """R-DET-5, R-DET-8: the first confirmed candidate by start; of the others the reason is kept."""
    release: dict[str, Node] = {"/etc": Directory(), "/usr/lib/os-release": "ID=fedora\nVERSION_ID=41\n"}
    disk = make_image(
        tmp_path / "disk", "gpt", ext4({"/x": "y"}, uuid=BOOT_UUID), ext4(release), disk_mib=128
    )
    found = detect(Disks(all=(loop(disk),)), make_job(), RecordingReporter())
    assert (found.root_partition, found.distribution) == (2, "fedora")
    assert [verdict.reason for verdict in found.verdicts] == [
        "neither /etc/fstab nor an os-release file", "root file system",
    ]  # fmt: skip


def test_nothing_found_lists_every_partition(tmp_path: Path, loop: Loop) -> None:
    """R-DET-8: number, type, file system, reason."""
    parts = [ext4({"/x": "y"}), Fs(size=34, argv=("mkfs.vfat",)), Fs(size=8, argv=("true",))]
    disk = make_image(tmp_path / "disk", "dos", *parts, disk_mib=128)
    with pytest.raises(ImageError) as caught:
        detect(Disks(all=(loop(disk),)), make_job(), RecordingReporter())
    assert caught.value.messages == (
        "no root file system was found on the disk",
        "partition 1 (type 0x83, ext4): neither /etc/fstab nor an os-release file",
        "partition 2 (type 0x83, vfat): vfat holds no root file system that is supported",
        "partition 3 (type 0x83, unknown contents): no known file system",
    )


def test_a_given_value_is_never_replaced(tmp_path: Path, loop: Loop) -> None:
    """R-DET-1: a partition that holds no Linux is not accepted instead of the one given."""
    disk = make_image(
        tmp_path / "disk", "dos", ext4(ROOT_TREE), ext4({"/x": "y"}, uuid=BOOT_UUID), disk_mib=128
    )
    disks = Disks(all=(loop(disk),))
    with pytest.raises(ImageError, match="no root file system was found"):
        detect(disks, make_job(root_partition=2), RecordingReporter())
    with pytest.raises(ImageError, match="holds linux, and OSFAMILY=windows was given"):
        detect(disks, make_job(os_family=OsFamily.WINDOWS), RecordingReporter())
    found = detect(disks, make_job(root_partition=1), RecordingReporter())
    assert (found.os_family, found.root_partition) == (OsFamily.LINUX, 1)
    with pytest.raises(RequestError, match="ROOT_PARTITION=7: there is no such partition; there are: 1, 2"):
        detect(disks, make_job(root_partition=7), RecordingReporter())


def test_a_backup_gpt_in_the_middle_of_the_disk_still_gives_devices(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-FIX-3, R-DET-4: the kernel would not look for it there, so it is told."""
    path = tmp_path / "disk"
    disk = make_image(path, "gpt", ext4(ROOT_TREE), disk_mib=256)
    with path.open("r+b") as stream:
        stream.seek(512)
        stream.write(bytes(512))
    found = detect(Disks(all=(loop(disk),)), make_job(), RecordingReporter())
    assert found.root_partition == 1


def test_a_root_partition_that_does_not_exist(tmp_path: Path, loop: Loop) -> None:
    """R-TASK-MNT-1: the request is at fault, and the text names the numbers there are."""
    machine = machine_of(
        loop(make_image(tmp_path / "disk", "dos", ext4(ROOT_TREE), disk_mib=64)), root_partition=3
    )
    with pytest.raises(RequestError, match="ROOT_PARTITION=3: there is no such partition; there are: 1"):
        mount_image(machine)
    empty = dataclasses.replace(machine, os_family=OsFamily.OPENBSD, root_partition=1)
    with pytest.raises(ImageError, match="ext4 is no root of openbsd"):
        mounts.mount_image(empty)
