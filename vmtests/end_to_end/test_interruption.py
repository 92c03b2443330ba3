"""Ctrl-C, SIGTERM and SIGHUP at any moment: nothing is left, and the disk does not boot."""

from __future__ import annotations

import os
import signal

import pytest

from snf_image_vmtests.caller import Caller, helper_words, wait_for
from snf_image_vmtests.ext_image import boot_signature
from snf_image_vmtests.fixture_images import FixtureImage, load_fixture

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image"),
    pytest.mark.timeout(300, method="signal"),
    pytest.mark.usefixtures("heeded_signals"),
]
COPYING = r'"event": "copy-progress"'
BOOTING = r'"event": "stage-start", "stage": "helper-start"'
WORKING = r'"kind": "task-start", "task": "[A-Z]'


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (COPYING, signal.SIGINT),
        (BOOTING, signal.SIGINT),
        (WORKING, signal.SIGINT),
        (COPYING, signal.SIGHUP),
        (BOOTING, signal.SIGTERM),
        (WORKING, signal.SIGTERM),
    ],
    ids=["copy-INT", "boot-INT", "tasks-INT", "copy-HUP", "boot-TERM", "tasks-TERM"],
)
def test_interrupted(caller: Caller, alpine: FixtureImage, moment: str, number: signal.Signals) -> None:
    """R-HLP-13, D-12, D-16: on a disk that is there already, the boot signature goes."""
    image = load_fixture("debian-bookworm-mbr") if moment is COPYING else alpine
    disk = caller.disk("disk.raw", image.size // 1024**2 + 64)
    report = caller.path("receipt.json")
    status, how = (130, "interrupted") if number is signal.SIGINT else (143, f"ended by {number.name}")
    words = caller.deploy_words(image.path, disk, "--progress", "json", "--report", report)
    with caller.start(*words) as command:
        command.until(moment)
        command.signal(number)
        answer = command.finish(30)
    assert answer.demand(status).error == f"{how}: the disk {disk} is not usable, deploy it again"
    assert not answer.kept, "evidence of an interruption is kept only with --keep"
    assert boot_signature(disk) == b"\0\0", "the disk would boot"
    assert not os.path.exists(report)


def test_interrupted_before_anything_was_done(caller: Caller, alpine: FixtureImage) -> None:
    """R-HLP-13: a second signal disturbs nothing; a file that was made for the disk is removed again."""
    disk = caller.path("new.raw")
    with caller.start(*caller.deploy_words(alpine.path, disk, "--disk-size", "256M")) as command:
        wait_for(lambda: os.path.exists(disk), "the disk was not made")
        for _ in range(3):
            command.signal(signal.SIGINT)
        answer = command.finish(30)
    answer.demand(130, "interrupted")
    assert not os.path.exists(disk)


def test_inspection_is_interrupted(caller: Caller, alpine: FixtureImage) -> None:
    """R-HLP-13, D-28: nothing is said of a disk, because there is none."""
    words = ("inspect", alpine.path, *helper_words(["--progress"]), "--progress", "json")
    with caller.start(*words) as command:
        command.until("stage-start")
        command.signal(signal.SIGINT)
        answer = command.finish(30)
    assert answer.demand(130).stdout == ""


def test_evidence_of_an_interruption_is_kept_on_demand(caller: Caller, alpine: FixtureImage) -> None:
    """D-5: with --keep also that of Ctrl-C."""
    disk = caller.path("new.raw")
    words = caller.deploy_words(alpine.path, disk, "--disk-size", "256M", "--keep", "--progress", "json")
    with caller.start(*words) as command:
        command.until(BOOTING)
        command.signal(signal.SIGINT)
        answer = command.finish(30)
        assert not os.path.exists(disk)
        assert answer.demand(130).kept, answer.stderr


def test_the_command_is_killed(caller: Caller, alpine: FixtureImage) -> None:
    """R-HLP-2: the helper VM dies with a command that has no chance to clean up; so do its locks."""
    disk = caller.disk("disk.raw", 256)
    with caller.start(*caller.deploy_words(alpine.path, disk, "--progress", "json")) as command:
        command.until(BOOTING)
        qemu = command.qemu()
        uid = os.stat(f"/proc/{qemu}").st_uid
        os.kill(command.pid, signal.SIGKILL)
        try:
            assert command.finish(30).status == -signal.SIGKILL
            wait_for(lambda: not caller.is_alive(qemu), "the helper VM outlived the command", 10)
        finally:
            caller.tidy_up_after_kill(uid)


def test_the_helper_is_killed(caller: Caller, alpine: FixtureImage) -> None:
    """R-HLP-10, R-HLP-12, D-12: the command says how the VM ended, and where the evidence is."""
    disk = caller.disk("disk.raw", 256)
    with caller.start(*caller.deploy_words(alpine.path, disk, "--progress", "json")) as command:
        command.until(WORKING)
        os.kill(command.qemu(), signal.SIGKILL)
        answer = command.finish(30)
    answer.demand(4, "the helper VM died: qemu: was killed by signal 9")
    assert boot_signature(disk) == b"\0\0"
    (kept,) = answer.kept
    assert {"console.log", "events.jsonl", "job.json", "qemu.argv"} <= set(os.listdir(kept))
