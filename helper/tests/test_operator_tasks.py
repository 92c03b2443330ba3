"""Tasks that the operator added to the helper: their order, what they are told, how they end."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snf_image_contract.events import OperatorTaskEnded, OperatorTaskStarted, Warned
from snf_image_contract.job import OperatorTask, Variable
from snf_image_contract.names import OsFamily, TaskName
from snf_image_contract.secret import Secret
from snf_image_helper import operator_tasks, partition_table, runner
from snf_image_helper.detection import Detection
from snf_image_helper.errors import TaskError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.family import FAMILY
from snf_image_helper.machine import Machine
from snf_image_helper.partition_table import Table
from snf_image_helper.tasks import ORDER
from trees import GuestOf, RecordingReporter, make_job

Add = Callable[[str, str], None]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Puts a program into the helper's directory of tasks."""
    directory = tmp_path / "tasks"
    directory.mkdir()
    monkeypatch.setattr(operator_tasks, "DIRECTORY", str(directory))

    def put(file: str, program: str) -> None:
        (directory / file).write_text(program)
        (directory / file).chmod(0o755)

    return put


def machine_of(guest: Guest) -> Machine:
    return Machine(
        disks=guest.disks, job=guest.job, report=guest.report, os_family=OsFamily.LINUX, root_partition=1
    )


def run(guest: Guest, file: str, skipped: str | None = None) -> list[object]:
    operator_tasks.run(OperatorTask(file=file, skipped=skipped), machine_of(guest), lambda: guest)
    assert isinstance(guest.report, RecordingReporter)
    return list(guest.report.events)


def names(*files: str) -> list[str]:
    steps = operator_tasks.in_order(ORDER, tuple(OperatorTask(file=file) for file in files))
    return [step.file if isinstance(step, OperatorTask) else step.name for step in steps]


def test_without_any_the_built_in_tasks_are_all() -> None:
    """R-TASK-1."""
    assert names() == list(TaskName)


def test_they_run_between_the_built_in_tasks() -> None:
    """R-TASK-1, D-34: by number, then by name in byte order, whatever order they are listed in."""
    order = names("99z", "55b", "55B", "50Z", "50AddSwaq", "00First")
    assert order[0] == "00First"
    assert order[-1] == "99z"
    assert order[order.index("AddSwap") + 1] == "50AddSwaq"
    assert order[order.index("SELinuxAutorelabel") + 1 : order.index("EnforcePersonality")] == [
        "50Z",
        "55B",
        "55b",
    ]


@pytest.mark.parametrize("interpreter", ["/bin/sh", "/usr/bin/env bash", "/usr/bin/python3"])
def test_it_is_run_with_the_tree_on_the_console(
    interpreter: str, add: Add, guest_of: GuestOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """D-34, R-TASK-2."""
    guest = guest_of({}, environment=(Variable(name="HOSTNAME", value=Secret("web1")),))
    program = 'echo "$SNF_IMAGE_HOSTNAME $SNF_IMAGE_TARGET $SNF_IMAGE_DEV"\n'
    if "python" in interpreter:
        program = (
            "import os\nprint(*(os.environ['SNF_IMAGE_' + name] for name in ('HOSTNAME', 'TARGET', 'DEV')))\n"
        )
    add("55Agent", f"#!{interpreter}\n{program}")
    started, ended = run(guest, "55Agent")
    assert capfd.readouterr().out == f"web1 {guest.target} /dev/vda\n"
    assert started == OperatorTaskStarted(task="Agent")
    assert isinstance(ended, OperatorTaskEnded)
    assert (ended.task, ended.skipped) == ("Agent", None)
    assert guest.report.task is None


@pytest.mark.parametrize("file", ["05Early", "90Late"])
def test_without_a_tree_it_is_told_the_disks_only(
    file: str, add: Add, guest_of: GuestOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """D-34, R-TASK-1: before MountImage and after UmountImage."""
    add(file, '#!/bin/sh\necho "${SNF_IMAGE_TARGET-none} $SNF_IMAGE_DEV $SNF_IMAGE_DEV_COUNT"\n')
    run(guest_of({}), file)
    assert capfd.readouterr().out == "none /dev/vda 1\n"


def test_a_program_of_the_machine_needs_no_interpreter(add: Add, guest_of: GuestOf) -> None:
    """D-34: ELF."""
    os.symlink("/bin/false", os.path.join(operator_tasks.DIRECTORY, "55Agent"))
    with pytest.raises(TaskError, match="exit status 1"):
        run(guest_of({}), "55Agent")


@pytest.mark.parametrize(
    ("program", "reason"),
    [("#!/bin/sh\nexit 3\n", "exit status 3"), ("#!/bin/sh\nkill -9 $$\n", "signal 9")],
)
def test_its_status_decides(program: str, reason: str, add: Add, guest_of: GuestOf) -> None:
    """D-34, R-TASK-2: the failure names the task, and there is no end of it."""
    add("55Agent", program)
    guest = guest_of({})
    with pytest.raises(TaskError, match=f"the operator's task 55Agent failed: .*{reason}"):
        run(guest, "55Agent")
    assert isinstance(guest.report, RecordingReporter)
    assert [type(event) for event in guest.report.events] == [OperatorTaskStarted]


def test_one_that_is_skipped_is_not_run(add: Add, guest_of: GuestOf) -> None:
    """R-TASK-2, R-TASK-3, D-34: a warning and its end."""
    add("55Agent", "#!/bin/sh\nexit 1\n")
    reason = "task Agent is excluded by property EXCLUDE_TASK_Agent"
    _, warned, ended = run(guest_of({}), "55Agent", skipped=reason)
    assert warned == Warned(message=reason)
    assert isinstance(ended, OperatorTaskEnded)
    assert ended.skipped == reason


@pytest.mark.parametrize("file", ["55Absent", "55../../etc/passwd", "50AddSwap"])
def test_one_that_the_helper_does_not_have_fails(file: str, add: Add, guest_of: GuestOf) -> None:
    """D-34: the host's manifest is not that of this helper."""
    add("55Agent", "#!/bin/sh\n")
    with pytest.raises(TaskError, match=r"no task .*55Absent|cannot be the file of a task"):
        run(guest_of({}), file)


def test_what_it_leaves_running_is_ended(add: Add, guest_of: GuestOf, tmp_path: Path) -> None:
    """D-34, R-TASK-UMO-1: or it would keep the tree busy."""
    lives = tmp_path / "lives"
    os.mkfifo(lives)
    reader = os.open(lives, os.O_RDONLY | os.O_NONBLOCK)
    add("55Agent", f"#!/bin/sh\nsleep 300 >{lives} &\n")
    run(guest_of({}), "55Agent")
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # no writer is left
    os.close(reader)


def test_an_inspection_runs_none_and_a_job_runs_its_own(
    add: Add, guest_of: GuestOf, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """D-34, R-TASK-1: the main path, with built-in tasks that only say their names."""
    add("55Agent", "#!/bin/sh\necho 55Agent\n")
    guest = guest_of({}, operator_tasks=(OperatorTask(file="55Agent"),))
    monkeypatch.setattr(runner, "find_disks", lambda _: guest.disks)
    found = Detection(os_family=OsFamily.LINUX, root_partition=1)
    monkeypatch.setattr(runner, "detect", lambda *_: found)
    monkeypatch.setattr(partition_table, "read", lambda _: Table)
    monkeypatch.setattr(partition_table, "resize_partition", lambda _: None)
    monkeypatch.setattr(runner, "family_of", lambda _: FAMILY)
    monkeypatch.setattr(runner.Tree, "guest", lambda _: guest)
    monkeypatch.setattr(runner, "run_step", lambda step, *_: os.write(1, f"{step.name}\n".encode()))
    monkeypatch.setattr("snf_image_helper.inspection.inspect", lambda *_: None)
    runner.run_job(guest.job, guest.report)
    order = capfd.readouterr().out.split()
    assert order[order.index("55Agent") + 1] == "EnforcePersonality"
    assert len(order) == len(TaskName) + 1
    runner.run_job(dataclasses.replace(guest.job, action="inspect"), guest.report)
    runner.run_job(make_job(), guest.report)
    assert "55Agent" not in capfd.readouterr().out
