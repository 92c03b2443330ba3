"""What is wrong with the node: the helper image, the space, a disk in use. Status 5, and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator

import pytest

from snf_image_process import run
from snf_image_vmtests import places
from snf_image_vmtests.caller import Caller, Command, helper_words
from snf_image_vmtests.ext_image import ExtImage, boot_signature
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(400, method="signal"),
]
MIB = 1024 * 1024


@contextlib.contextmanager
def small_storage(caller: Caller, megabytes: int) -> Iterator[str]:
    """A file system of that size."""
    path = caller.path("small")
    os.mkdir(path)
    run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", path], timeout=20)
    try:
        yield path
    finally:
        run(["umount", path], timeout=20)


def helper_copy(caller: Caller) -> str:
    """A helper directory that may be spoiled: links to the real files, so that nothing large is copied."""
    directory = caller.path("helper")
    os.mkdir(directory, 0o755)
    for name in os.listdir(places.helper_directory()):
        if not name.startswith("."):
            os.symlink(os.path.join(places.helper_directory(), name), os.path.join(directory, name))
    return directory


def change_manifest(directory: str, **changes: object) -> None:
    path = os.path.join(directory, "manifest.json")
    with open(path, encoding="utf-8") as file:
        manifest = json.load(file)
    os.unlink(path)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(manifest | changes, file)


def test_helper_directories_that_cannot_be_used(caller: Caller, alpine: FixtureImage) -> None:
    """R-HLP-17, D-20: all before the first byte is written; a file that was made is removed again."""
    spoiled = helper_copy(caller)
    disk = caller.disk("disk.raw", 256)

    def refuse(words: str, directory: str) -> None:
        answer = caller.deploy(alpine.path, disk, "--helper-dir", directory).demand(5, words)
        assert "snf-image helper build" in answer.stderr
        assert boot_signature(disk) == b"\x55\xaa", "the disk was touched"

    refuse("there is no helper image in", caller.path("nowhere"))
    change_manifest(spoiled, contract_version=99)
    refuse("speaks contract version 99, this host speaks", spoiled)
    shutil.rmtree(spoiled)
    spoiled = helper_copy(caller)
    os.unlink(os.path.join(spoiled, "root.img"))
    refuse("root.img is missing", spoiled)
    caller.file("helper/root.img", b"rubbish")
    refuse("root.img has 7 bytes, its manifest says", spoiled)
    caller.file("helper/manifest.json", b'{"format": 1, ')
    refuse("manifest.json", spoiled)


def test_a_helper_image_with_rubbish_in_it(caller: Caller, alpine: FixtureImage) -> None:
    """R-HLP-18, R-HLP-12, D-12: `helper verify` finds what sizes do not show; its VM ends, and we say so."""
    spoiled = helper_copy(caller)
    size = os.path.getsize(os.path.join(spoiled, "initrd"))
    caller.file("helper/initrd", b"\0" * size)
    answer = caller.run("helper", "verify", "--helper-dir", spoiled).demand(5, "initrd")
    assert "hint:" in answer.stderr
    disk = caller.disk("disk.raw", 256)
    caller.deploy(alpine.path, disk, "--helper-dir", spoiled).demand(5, "the helper VM did not start")
    assert boot_signature(disk) == b"\0\0"


def test_helper_info_and_verify(caller: Caller) -> None:
    """R-HLP-18, D-16."""
    where = ("--helper-dir", places.helper_directory())
    caller.run("helper", "verify", *where).demand(0)
    assert caller.run("helper", "verify", *where, "--json").demand(0).document["result"] == "success"
    text = caller.run("helper", "info", *where).demand(0).stdout
    document = caller.run("helper", "info", *where, "--json").demand(0).document
    assert document["build"] in text
    assert {"kernel", "initrd", "root.img"} <= {file["name"] for file in document["artefacts"]}
    caller.run("helper", "info", "--helper-dir", caller.path("nowhere")).demand(5, "there is no helper image")
    answer = caller.run("helper", "info", "--helper-dir", caller.path("nowhere"), "--json").demand(5)
    assert answer.document["exit_code"] == 5


def test_doctor(caller: Caller) -> None:
    """D-32: status 0 where one can deploy, 5 where not, and each problem says what to do."""
    config = caller.file("snf-image.conf", "HELPER_ACCEL=tcg\n")
    good = caller.run("doctor", "--helper-dir", places.helper_directory(), "--config", config, "--json")
    assert not [found for found in good.document["findings"] if found["status"] == "problem"], good.stdout
    assert good.demand(0).document["exit_code"] == 0
    bad = caller.run("doctor", "--helper-dir", caller.path("nowhere"), "--config", config, "--json").demand(5)
    problems = [found for found in bad.document["findings"] if found["status"] == "problem"]
    assert {found["check"] for found in problems} == {"helper image"}
    assert all(found["advice"] for found in problems)
    assert bad.document["exit_code"] == 5


@pytest.mark.requires("root")
def test_storage_that_is_full(caller: Caller) -> None:
    """D-12: a disk whose storage fills up during the copy."""
    with small_storage(caller, 24) as small:
        disk = os.path.join(small, "disk.raw")
        random = caller.file("image.raw", os.urandom(40 * MIB))
        answer = caller.deploy(random, disk, "--disk-size", "300M")
        answer.demand(5, "disk.raw cannot be written at byte")
        assert "No space left on device" in answer.error
        assert "hint: free some space" in answer.stderr
        assert not os.listdir(small), "what was made is not removed"


@pytest.mark.requires("root")
def test_storage_that_fills_up_under_the_helper(caller: Caller, alpine: FixtureImage) -> None:
    """R-HLP-12, D-12: the helper cannot write; its own complaints are not the cause that is told."""
    image = ExtImage.copy_of(alpine, caller.path("image.raw"))
    used = os.stat(image.path).st_blocks * 512 // MIB
    with small_storage(caller, used + 3) as small:
        disk = os.path.join(small, "disk.raw")
        files = [{"path": f"/root/{number}", "contents": "QUJD" * 500000} for number in range(6)]
        personality = caller.file("files.json", json.dumps(files))
        answer = caller.deploy(image.path, disk, "--disk-size", "256M", "--personality", personality)
        answer.demand(5, "no space left")
        assert not os.listdir(small)


def test_a_receipt_that_cannot_be_written(caller: Caller, alpine: FixtureImage) -> None:
    """D-16: a place that cannot take the receipt is found before anything is written."""
    disk = caller.disk("disk.raw", 256)
    answer = caller.deploy(alpine.path, disk, "--report", caller.path("nowhere/receipt.json"))
    answer.demand(2, "nowhere/receipt.json cannot be written")
    assert boot_signature(disk) == b"\x55\xaa", "the disk was touched"


@pytest.mark.requires("root")
def test_no_room_for_the_receipt(caller: Caller, alpine: FixtureImage) -> None:
    """D-16, D-30: that comes out only in the end; the disk is done, and no half receipt lies about."""
    disk = caller.disk("disk.raw", 256)
    with small_storage(caller, 1) as small:
        with open(os.path.join(small, "filling"), "wb") as file, contextlib.suppress(OSError):
            file.write(bytes(2 * MIB))
        report = os.path.join(small, "receipt.json")
        answer = caller.deploy(alpine.path, disk, "--report", report, "--property", "EXCLUDE_ALL_TASKS=yes")
        answer.demand(5, "receipt.json cannot be written: No space left on device")
        assert "hint: the disk itself is ready" in answer.stderr
        assert os.listdir(small) == ["filling"]
    assert boot_signature(disk) == b"\x55\xaa"


def test_two_deployments_onto_one_disk(caller: Caller, alpine: FixtureImage) -> None:
    """T-31: the second is refused at once, and the first is not disturbed."""
    disk = caller.disk("disk.raw", 256)
    with caller.start(
        *caller.deploy_words(alpine.path, disk, "--progress", "json", "--hostname", "first")
    ) as first:
        first.until("stage-start")
        first.signal(signal.SIGSTOP)  # or it is done before all others have tried
        second = caller.deploy(alpine.path, disk, "--hostname", "second")
        second.demand(2, f"{disk} is in use by another deployment")
        customized = caller.run("customize", disk, *helper_words())
        customized.demand(2, f"{disk} is in use by another deployment")
        inspected = caller.run("inspect", disk, *helper_words())
        inspected.demand(2, f"{disk} is in use by another deployment")
        first.signal(signal.SIGCONT)
        first.finish().demand(0)
    assert ExtImage.on(disk, alpine).text("/etc/hostname") == "first\n"
    assert boot_signature(disk) == b"\x55\xaa"


@pytest.mark.requires("root")
def test_parallel_deployments(caller: Caller, alpine: FixtureImage) -> None:
    """T-44, D-7, R-HLP-2: four at once, each helper VM under a user of its own and without any privilege."""
    with contextlib.ExitStack() as running:
        commands = {}
        for number in range(4):
            disk = caller.disk(f"disk{number}.raw", 192)
            words = caller.deploy_words(
                alpine.path, disk, "--progress", "json", "--hostname", f"host{number}"
            )
            commands[disk] = running.enter_context(caller.start(*words))
        states = []
        for command in commands.values():
            command.until("helper VM (started|restored)")
            states.append(state_of(command))
        assert len({state["Uid"] for state in states}) == 4, states
        for state in states:
            assert "0" not in state["Uid"].split(), "a helper VM runs as root"
            assert state["NoNewPrivs"] == "1"
            assert {int(state[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
            assert state["Seccomp"] == "2"
            assert state["Groups"] == ""
        for number, (disk, command) in enumerate(commands.items()):
            command.finish().demand(0)
            assert ExtImage.on(disk, alpine).text("/etc/hostname") == f"host{number}\n"


def state_of(command: Command) -> dict[str, str]:
    """/proc/PID/status of a deployment's helper VM, once its sandbox is up."""
    with open(f"/proc/{command.qemu()}/status", encoding="ascii") as file:
        return {name: value.strip() for name, value in re.findall(r"^(\w+):(.*)$", file.read(), re.MULTILINE)}
