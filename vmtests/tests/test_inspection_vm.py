"""The inspection VM tells of a disk what is on it, and notices what is wrong with it."""

import dataclasses
import os
import shutil
import struct

import pytest

from snf_image_process import run
from snf_image_vmtests import manifest, places, ufs_look, windows_proofs
from snf_image_vmtests.deployment import Deployed
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.fixture_images import BSDS, FixtureImage, load_fixture, names
from snf_image_vmtests.inspection import InspectionVm
from snf_image_vmtests.matrix import Cell
from snf_image_vmtests.proofs import check_filesystem, filesystem_size, manifest_of, prove_filesystems
from snf_image_vmtests.vm import CommandError

pytestmark = [pytest.mark.requires("qemu", "fixtures"), pytest.mark.timeout(600, method="signal")]
MIB = 1024 * 1024
EVERYONE = bytes.fromhex("010100000000000100000000")
"""S-1-1-0; ntfs-3g gives it full control of what it makes."""


WRITTEN = [
    name for name in (names() if os.path.isdir(places.fixture_directory()) else ()) if "-on-" not in name
]
"""Images with a recipe of their own. Composed ones differ in the parts; the matrix looks at each."""


@pytest.mark.parametrize("name", WRITTEN)
def test_every_fixture_is_what_its_record_says(
    name: str, inspection_vm: InspectionVm, evidence: Evidence
) -> None:
    fixture = load_fixture(name)
    with inspection_vm.disk(fixture.path, evidence) as disk:
        disk.verify_table()
        assert disk.sectors() * 512 == fixture.size
        for known in fixture.partitions:
            if known.inside:
                continue  # in a disklabel: the partition table does not show it, and no kernel here reads it
            seen = disk.partition(known.number)
            assert seen.start == known.start * 2048
            if known.filesystem is None:
                continue
            # blkid does not tell versions of UFS apart.
            kind = "ufs" if known.filesystem.startswith("ufs") else known.filesystem
            assert disk.tags(known.number)["TYPE"] == kind
            if kind == "ufs":
                ufs_look.check(fixture.path, known.start * MIB)
                size, _ = ufs_look.size(fixture.path, known.start * MIB)
                assert size <= known.size * MIB
            elif kind == "ntfs":
                assert 0 <= known.size * MIB - windows_proofs.ntfs_size(disk, seen) <= 64 * 1024
            else:
                check_filesystem(disk, seen, kind)
                assert kind == "vfat" or filesystem_size(disk, seen, kind) == known.size * MIB
    tree = manifest_of(fixture, inspection_vm, evidence)
    if fixture.facts.family.startswith("windows"):
        assert "/windows" in {path.lower() for path in tree}
        return
    secrets = tree["/etc/master.passwd" if fixture.facts.family in BSDS else "/etc/shadow"]
    assert (secrets.kind, secrets.uid) == ("file", 0)
    assert tree["/root"].mode == 0o700
    for account in fixture.facts.accounts:
        assert tree[account.home].uid == account.uid


def test_owners_modes_and_labels_of_a_tree_are_in_its_image(
    inspection_vm: InspectionVm, evidence: Evidence
) -> None:
    tree = manifest_of(load_fixture("centos7-mbr-ext3"), inspection_vm, evidence)
    assert (tree["/home/alice/notes.txt"].uid, tree["/home/alice/notes.txt"].mode) == (1000, 0o600)
    assert tree["/etc/shadow"].mode == 0
    labels = dict(tree["/etc/shadow"].xattrs)
    assert bytes.fromhex(labels["security.selinux"]).rstrip(b"\0") == b"system_u:object_r:shadow_t:s0"


def test_the_guest_names_its_mount_points(inspection_vm: InspectionVm, evidence: Evidence) -> None:
    """The kernel does not take its own addresses for bad ones (see the processor in qemu_command)."""
    with inspection_vm.disk(load_fixture(names()[0]).path, evidence) as disk:
        table = disk.vm.succeed("cat /proc/self/mountinfo")
    assert " /proc " in table
    assert " xxx" not in table


@pytest.mark.requires("e2fsprogs")
def test_a_damaged_file_system_fails_its_checker_and_the_next_disk_is_fine(
    inspection_vm: InspectionVm, evidence: Evidence, tmp_path: object
) -> None:
    fixture = load_fixture("alpine-mbr-ext4")
    path = os.path.join(str(tmp_path), "damaged.raw")
    shutil.copyfile(fixture.path, path)
    run(["debugfs", "-w", "-R", "clri /etc/passwd", f"{path}?offset={MIB}"], timeout=60)
    with pytest.raises(CommandError, match="e2fsck"), inspection_vm.disk(path, evidence) as disk:
        check_filesystem(disk, disk.partition(1), "ext4")
    with inspection_vm.disk(fixture.path, evidence) as disk:
        check_filesystem(disk, disk.partition(1), "ext4")


def test_a_damaged_efi_system_partition_fails_the_proof(
    inspection_vm: InspectionVm, evidence: Evidence, tmp_path: object
) -> None:
    """It has the right type still, but a cluster's entry in the first of its two tables is another."""
    fixture = load_fixture("windows2022-gpt-ntfs")
    (esp,) = (part for part in fixture.partitions if part.filesystem == "vfat")
    path = os.path.join(str(tmp_path), "damaged.raw")
    run(["cp", "--sparse=always", fixture.path, path], timeout=120)
    with open(path, "r+b") as file:
        file.seek(esp.offset)
        sector_size, _, reserved = struct.unpack_from("<HBH", file.read(512), 11)
        file.seek(esp.offset + reserved * sector_size + 5)
        file.write(b"\x5a")
    deployed = Deployed(
        cell=Cell(id="esp", fixture=fixture.name, disk_size=1),
        original=fixture,
        fixture=dataclasses.replace(fixture, partitions=(esp,)),
        status=0,
        output="",
        disk=path,
        swap_disk=None,
        receipt={},
    )
    with inspection_vm.disk(fixture.path, evidence) as disk:
        prove_filesystems(deployed, disk)
    with pytest.raises(CommandError, match=r"fsck\.fat"), inspection_vm.disk(path, evidence) as disk:
        prove_filesystems(deployed, disk)


def differences_of(
    fixture: FixtureImage, data: bytes, vm: InspectionVm, evidence: Evidence, tmp_path: object
) -> dict[str, str]:
    """What the manifest of an image with these bytes says that the fixture's does not."""
    path = os.path.join(str(tmp_path), "changed.raw")
    with open(path, "wb") as file:
        file.write(data)
    before = manifest_of(fixture, vm, evidence)
    with vm.disk(path, evidence) as disk, disk.archive(fixture.mounts()) as archive:
        return manifest.differences(before, manifest.read_archive(archive))


def test_a_changed_byte_is_a_difference(
    inspection_vm: InspectionVm, evidence: Evidence, tmp_path: object
) -> None:
    fixture = load_fixture("alpine-mbr-ext4")
    with open(fixture.path, "rb") as file:
        data = file.read()
    assert data.count(b"nobody asked to change this\n") == 2
    data = data.replace(b"nobody asked to change this\n", b"nobody asked to change that\n", 1)
    found = differences_of(fixture, data, inspection_vm, evidence, tmp_path)
    assert list(found.values()) == ["content"]
    assert set(found) <= {"/srv/bystander", "/home/alice/notes.txt"}


@pytest.mark.requires("e2fsprogs")
def test_a_further_name_of_a_file_is_a_difference_of_both(
    inspection_vm: InspectionVm, evidence: Evidence, tmp_path: object
) -> None:
    fixture = load_fixture("alpine-mbr-ext4")
    path = os.path.join(str(tmp_path), "linked.raw")
    shutil.copyfile(fixture.path, path)
    for request in ("ln /etc/shadow /srv/same", "set_inode_field /etc/shadow links_count 2"):
        run(["debugfs", "-w", "-R", request, f"{path}?offset={MIB}"], timeout=60)
    before = manifest_of(fixture, inspection_vm, evidence)
    with inspection_vm.disk(path, evidence) as disk:
        check_filesystem(disk, disk.partition(1), "ext4")
        with disk.archive(fixture.mounts()) as archive:
            after = manifest.read_archive(archive)
            files = manifest.read_files(archive, ["/etc/shadow", "/srv/same"])
    assert manifest.differences(before, after) == {"/etc/shadow": "links, names", "/srv/same": "created"}
    assert after["/etc/shadow"] == after["/srv/same"]
    assert (after["/srv/same"].links, after["/srv/same"].names) == (2, ("/etc/shadow", "/srv/same"))
    assert files["/etc/shadow"] == files["/srv/same"] != b""


def test_a_right_given_on_ntfs_is_a_difference(
    inspection_vm: InspectionVm, evidence: Evidence, tmp_path: object
) -> None:
    """One entry of one security descriptor allows something else; nothing else of the volume does."""
    fixture = load_fixture("windows2003-mbr-ntfs")
    with open(fixture.path, "rb") as file:
        data = file.read()
    full, read = (struct.pack("<BBHI", 0, 3, 20, mask) + EVERYONE for mask in (0x1F01FF, 0x1200A9))
    assert full in data
    found = differences_of(fixture, data.replace(full, read, 1), inspection_vm, evidence, tmp_path)
    assert list(found.values()) == ["xattrs"]


def test_the_vm_writes_nothing_to_the_disk_it_looks_at(
    inspection_vm: InspectionVm, evidence: Evidence
) -> None:
    fixture = load_fixture("gentoo-mbr-ext2")
    with inspection_vm.disk(fixture.path, evidence) as disk:
        disk.vm.fails(f"dd if=/dev/zero of=/dev/{disk.device} count=1")
