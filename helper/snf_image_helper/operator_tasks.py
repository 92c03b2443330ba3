"""Tasks that the operator added to the helper image when it was built (D-34).

Which of them have their turn, and which are skipped, is the host's decision; when, is that of their numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Final

from snf_image_contract.events import OperatorTaskEnded, OperatorTaskStarted
from snf_image_contract.job import OperatorTask
from snf_image_contract.names import operator_task_place, runs_mounted
from snf_image_helper.errors import TaskError
from snf_image_helper.guest import Guest
from snf_image_helper.machine import Machine
from snf_image_helper.tasks import Step

DIRECTORY: Final = "/usr/lib/snf-image/tasks"
"""Of the helper's own root, which is read-only."""


def in_order(steps: tuple[Step, ...], added: tuple[OperatorTask, ...]) -> list[Step | OperatorTask]:
    """The built-in steps, and between them the added ones (R-TASK-1)."""
    if not added:
        return list(steps)
    placed: list[tuple[tuple[int, str], Step | OperatorTask]] = [(step.name.place, step) for step in steps]
    placed += [(place_of(task), task) for task in added]
    return [step for _, step in sorted(placed, key=itemgetter(0))]


def place_of(task: OperatorTask) -> tuple[int, str]:
    """Number and name."""
    place = operator_task_place(task.file)
    if place is None:
        raise TaskError(f"{task.file[:80]!r} cannot be the file of a task")
    return place


def run(task: OperatorTask, machine: Machine, guest: Callable[[], Guest]) -> None:
    """One task with its start and its end. ``guest``: the mounted tree, for those that run while it is."""
    report = machine.report
    place = place_of(task)
    _, name = place
    report.begin(None)
    report.emit(OperatorTaskStarted(task=name))
    begun = time.monotonic()
    if task.skipped is None:
        _execute(task.file, guest() if runs_mounted(place) else machine)
    else:
        report.warn(task.skipped)
    seconds = round(time.monotonic() - begun, 3)
    report.emit(OperatorTaskEnded(task=name, seconds=seconds, skipped=task.skipped))


def _execute(file: str, subject: Guest | Machine) -> None:
    from snf_image_helper import custom_task  # noqa: PLC0415 - for few images, and for no first task

    path = os.path.join(DIRECTORY, file)
    argv = [*_interpreter(path), path]
    with custom_task.private_directory() as directory:
        status = custom_task.run_program(subject, argv, directory)
    if status:
        raise TaskError(f"the operator's task {file} failed: {custom_task.describe(status)}")


def _interpreter(path: str) -> list[str]:
    """The words before the program itself; none for one that the kernel runs."""
    from snf_image_contract.programs import words_before  # noqa: PLC0415 - as above

    try:
        with open(path, "rb") as stream:
            return words_before(stream)
    except OSError as error:
        raise TaskError(f"the helper has no task {path}: {error.strerror}") from None
    except ValueError as error:
        raise TaskError(f"{path}: {error}") from None
