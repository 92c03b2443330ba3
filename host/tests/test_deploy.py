"""The main path: what happens in which order, and what is left when something goes wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

import snf_image_process
from snf_image_contract.events import Event, Hello, Succeeded, TaskEnded
from snf_image_contract.job import AssignHostname, ChangePassword, HostKey, Job, JobDisk, RunCustomTask
from snf_image_contract.names import ImageFormat, TaskName
from snf_image_contract.secret import Secret
from snf_image_host import copying
from snf_image_host import deploy as subject
from snf_image_host.copying import copy
from snf_image_host.deployment import Deployment, HelperSettings, ImageSource, TargetDisk, WipeTail
from snf_image_host.digests import Digests
from snf_image_host.disks import OpenDisk
from snf_image_host.errors import HelperError, ImageError, NodeError, SnfImageError, UserError
from snf_image_host.reporter import CopyProgress, Info, Reporter, StageEnded, StageStarted
from snf_image_host.reporter import Event as HostEvent
from snf_image_host.vm import Account, Outcome

MIB = 1 << 20
BOOT_SECTOR = bytes(510) + b"\x55\xaa"
SECRET = "c0rrect-h0rse"


class Story:
    """What happened, in order; and what is to go wrong."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.fail: dict[str, BaseException] = {}
        self.job: Job | None = None
        self.slots = ""
        self.keys: tuple[HostKey, ...] = ()
        self.told: list[Info] = []
        self.at_close: Callable[[], None] = lambda: None
        self.events: tuple[Event, ...] = (
            Hello(contract_version=1, build="b"),
            TaskEnded(task=TaskName.RUN_CUSTOM_TASK, seconds=1),
            Succeeded(),
        )

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.fail:
            raise self.fail[name]

    def handle(self, event: HostEvent) -> None:
        if isinstance(event, StageStarted):
            self.steps.append(f"<{event.stage}>")
        elif isinstance(event, StageEnded):
            self.steps.append(f"</{event.stage}>")
        elif isinstance(event, CopyProgress) and event.final:
            self.steps.append("copied")
        elif isinstance(event, Info):
            self.told.append(event)
        if isinstance(event, CopyProgress) and "copying" in self.fail:
            raise self.fail["copying"]

    def close(self) -> None:
        pass


class FakeVm:
    """A helper VM that leaves a file of evidence, as the real one does."""

    def __init__(self, story: Story, evidence: str) -> None:
        self._story = story
        self.account = Account.of_caller()
        Path(evidence, "console.log").write_text("booting\n")

    def wait_ready(self) -> None:
        self._story.step("ready")

    def send_host_keys(self, keys: tuple[HostKey, ...]) -> None:
        self._story.step("keys")
        self._story.keys = keys

    def run_job(self, job: Job, disks: Sequence[OpenDisk]) -> Outcome:
        self._story.job = job
        self._story.step("job")
        return Outcome(
            accelerator="tcg", hello=None, events=self._story.events, warnings_left_out=0,
            start_seconds=1.0, job_seconds=2.0, total_seconds=3.0,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._story.steps.append("VM gone")
        self._story.at_close()


class FakeImage:
    build = "b"
    contract_version = 1


class FakeKeys:
    def __init__(self, comment: str, **_: object) -> None:
        self.comment = comment

    def hand_over(self, receive: Callable[[tuple[HostKey, ...]], None]) -> None:
        receive((HostKey(type="rsa", private=Secret(SECRET), public=f"ssh-rsa A {self.comment}"),))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    story = Story()

    def load(_: str) -> FakeImage:
        story.step("helper checked")
        return FakeImage()

    def start(_settings: object, _image: object, _reporter: object, evidence: str, *, slots: str) -> FakeVm:
        story.step("VM started")
        story.slots = slots
        return FakeVm(story, evidence)

    def disarm(disk: OpenDisk) -> None:
        story.steps.append("disarmed")
        copying.disarm(disk)

    monkeypatch.setattr("snf_image_host.deploy.helper_image.load", load)
    monkeypatch.setattr("snf_image_host.deploy.start_helper", start)
    monkeypatch.setattr("snf_image_host.deploy.HostKeyMaker", FakeKeys)
    monkeypatch.setattr("snf_image_host.deploy.disarm", disarm)
    (tmp_path / "evidence").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "evidence"))
    return story


@pytest.fixture
def asked(tmp_path: Path) -> Deployment:
    image = tmp_path / "image.raw"
    image.write_bytes(BOOT_SECTOR + os.urandom(MIB))
    return Deployment(
        instance="web1",
        image=ImageSource(path=str(image), shown="image.raw", format=ImageFormat.DISKDUMP),
        disks=(TargetDisk(index=0, path=str(tmp_path / "disk"), create_size=4 * MIB),),
        helper=HelperSettings(directory=str(tmp_path)),
        job=Job(
            instance="web1",
            clock=0,
            disks=(JobDisk(index=0),),
            assign_hostname=AssignHostname(name="web1"),
            run_custom_task=RunCustomTask(program=Secret(SECRET)),
        ),
        want_host_keys="root@web1",
        report=str(tmp_path / "receipt.json"),
        warnings=("no password was asked for",),
    )


def run(asked: Deployment, story: Story) -> dict[str, Any]:
    return subject.deploy(asked, Reporter(story)).as_json()


def used_disk(asked: Deployment) -> tuple[Deployment, Path]:
    """The same onto a disk that is there already, and boots."""
    path = Path(asked.disks[0].path)
    path.write_bytes((BOOT_SECTOR + os.urandom(512)) * (4 * MIB // 1024))
    disk = TargetDisk(index=0, path=str(path))
    return dataclasses.replace(asked, disks=(disk,)), path


def evidence(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "evidence").iterdir())


def test_everything_happens_in_its_order(story: Story, asked: Deployment, tmp_path: Path) -> None:
    """R-SCR-CREATE-1: the VM boots while the image is copied; the job comes when the copy is whole."""
    run(asked, story)
    assert story.steps == [
        "helper checked", "VM started",
        "<copy>", "copied", "</copy>",
        "<helper-start>", "ready", "</helper-start>",
        "keys",
        "<customize>", "job", "</customize>",
        "VM gone",
    ]  # fmt: skip
    image = Path(asked.image.path or "").read_bytes()
    assert (tmp_path / "disk").read_bytes() == image + bytes(4 * MIB - len(image))
    assert story.slots == "read-write"
    assert evidence(tmp_path) == []


def test_the_job_gets_the_keys_that_were_made_meanwhile(story: Story, asked: Deployment) -> None:
    """R-TASK-SSH-2: and nothing else of it changes but the clock (R-HLP-16)."""
    run(asked, story)
    assert story.job is not None
    (key,) = story.keys
    assert key.public == "ssh-rsa A root@web1"
    assert story.job.delete_ssh_keys.host_keys_follow
    assert story.job.clock > 1_600_000_000
    same = dataclasses.replace(story.job, clock=0, delete_ssh_keys=asked.job.delete_ssh_keys)
    assert same == asked.job


def test_the_job_gets_hashes_of_its_password(story: Story, asked: Deployment) -> None:
    """R-TASK-PW-5: made while the copy runs, of the methods that the image is likely to want."""
    passwords = ChangePassword(users=("root",), password=Secret(SECRET))
    run(dataclasses.replace(asked, job=dataclasses.replace(asked.job, change_password=passwords)), story)
    assert story.job is not None
    made = story.job.change_password.made_hashes
    assert [secret.reveal()[:3] for secret in made] == ["$y$", "$6$"]
    assert dataclasses.replace(story.job.change_password, made_hashes=()) == passwords


def test_a_foreign_helper_is_given_no_secret_that_it_does_not_know(story: Story, asked: Deployment) -> None:
    """D-21: it reads the older form."""
    foreign = dataclasses.replace(asked.helper, protocol="text")
    run(dataclasses.replace(asked, helper=foreign), story)
    assert story.job is not None
    assert not story.job.delete_ssh_keys.host_keys_follow
    assert story.keys == ()


def test_the_receipt_is_returned_and_written(story: Story, asked: Deployment, tmp_path: Path) -> None:
    """D-30: incomplete after a custom task, without a secret, with the host's own warnings."""
    document = run(asked, story)
    assert json.loads((tmp_path / "receipt.json").read_text()) == document
    assert document["complete"] is False
    assert document["warnings"] == ["no password was asked for"]
    assert set(document["seconds"]) == {"copy", "helper-start", "customize"}
    assert SECRET not in json.dumps(document)


@pytest.mark.parametrize("is_promised", [False, True])
def test_a_digest_for_the_receipt_alone_may_come_after_the_job(
    story: Story, asked: Deployment, monkeypatch: pytest.MonkeyPatch, is_promised: bool
) -> None:
    """D-4: it is not waited for, and not missing in the end; one that is promised comes before."""
    image = Path(asked.image.path or "")
    os.truncate(image, 13 * MIB)  # holes, which are copied at once
    right = hashlib.sha256(image.read_bytes()).hexdigest()
    written, job_done = threading.Event(), threading.Event()
    update, write, run_job = Digests.update, copy._Copy._write, FakeVm.run_job

    def slow_update(digests: Digests, view: memoryview) -> None:
        assert written.wait(10)
        if digests.position > 5 * MIB:
            assert job_done.wait(0 if is_promised else 10) is not is_promised
        update(digests, view)

    def noted_write(copying: copy._Copy, wipe_tail: WipeTail) -> None:
        write(copying, wipe_tail)
        written.set()

    def noted_job(vm: FakeVm, job: Job, disks: Sequence[OpenDisk]) -> Outcome:
        outcome = run_job(vm, job, disks)
        job_done.set()
        return outcome

    monkeypatch.setattr(Digests, "update", slow_update)
    monkeypatch.setattr(copy._Copy, "_write", noted_write)
    monkeypatch.setattr(FakeVm, "run_job", noted_job)
    source = dataclasses.replace(asked.image, sha256=right if is_promised else None)
    disk = dataclasses.replace(asked.disks[0], create_size=16 * MIB)
    document = run(dataclasses.replace(asked, image=source, disks=(disk,)), story)
    assert document["image"]["sha256"] == right


def test_warnings_that_come_up_on_the_way_are_in_the_receipt(
    story: Story, asked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter(story)
    monkeypatch.setattr(FakeVm, "wait_ready", lambda _: reporter.warn("another build", details="/x"))
    receipt = subject.deploy(asked, reporter).as_json()
    assert receipt["warnings"] == ["no password was asked for", "another build"]


@pytest.mark.parametrize("where", ["copying", "ready", "job"])
@pytest.mark.parametrize("error", [HelperError("no"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_a_failure_leaves_a_disk_that_does_not_boot(
    story: Story, asked: Deployment, where: str, error: BaseException
) -> None:
    """D-12, R-SCR-CREATE-3, R-HLP-12: cleared when the VM, which could write it anew, is gone."""
    asked, disk = used_disk(asked)

    if where == "copying" and not isinstance(error, KeyboardInterrupt):
        # Sinks cannot fail a deployment; a broken disk can.
        broken = dataclasses.replace(asked.image, sha256="0" * 64)
        asked, error = dataclasses.replace(asked, image=broken), ImageError("sha256")
    story.fail[where] = error

    def write_late() -> None:
        with disk.open("r+b") as file:
            file.seek(510)
            file.write(b"\x55\xaa")

    story.at_close = write_late
    with pytest.raises(type(error)):
        run(asked, story)
    assert story.steps[-2:] == ["VM gone", "disarmed"]
    assert disk.read_bytes()[510:512] == bytes(2)
    assert disk.stat().st_size == 4 * MIB


@pytest.mark.parametrize("error", [HelperError("no"), KeyboardInterrupt()])
def test_a_disk_that_is_only_customised_is_never_disarmed(
    story: Story, asked: Deployment, error: BaseException
) -> None:
    """D-12: what this run did not copy to it does not spoil on purpose."""
    asked, disk = used_disk(asked)
    before = disk.read_bytes()
    story.fail["job"] = error
    with pytest.raises(type(error)):
        subject.customize(asked, Reporter(story))
    assert "disarmed" not in story.steps
    assert "<copy>" not in story.steps
    assert disk.read_bytes() == before


def test_a_file_that_was_made_here_goes_away_with_a_failure(
    story: Story, asked: Deployment, tmp_path: Path
) -> None:
    story.fail["job"] = HelperError("no")
    with pytest.raises(HelperError):
        run(asked, story)
    assert not (tmp_path / "disk").exists()
    assert not (tmp_path / "receipt.json").exists()


@pytest.mark.parametrize(
    ("change", "kind", "steps"),
    [
        ({"disks": (TargetDisk(index=0, path="/nonexistent/disk"),)}, UserError, []),
        ({"image": ImageSource(path="/nonexistent", shown="x", format=ImageFormat.DISKDUMP)}, UserError, []),
        ({"image": ImageSource(path="/dev/null", shown="x", format=ImageFormat.DISKDUMP)}, UserError, []),
        ({"report": "/nonexistent/receipt"}, UserError, []),
        ({}, NodeError, ["helper checked"]),
    ],
)
def test_nothing_is_written_before_everything_was_checked(
    story: Story, asked: Deployment, change: dict[str, Any], kind: type[SnfImageError], steps: list[str]
) -> None:
    """R-SCR-CREATE-1, R-HLP-17: a bad helper, image, disk or receipt costs the disk nothing."""
    asked, disk = used_disk(asked)
    before = disk.read_bytes()
    if kind is NodeError:
        story.fail["helper checked"] = NodeError("of another contract")
    with pytest.raises(kind):
        run(dataclasses.replace(asked, **change), story)
    assert story.steps == steps
    assert disk.read_bytes() == before


def test_an_image_that_is_too_large_costs_nothing(story: Story, asked: Deployment, tmp_path: Path) -> None:
    """R-DST-LOCAL-2: refused before a VM is started; nothing to look at is kept."""
    small = TargetDisk(index=0, path=asked.disks[0].path, create_size=4096)
    with pytest.raises(UserError, match="has only 4096") as refused:
        run(dataclasses.replace(asked, disks=(small,)), story)
    assert story.steps == []
    assert refused.value.kept is None
    assert evidence(tmp_path) == []


def test_without_tasks_there_is_no_vm(story: Story, asked: Deployment) -> None:
    """R-HLP-15: the copy is all."""
    document = run(dataclasses.replace(asked, run_helper=False), story)
    assert story.steps == ["<copy>", "copied", "</copy>"]
    assert document["helper"] is None
    assert document["tasks"] == []


@pytest.mark.parametrize("error", [HelperError("no"), RuntimeError("a bug")])
def test_a_failure_keeps_evidence_without_a_secret(
    story: Story, asked: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """D-5: console, job and command, for the owner only; the error names the place.

    The command is what a shell needs to do the same again, wherever it is.
    """
    there = tmp_path / "where it's done"
    there.mkdir()
    monkeypatch.chdir(there)
    monkeypatch.setattr(sys, "argv", ["/bin/echo", "a  b", "c"])
    story.fail["job"] = error
    with pytest.raises(type(error)) as failure:
        run(asked, story)
    (kept,) = evidence(tmp_path)
    if isinstance(failure.value, SnfImageError):
        assert failure.value.kept == str(kept)
    else:
        assert failure.value.__notes__ == [f"kept for a look: {kept}"]
    again = (kept / "command").read_text()
    assert snf_image_process.run(["sh", "-c", f"{again}pwd"], timeout=10).text == f"a  b c\n{there}\n"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in kept.iterdir()} == {"command", "job.json", "console.log"}
    assert all((kept / name).stat().st_mode & 0o777 == 0o600 for name in ("command", "job.json"))
    assert SECRET not in (kept / "job.json").read_text()
    assert json.loads((kept / "job.json").read_text())["instance"] == "web1"


@pytest.mark.parametrize("keep", [False, True])
def test_a_success_keeps_nothing_unless_asked(
    story: Story, asked: Deployment, tmp_path: Path, *, keep: bool
) -> None:
    """D-5: and then it is said where; programs that show progress to users are not told of the path."""
    run(dataclasses.replace(asked, keep=keep), story)
    told = [event for event in story.told if event.message == "the evidence is kept"]
    assert [event.details for event in told] == [str(path) for path in evidence(tmp_path)]
    assert len(told) == int(keep)


@pytest.mark.parametrize("keep", [False, True])
def test_an_interruption_keeps_nothing_unless_asked(
    story: Story, asked: Deployment, tmp_path: Path, *, keep: bool
) -> None:
    """D-5, T-23, R-HLP-13: Ctrl-C leaves no temporary file."""
    story.fail["job"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as interrupted:
        run(dataclasses.replace(asked, keep=keep), story)
    kept = evidence(tmp_path)
    assert len(kept) == int(keep)
    notes = getattr(interrupted.value, "__notes__", [])
    assert notes == [f"kept for a look: {path}" for path in kept], "nobody is told where it is"


def test_a_dump_of_a_file_system_leaves_no_header_file(
    story: Story, asked: Deployment, tmp_path: Path
) -> None:
    """T-23, R-FMT-2, R-FMT-7: the header is made in memory, and counts in what is copied."""
    image = Path(asked.image.path or "")
    superblock = bytearray(2 * MIB)
    superblock[1028] = 16  # blocks
    superblock[1080:1082] = b"\x53\xef"
    image.write_bytes(superblock)
    source = dataclasses.replace(asked.image, format=ImageFormat.EXTDUMP)
    run(dataclasses.replace(asked, image=source), story)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "disk",
        "evidence",
        "image.raw",
        "receipt.json",
    ]
    assert evidence(tmp_path) == []
    disk = (tmp_path / "disk").read_bytes()
    assert disk[510:512] == b"\x55\xaa"
    assert disk[MIB : 3 * MIB] == superblock


def test_no_room_for_evidence_is_the_nodes_fault(
    story: Story, asked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    with pytest.raises(NodeError, match="no temporary directory can be made in /nonexistent") as error:
        run(asked, story)
    assert "TMPDIR" in error.value.hint


def test_evidence_that_cannot_be_written_is_the_nodes_fault(
    story: Story, asked: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-16: status 5 and not a bug of ours, before anything is written."""
    directory = tmp_path / "evidence" / "taken"
    directory.mkdir()
    (directory / "job.json").touch()
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: str(directory))
    with pytest.raises(NodeError, match=r"job\.json cannot be written: ") as error:
        run(asked, story)
    assert "TMPDIR" in error.value.hint
    assert "<copy>" not in story.steps


def test_the_command_may_name_files_in_any_bytes(
    story: Story, asked: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-5, D-9: names of files need not be UTF-8, and what is kept has them as they are."""
    monkeypatch.setattr(sys, "argv", ["/bin/echo", os.fsdecode(b"caf\xe9.raw")])
    story.fail["job"] = HelperError("no")
    with pytest.raises(HelperError):
        run(asked, story)
    (kept,) = evidence(tmp_path)
    answer = snf_image_process.run(["sh", str(kept / "command")], timeout=10)
    assert answer.stdout == b"caf\xe9.raw\n"


def test_an_inspection_attaches_disks_and_asks(story: Story, asked: Deployment) -> None:
    """D-28: no copy, no keys; the outcome is the helper's."""
    asked, disk = used_disk(asked)
    before = disk.read_bytes()
    read_only = dataclasses.replace(asked.disks[0], read_only=True)
    outcome = subject.inspect_image(dataclasses.replace(asked, disks=(read_only,)), Reporter(story))
    assert outcome.events == story.events
    assert "<inspect>" in story.steps
    assert "<copy>" not in story.steps
    assert disk.read_bytes() == before
