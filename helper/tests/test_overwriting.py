"""Programs of the image that replace tasks: only with consent, and how their status decides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snf_image_contract.names import TaskName
from snf_image_helper import overwriting
from snf_image_helper.errors import TaskError
from snf_image_helper.guest import Guest
from snf_image_process import run as run_to_end
from trees import Directory, Fifo, File, GuestOf, Link, Node, Tree, warnings

TASK = TaskName.ADD_SWAP
PROGRAM = f"{overwriting.DIRECTORY}/overwrite_task_AddSwap"


def script(log: Path, status: str = "0") -> File:
    return File(f'#!/bin/sh\necho "$1 $SNF_IMAGE_DEV_COUNT" >> {log}\nexit {status}\n', mode=0o755)


def made(guest_of: GuestOf, tree: Tree, *, allowed: bool = True) -> Guest:
    return guest_of(tree, task=TASK, allow_task_overwriting=allowed)


def run_task(guest: Guest, log: Path, task: TaskName = TASK) -> list[str]:
    """Who ran, in order: ``built-in``, or what the program wrote."""

    def built_in() -> None:
        with log.open("a") as stream:
            stream.write("built-in\n")

    overwriting.run(guest, task, built_in)
    return log.read_text().splitlines()


def test_without_consent_nothing_of_the_image_runs(guest_of: GuestOf, tmp_path: Path) -> None:
    """T-125, R-TASK-7, R-TASK-8."""
    log = tmp_path / "log"
    guest = made(guest_of, {PROGRAM: script(log)}, allowed=False)
    assert run_task(guest, log) == ["built-in"]
    assert warnings(guest) == []


def test_with_consent_the_program_replaces_the_task(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8: with the task environment, and a warning for each use."""
    log = tmp_path / "log"
    guest = made(guest_of, {PROGRAM: script(log)})
    assert run_task(guest, log) == ["pre-exec 1"]
    assert [PROGRAM in warning for warning in warnings(guest)] == [True]


def test_101_asks_for_the_built_in_task(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8: and for a call after it, whose status then decides."""
    log = tmp_path / "log"
    guest = made(guest_of, {PROGRAM: script(log, '$([ "$1" = pre-exec ] && echo 101 || echo 0)')})
    assert run_task(guest, log) == ["pre-exec 1", "built-in", "post-exec 1"]


@pytest.mark.parametrize("status", ["1", "100", "102"])
def test_another_status_is_a_failure(status: str, guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8."""
    log = tmp_path / "log"
    with pytest.raises(TaskError, match=f"exit status {status}"):
        run_task(made(guest_of, {PROGRAM: script(log, status)}), log)
    assert log.read_text() == "pre-exec 1\n"


@pytest.mark.parametrize("status", ["1", "101"])
def test_the_second_status_decides(status: str, guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8: 101 has no meaning any more then."""
    log = tmp_path / "log"
    program = script(log, f'$([ "$1" = pre-exec ] && echo 101 || echo {status})')
    with pytest.raises(TaskError, match=f"exit status {status}"):
        run_task(made(guest_of, {PROGRAM: program}), log)
    assert log.read_text().splitlines() == ["pre-exec 1", "built-in", "post-exec 1"]


def test_a_failing_built_in_task_is_not_followed(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8: the second call comes only after success."""
    log = tmp_path / "log"

    def built_in() -> None:
        raise TaskError("no")

    with pytest.raises(TaskError, match=r"^no$"):
        overwriting.run(made(guest_of, {PROGRAM: script(log, "101")}), TASK, built_in)
    assert log.read_text() == "pre-exec 1\n"


def test_names_are_compared_without_case(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8."""
    log = tmp_path / "log"
    path = f"{overwriting.DIRECTORY}/Overwrite_Task_ADDSWAP"
    assert run_task(made(guest_of, {path: script(log)}), log) == ["pre-exec 1"]


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {PROGRAM: File("#!/bin/sh\nexit 9\n", mode=0o644)},
        {PROGRAM: Directory()},
        {PROGRAM: Fifo(mode=0o755)},
        {PROGRAM: Link("/bin/sh")},
        {f"{PROGRAM}.bak": File("#!/bin/sh\nexit 9\n", mode=0o755)},
        {overwriting.DIRECTORY: Link("/usr/bin")},
        {overwriting.DIRECTORY: "a file"},
    ],
    ids=["none", "not executable", "directory", "fifo", "link out", "other name", "directory link", "file"],
)
def test_anything_else_replaces_nothing(tree: dict[str, Node], guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-5, R-TASK-8."""
    log = tmp_path / "log"
    assert run_task(made(guest_of, tree), log) == ["built-in"]


def test_only_some_tasks_may_be_replaced(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8: those with attribute O."""
    log = tmp_path / "log"
    guest = made(guest_of, {f"{overwriting.DIRECTORY}/overwrite_task_UmountImage": script(log)})
    assert run_task(guest, log, TaskName.UMOUNT_IMAGE) == ["built-in"]


def test_a_program_of_no_known_kind_is_a_failure(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-8: the kernel refuses it; there is no traceback."""
    with pytest.raises(TaskError, match="cannot be started"):
        run_task(made(guest_of, {PROGRAM: File(b"\x00\x01garbage", mode=0o755)}), tmp_path / "log")


@pytest.mark.requires("root")
def test_mounts_allow_execution_only_meanwhile(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-7, R-TASK-8: the program can start others of the image; before and after, none runs."""
    log = tmp_path / "log"
    guest = made(guest_of, {PROGRAM: File("", mode=0o755), "/usr/my tools": Directory()})
    where = f"{guest.target}/usr/my tools"
    run_to_end(["mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec", "none", where], timeout=20)
    try:
        tool = Path(where) / "tool"
        tool.write_text(f"#!/bin/sh\necho tool >> {log}\n")
        tool.chmod(0o755)
        Path(guest.target + PROGRAM).write_text('#!/bin/sh\n"$SNF_IMAGE_TARGET/usr/my tools/tool"\n')
        assert run_task(guest, log) == ["tool"]
        assert os.statvfs(where).f_flag & os.ST_NOEXEC
        assert os.statvfs(where).f_flag & os.ST_NOSUID
        assert os.statvfs(where).f_flag & os.ST_NODEV
    finally:
        run_to_end(["umount", where], timeout=20)
