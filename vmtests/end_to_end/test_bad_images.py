"""Images that are not what they should be: one clear line, status 3, and a disk that does not boot."""

from __future__ import annotations

import json
import os
import stat

import pytest

from snf_image_vmtests.caller import Answer, Caller
from snf_image_vmtests.ext_image import ExtImage, boot_signature, sfdisk
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs", "fdisk"),
    pytest.mark.timeout(300, method="signal"),
]
MIB = 1024 * 1024


def refused_by_helper(caller: Caller, image: str, status: int, words: str, *more: str) -> Answer:
    """Deploy onto a disk that booted before; afterwards it does not (D-12), and the evidence is private."""
    disk = caller.disk("disk.raw", 256)
    answer = caller.deploy(image, disk, *more).demand(status, words)
    assert boot_signature(disk) == b"\0\0", "a disk that failed would boot"
    (kept,) = answer.kept
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o700
    return answer


def refused_by_host(caller: Caller, image: str, status: int, words: str) -> None:
    """The image is refused before anything is written, made or started."""
    disk = caller.disk("disk.raw", 64)
    answer = caller.deploy(image, disk).demand(status, words)
    assert boot_signature(disk) == b"\x55\xaa", "the disk was touched"
    assert not any(os.path.exists(os.path.join(kept, "qemu.argv")) for kept in answer.kept)


def test_an_empty_image(caller: Caller) -> None:
    """D-16, R-DST-LOCAL-2."""
    refused_by_host(caller, caller.file("image.raw", b""), 3, "the image image.raw is empty")


@pytest.mark.parametrize("size", [1, 40])
def test_a_truncated_image(caller: Caller, alpine: FixtureImage, size: int) -> None:
    """A partition ends behind the end of the image."""
    image = ExtImage.copy_of(alpine, caller.path("image.raw"))
    os.truncate(image.path, size * MIB + 4096)
    refused_by_host(caller, image.path, 3, "image.raw is cut off")


def test_a_truncated_gpt_image(caller: Caller, ubuntu: FixtureImage) -> None:
    """The same with a GPT."""
    image = ExtImage.copy_of(ubuntu, caller.path("image.raw"))
    os.truncate(image.path, 60 * MIB)
    refused_by_host(caller, image.path, 3, "image.raw is cut off")


def test_an_image_that_is_not_a_file(caller: Caller) -> None:
    """D-9: a pipe does not hang us, a directory is none, nor is what is not there."""
    pipe = caller.path("pipe")
    os.mkfifo(pipe)
    refused_by_host(caller, pipe, 2, "neither a regular file nor a block device")
    refused_by_host(caller, caller.directory, 2, "neither a regular file nor a block device")
    refused_by_host(caller, caller.path("nothing.raw"), 2, "nothing.raw cannot be read: No such file")


def test_an_image_larger_than_the_disk(caller: Caller, alpine: FixtureImage) -> None:
    """R-DST-LOCAL-2, T-138: refused before the first byte, and a disk that was made goes away again."""
    refused_by_host(caller, alpine.path, 2, "has only 67108864")
    new = caller.path("new.raw")
    caller.deploy(alpine.path, new, "--disk-size", "64M").demand(2, "has 134217728 bytes")
    assert not os.path.exists(new)


def test_another_image_than_expected(caller: Caller, alpine: FixtureImage) -> None:
    """D-12: the digest is known at the end of the copy only; what makes a disk bootable comes later."""
    digest = f"{alpine.sha256[:-1]}{(int(alpine.sha256[-1], 16) + 1) % 16:x}"
    refused_by_helper(caller, alpine.path, 3, f"--sha256 says {digest}", "--sha256", digest)


def test_a_text_file(caller: Caller) -> None:
    """R-DET-2, T-46."""
    image = caller.file("README.md", "# Not an image\n" * 5000)
    refused_by_helper(caller, image, 3, "no partition found on the disk: its first sector")


def test_a_disk_without_partitions(caller: Caller) -> None:
    """R-DET-2, T-46: an empty table is told from none."""
    image = caller.file("image.raw", b"")
    os.truncate(image, 64 * MIB)
    sfdisk(image, ["label: dos"])
    refused_by_helper(caller, image, 3, "no partition found on the disk")


def test_a_file_system_in_the_place_of_a_disk(caller: Caller, alpine: FixtureImage) -> None:
    """R-DET-2: what fills the disk is named; as extdump the same bytes are welcome."""
    image = caller.path("ext.raw")
    with open(alpine.path, "rb") as source, open(image, "wb") as target:
        source.seek(MIB)
        target.write(source.read())
    refused_by_helper(caller, image, 3, "a file system without partitions fills it: ext4")
    disk = caller.disk("other.raw", 192)
    caller.deploy(image, disk, "--format", "extdump", "--hostname", "x1").demand(0)
    made = ExtImage.on(disk, alpine)
    made.check()
    assert made.text("/etc/hostname") == "x1\n"


def test_an_unknown_file_system(caller: Caller) -> None:
    """R-DET-8: every partition is listed with the reason why it is not the root."""
    image = caller.file("image.raw", b"")
    os.truncate(image, 64 * MIB)
    sfdisk(image, ["label: dos", "start=2048, size=40960, type=83", "type=82"])
    answer = refused_by_helper(caller, image, 3, "no root file system was found on the disk")
    assert "  partition 1 (type 0x83, unknown contents): no known file system" in answer.stderr.splitlines()
    assert "  partition 2 (type 0x82, unknown contents): a partition for swap" in answer.stderr


def test_a_wrong_root_partition(caller: Caller, alpine: FixtureImage) -> None:
    """R-DET-1: the number that was given is named, with those that exist. D-16: it is the request."""
    words = "ROOT_PARTITION=3: there is no such partition; there are: 1"
    refused_by_helper(caller, alpine.path, 2, words, "--property", "ROOT_PARTITION=3")


def test_a_dirty_file_system(caller: Caller, alpine: FixtureImage) -> None:
    """R-TASK-FSU-2: an image of a running system is refused, not repaired."""
    image = ExtImage.copy_of(alpine, caller.path("image.raw"))
    image.debug("ssv state 0", write=True)
    refused_by_helper(caller, image.path, 3, "is not clean: it was in use when the image was made")


def test_a_full_file_system(caller: Caller, alpine: FixtureImage) -> None:
    """R-TASK-5: no room for a file is said of that file; a larger disk is the way out."""
    image = ExtImage.copy_of(alpine, caller.path("image.raw"))
    filling = caller.file("filling", os.urandom(90 * MIB))
    image.debug(f"write {filling} filling", write=True)
    more = 0
    while True:  # the last blocks, too: files of ever smaller sizes
        free = [line for line in image.debug("stats -h").splitlines() if line.startswith("Free blocks:")]
        blocks = int(free[0].split()[-1])
        if blocks < 4:
            break
        rest = caller.file("rest", os.urandom(max(1, blocks * 1024 * 15 // 16)))
        more += 1
        image.debug(f"write {rest} rest{more}", write=True)
    disk = caller.disk("disk.raw", 128)
    personality = [{"path": "/root/large", "contents": "QUFB" * 20000}]
    files = caller.file("files.json", json.dumps(personality))
    caller.deploy(image.path, disk, "--personality", files).demand(3, "the file system is full")
    assert boot_signature(disk) == b"\0\0"
    disk = caller.disk("larger.raw", 192)
    caller.deploy(image.path, disk, "--personality", files).demand(0)
    ExtImage.on(disk, alpine).check()
