"""Swap: the signature, one line in fstab, cloud-init's file, and the resume device."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
import yaml

import trees
from layouts import LINUX_GUID, SWAP_GUID, Part, gpt_disk
from snf_image_contract.job import AddSwap, JobDisk, SkippedTask, SwapDisk, SwapPartition
from snf_image_contract.names import TaskName
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.filesystems import Volume, whole
from snf_image_helper.guest import Guest
from snf_image_helper.linux import swap
from snf_image_helper.linux.swap import add_swap, with_swap
from snf_image_helper.partition_table import Partition
from snf_image_helper.signatures import Kind, Signature
from snf_image_process import run
from trees import GuestOf, Link, Tree

MIB = 1 << 20
FSTAB = "UUID=1111 / ext4 defaults 0 1\n"
OLD = "99999999-2222-4333-8444-555555555555"
NEW = "00000000-2222-4333-8444-555555555555"
LINE = f"UUID={NEW}\tnone\tswap\tsw\t0\t0\n"


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    """Disk 0 with a root and a swap partition (2); disk 1 empty; disk 2 read-only; all of them files."""
    parts = {
        1: Part(start=2048, end=8191, type=LINUX_GUID),
        2: Part(start=8192, end=12287, type=SWAP_GUID),
    }
    gpt_disk(65536, parts).save(str(tmp_path / "disk0"))
    for name in ("disk1", "disk2"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(8 * MIB)
    return Disks(
        all=(
            Disk(index=0, device=str(tmp_path / "disk0"), size=65536 * 512),
            Disk(index=1, device=str(tmp_path / "disk1"), size=8 * MIB),
            Disk(index=2, device=str(tmp_path / "disk2"), size=8 * MIB, read_only=True),
        )
    )


def guest_with(
    guest_of: GuestOf, disks: Disks, tree: Tree, asked: SwapPartition | SwapDisk | None, **fields: object
) -> Guest:
    guest = guest_of(
        tree, task=TaskName.ADD_SWAP, add_swap=AddSwap(swap=asked), disks=(JobDisk(index=0),), **fields
    )
    return dataclasses.replace(guest, disks=disks)


def swap_uuid(path: str) -> str:
    with open(path, "rb") as stream:
        head = stream.read(4096)
    assert head[4086:] == b"SWAPSPACE2"
    assert head[1024:1028] == b"\1\0\0\0"
    raw = head[1036:1052].hex()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def test_no_swap_asked_for(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-SWAP-1: a warning, nothing else."""
    guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB}, None)
    add_swap(guest)
    assert trees.warnings(guest) == ["property SWAP is not set; no swap is added"]
    assert trees.changes(guest) == []


def test_a_whole_disk(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-SWAP-2, R-TASK-SWAP-3, R-TASK-SWAP-4: version 1, a new UUID each time, one line in fstab."""
    seen = set()
    for _ in range(2):
        guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB}, SwapDisk(index=1))
        add_swap(guest)
        identifier = swap_uuid(disks.all[1].device)
        assert trees.text(guest, "/etc/fstab") == f"{FSTAB}UUID={identifier}\tnone\tswap\tsw\t0\t0\n"
        assert trees.changes(guest) == [("swap", "disk 1"), ("modified", "/etc/fstab")]
        seen.add(identifier)
    assert len(seen) == 2


def test_the_partition_of_disk_0(guest_of: GuestOf, disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-SWAP-2, R-TASK-SWAP-3: through the partition's device, here a file of its own."""
    volumes: list[str] = []

    def device(volume: Volume) -> str:
        volumes.append(volume.name)
        return disks.all[1].device

    monkeypatch.setattr(Volume, "device", device)
    monkeypatch.setattr(swap, "_read_again", lambda _: whole(disks.all[1]))
    guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB}, SwapPartition(number=2, megabytes=2))
    add_swap(guest)
    assert volumes == ["disk 0 partition 2"]
    assert swap_uuid(disks.all[1].device) in trees.text(guest, "/etc/fstab")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (SwapDisk(index=0), "SWAP=a: disk 0 holds the system"),
        (SwapDisk(index=2), "SWAP=c: disk 2 is read-only"),
        (SwapDisk(index=3), "SWAP=d: the instance has 3 disks"),
        (SwapDisk(index=8), "SWAP=i: the instance has 3 disks"),
        (SwapPartition(number=7, megabytes=2), "SWAP=7:2: there is no partition 7$"),
        (SwapPartition(number=1, megabytes=2), "SWAP=1:2: partition 1 is no swap partition"),
    ],
)
def test_what_cannot_become_swap(
    guest_of: GuestOf, disks: Disks, asked: SwapPartition | SwapDisk, problem: str
) -> None:
    """R-TASK-SWAP-2, R-TASK-SWAP-3, T-39: letter i is the ninth disk; data is not overwritten."""
    guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB}, asked)
    with pytest.raises(RequestError, match=problem):
        add_swap(guest)
    assert trees.changes(guest) == []


def test_an_excluded_task_is_named(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-3: the partition is missing because the task that makes it was left out."""
    skipped = (SkippedTask(task=TaskName.FIX_PARTITION_TABLE, reason="EXCLUDE_TASK_FixPartitionTable=yes"),)
    asked = SwapPartition(number=7, megabytes=2)
    guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB}, asked, skipped=skipped)
    with pytest.raises(RequestError, match="because task FixPartitionTable is excluded"):
        add_swap(guest)


def test_a_missing_fstab_is_found_before_anything_is_written(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-SWAP-4."""
    guest = guest_with(guest_of, disks, {"/etc": None}, SwapDisk(index=1))
    with pytest.raises(ImageError, match="/etc/fstab: is missing"):
        add_swap(guest)
    assert Path(disks.all[1].device).read_bytes() == bytes(8 * MIB)


VOLUME = Volume(
    disk=Disk(index=0, device="/dev/vda", size=1 << 30),
    partition=Partition(number=5, start=2048, end=4095, type="0x82", uuid="5eed1234-05", name="swap"),
    offset=1 << 20,
    size=1 << 20,
    signature=Signature(kind=Kind.SWAP, uuid=OLD, label="old swap"),
)


@pytest.mark.parametrize(
    "entry",
    [
        f"UUID={OLD} none swap sw 0 0",
        f'UUID="{OLD.upper()}"\tswap\tswap\tdefaults\t0\t0',
        r"LABEL=old\040swap none swap sw 0 0",
        "PARTUUID=5EED1234-05 none swap sw",
        "PARTLABEL=swap none swap sw",
        f"/dev/disk/by-uuid/{OLD} none swap sw",
        "/dev/sda5 none swap sw 0 0",
        "/dev/vda5 swap swap defaults",
        "/dev/xvda5 swap swap defaults",
    ],
)
def test_an_entry_for_the_same_device_is_replaced(entry: str) -> None:
    """R-TASK-SWAP-4: in its place, once; others stay."""
    before = f"# head\n{entry}\n{FSTAB}{entry}\nUUID=other none swap sw 0 0\n"
    expected = f"# head\n{LINE}{FSTAB}UUID=other none swap sw 0 0\n"
    assert with_swap(before.encode(), VOLUME, NEW).decode() == expected


@pytest.mark.parametrize(
    "entry",
    [
        "UUID=other none swap sw 0 0",
        "/dev/sda50 none swap sw 0 0",
        "/dev/sdb5 none swap sw 0 0",
        "/dev/sda none swap sw 0 0",
        "/swapfile none swap sw 0 0",
        f"UUID={OLD} /data ext4 defaults 0 0",
        f"# UUID={OLD} none swap sw 0 0",
    ],
)
def test_entries_of_other_devices_stay(entry: str) -> None:
    """R-TASK-SWAP-4."""
    assert with_swap(f"{entry}\n".encode(), VOLUME, NEW).decode() == f"{entry}\n{LINE}"


def test_an_unterminated_last_line_and_no_quotes() -> None:
    """R-TASK-SWAP-4, T-74, T-136."""
    data = with_swap(FSTAB.rstrip("\n").encode(), VOLUME, NEW)
    assert data.decode() == FSTAB + LINE
    assert b'"' not in data


def test_cloud_init_makes_a_file_of_the_size_asked_for(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-SWAP-5, T-75: the number is ignored, fstab stays."""
    tree: Tree = {"/etc/fstab": FSTAB, "/etc/cloud/cloud.cfg.d": None}
    guest = guest_with(guest_of, disks, tree, SwapPartition(number=9, megabytes=512), cloud_init=True)
    add_swap(guest)
    fragment = yaml.safe_load(trees.text(guest, "/etc/cloud/cloud.cfg.d/98_snf-image-50AddSwap.cfg"))
    assert fragment == {"swap": {"filename": "/swap.img", "size": 512 * MIB, "maxsize": 512 * MIB}}
    assert trees.text(guest, "/etc/fstab") == FSTAB


def test_a_name_that_is_taken_is_not_used_for_the_swap_file(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-SWAP-5: not even by a link that leads nowhere."""
    tree: Tree = {"/swap.img": Link("/nowhere"), "/etc/cloud/cloud.cfg.d": None}
    guest = guest_with(guest_of, disks, tree, SwapPartition(number=9, megabytes=1), cloud_init=True)
    add_swap(guest)
    fragment = trees.text(guest, "/etc/cloud/cloud.cfg.d/98_snf-image-50AddSwap.cfg")
    assert "/swap-snf-image.img" in fragment


def test_a_letter_means_the_same_with_cloud_init(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-SWAP-5."""
    guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB}, SwapDisk(index=1), cloud_init=True)
    add_swap(guest)
    assert swap_uuid(disks.all[1].device) in trees.text(guest, "/etc/fstab")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"RESUME=UUID={OLD}\n", "RESUME=none\n"),
        (f"# mine\nRESUME=UUID={OLD}\n", "# mine\nRESUME=none\n"),
        ("RESUME=auto\n", "RESUME=auto\n"),
        ("RESUME=/dev/sda5\n", "RESUME=/dev/sda5\n"),
    ],
)
def test_a_resume_device_that_is_gone(guest_of: GuestOf, disks: Disks, before: str, after: str) -> None:
    """R-TASK-SWAP-6: a boot would wait for it."""
    guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB, swap.RESUME: before}, SwapDisk(index=1))
    add_swap(guest)
    assert trees.text(guest, swap.RESUME) == after
    assert bool(trees.warnings(guest)) == (before != after)


def test_a_resume_device_that_is_there_stays(guest_of: GuestOf, disks: Disks) -> None:
    """R-TASK-SWAP-6: a swap on another disk of the instance counts."""
    with open(disks.all[2].device, "r+b") as stream:
        stream.seek(1036)
        stream.write(bytes.fromhex(OLD.replace("-", "")))
        stream.seek(4086)
        stream.write(b"SWAPSPACE2")
    text = f"RESUME=UUID={OLD.upper()}\n"
    guest = guest_with(guest_of, disks, {"/etc/fstab": FSTAB, swap.RESUME: text}, SwapDisk(index=1))
    add_swap(guest)
    assert trees.text(guest, swap.RESUME) == text
    assert trees.warnings(guest) == []


@pytest.mark.requires("root", "loop")
def test_a_mounted_disk_is_refused(guest_of: GuestOf, disks: Disks, tmp_path: Path) -> None:
    """R-TASK-SWAP-3: it must not be in use."""
    run(["mkfs.ext4", "-q", disks.all[1].device], timeout=30)
    device = run(["losetup", "--find", "--show", disks.all[1].device], timeout=30).text.strip()
    place = tmp_path / "place"
    place.mkdir()
    try:
        run(["mount", device, str(place)], timeout=30)
        try:
            second = dataclasses.replace(disks.all[1], device=device)
            busy = Disks(all=(disks.all[0], second))
            guest = guest_with(guest_of, busy, {"/etc/fstab": FSTAB}, SwapDisk(index=1))
            with pytest.raises(
                RequestError, match=re.escape(f"disk 1: cannot become swap: {os.strerror(16)}")
            ):
                add_swap(guest)
        finally:
            run(["umount", str(place)], timeout=30)
    finally:
        run(["losetup", "--detach", device], timeout=30)
