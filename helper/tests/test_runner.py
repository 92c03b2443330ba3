"""The helper's main path, with tasks that only say that they ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layouts import Part, mbr_disk
from snf_image_contract.events import Changed, Detected, Event, TaskEnded, TaskStarted, Warned, decode_event
from snf_image_contract.job import AssignHostname, Job, JobDisk, SkippedTask
from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper import tasks
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.families import Family
from snf_image_helper.linux.family import FAMILY
from snf_image_helper.machine import Machine
from snf_image_helper.report import Reporter
from snf_image_helper.runner import Tree, run_job, run_step
from snf_image_helper.tasks import ORDER, DiskStep, GuestStep, why_skipped


def job(**changes: Any) -> Job:
    plain = Job(instance="a", clock=0.0, disks=(JobDisk(index=0),), assign_hostname=AssignHostname(name="a"))
    return dataclasses.replace(plain, **changes)


class Told:
    """What a reporter sent, decoded as the host would."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.report = Reporter(self.lines.append)

    @property
    def events(self) -> list[Event]:
        return [decode_event(line, seq) for seq, line in enumerate(self.lines)]


def machine(told: Told, **changes: Any) -> Machine:
    return Machine(
        disks=Disks(all=(Disk(index=0, device="/dev/vda", size=1 << 30),)),
        job=job(**changes),
        report=told.report,
        os_family=OsFamily.LINUX,
        root_partition=1,
    )


def step(run: Callable[[Machine], None]) -> DiskStep:
    return DiskStep(TaskName.FIX_PARTITION_TABLE, run)


def run(told: Told, what: tasks.Step, **changes: Any) -> None:
    subject = machine(told, **changes)
    run_step(what, subject, FAMILY, Tree(subject, FAMILY))


def test_the_steps_are_the_tasks_in_their_order() -> None:
    """R-TASK-1."""
    assert [each.name for each in ORDER] == list(TaskName)


def test_a_task_says_that_it_starts_and_ends() -> None:
    """R-TASK-2."""
    told = Told()
    run(told, step(lambda _: None))
    started, ended = told.events
    assert started == TaskStarted(task=TaskName.FIX_PARTITION_TABLE)
    assert isinstance(ended, TaskEnded)
    assert ended.skipped is None


def test_an_excluded_task_warns_and_ends_without_running() -> None:
    """R-TASK-2, R-TASK-3."""
    told = Told()
    ran: list[Machine] = []
    skipped = SkippedTask(
        task=TaskName.FIX_PARTITION_TABLE, reason="excluded by EXCLUDE_TASK_FixPartitionTable"
    )
    run(told, step(ran.append), skipped=(skipped,))
    assert ran == []
    assert [type(event) for event in told.events] == [TaskStarted, Warned, TaskEnded]
    assert told.events[2].skipped == skipped.reason  # type: ignore[union-attr]


def test_a_task_of_another_family_ends_quietly() -> None:
    """R-TASK-4: no warning."""
    told = Told()
    unattend = next(each for each in ORDER if each.name is TaskName.INSTALL_UNATTEND)
    run(told, unattend)
    assert [type(event) for event in told.events] == [TaskStarted, TaskEnded]
    assert told.events[1].skipped == "does not apply to linux"  # type: ignore[union-attr]


def test_a_failing_task_has_no_end_but_its_changes_are_told() -> None:
    """R-TASK-2: the failure goes on to the caller, who ends the run."""
    told = Told()

    def half(subject: Machine) -> None:
        from snf_image_contract.events import Change  # noqa: PLC0415 - used once

        subject.report.change(Change(path="/etc/x", change="created"))
        raise TaskError("broken")

    with pytest.raises(TaskError, match="broken"):
        run(told, step(half))
    assert [type(event) for event in told.events] == [TaskStarted, Changed]


def test_a_task_that_needs_an_excluded_one_names_it() -> None:
    """R-TASK-3."""
    told = Told()
    hostname = next(each for each in ORDER if each.name is TaskName.ASSIGN_HOSTNAME)
    with pytest.raises(TaskError, match="task MountImage is excluded"):
        run(told, hostname)


def test_a_family_without_a_hook_skips_the_task() -> None:
    empty = Family(name=OsFamily.LINUX, default_users=())
    guest_steps = [each for each in ORDER if isinstance(each, GuestStep)]
    skips = [why_skipped(each, job(), empty) for each in guest_steps]
    # Only the operator's own program is for every family.
    assert [each.name for each, skip in zip(guest_steps, skips, strict=True) if skip is None] == [
        TaskName.RUN_CUSTOM_TASK
    ]


def test_the_tree_is_unmounted_after_a_failure_and_the_failure_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-2: everything is unmounted; the first failure is the one that is told."""
    calls: list[str] = []

    class Mounted:
        def unmount(self) -> None:
            calls.append("unmount")
            raise TaskError("busy")

    monkeypatch.setattr("snf_image_helper.mounts.mount_image", lambda _: Mounted())
    subject = machine(Told())
    with pytest.raises(TaskError, match="first"):
        fail_while_mounted(subject)
    assert calls == ["unmount"]


def fail_while_mounted(subject: Machine) -> None:
    with Tree(subject, FAMILY) as tree:
        tree.mount()
        raise TaskError("first")


def test_an_unmount_that_fails_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-76: no success after a failed unmount."""

    class Mounted:
        def unmount(self) -> None:
            raise TaskError("busy")

    monkeypatch.setattr("snf_image_helper.mounts.mount_image", lambda _: Mounted())
    with pytest.raises(TaskError, match="busy"), Tree(machine(Told()), FAMILY) as tree:
        tree.mount()


@pytest.fixture
def freebsd_on_mbr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk of FreeBSD's type; no serial has to be found for it."""
    path = tmp_path / "disk"
    mbr_disk(65536, [Part(start=2048, end=9999, type=0xA5)]).save(str(path))
    disks = Disks(all=(Disk(index=0, device=str(path), size=65536 * 512),))
    monkeypatch.setattr("snf_image_helper.runner.find_disks", lambda _: disks)
    return path


@pytest.mark.parametrize("given", [{}, {"os_family": OsFamily.FREEBSD, "root_partition": 1}])
@pytest.mark.parametrize("excluded", [(), (TaskName.FIX_PARTITION_TABLE,), tuple(TaskName)[1:]])
def test_freebsd_without_a_gpt_is_refused_before_any_task(
    freebsd_on_mbr: Path, given: dict[str, Any], excluded: tuple[TaskName, ...]
) -> None:
    """R-TASK-FIX-4: whichever tasks are excluded, and whether it was detected or not; nothing is written."""
    before = freebsd_on_mbr.read_bytes()
    told = Told()
    skipped = tuple(SkippedTask(task=task, reason="excluded") for task in excluded)
    with pytest.raises(ImageError, match="FreeBSD is supported on a GPT only, and this image has an MBR"):
        run_job(job(skipped=skipped, **given), told.report)
    assert not any(isinstance(event, TaskStarted) for event in told.events)
    assert freebsd_on_mbr.read_bytes() == before


def test_an_inspection_tells_that_freebsd_needs_a_gpt(
    freebsd_on_mbr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-TASK-FIX-4, D-28: it looks all the same, and says that a deployment would fail."""
    inspected: list[Machine] = []
    monkeypatch.setattr("snf_image_helper.inspection.inspect", lambda subject, _: inspected.append(subject))
    told = Told()
    run_job(job(action="inspect"), told.report)
    assert len(inspected) == 1
    assert any(isinstance(event, Detected) and event.os_family is OsFamily.FREEBSD for event in told.events)
    assert any("FreeBSD is supported on a GPT only" in str(event) for event in told.events)
