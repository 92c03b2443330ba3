"""Which tasks are left out, and why (R-TASK-3)."""

from __future__ import annotations

from collections.abc import Iterable

from snf_image_contract.job import OperatorTask, SkippedTask
from snf_image_contract.names import TaskName, operator_task_place, runs_mounted
from snf_image_host.parameters.properties import ImageProperties


def skipped_tasks(properties: ImageProperties, *, not_asked: dict[TaskName, str]) -> tuple[SkippedTask, ...]:
    """Excluded tasks in the order in which tasks run. ``not_asked``: reasons of tasks without their input."""
    found = ((task, _why(task, properties) or not_asked.get(task)) for task in TaskName)
    return tuple(SkippedTask(task=task, reason=reason) for task, reason in found if reason)


def _why(task: TaskName, properties: ImageProperties) -> str | None:
    """The first reason, in the order E, F, M, C."""
    if properties.exclude_all_tasks:
        return f"task {task} is excluded by property EXCLUDE_ALL_TASKS"
    if task.excludable and task in properties.exclude_tasks:
        return f"task {task} is excluded by property EXCLUDE_TASK_{task}"
    if task.resizes and properties.exclude_filesystemresize_tasks:
        return f"task {task} is excluded by property EXCLUDE_FilesystemResize_TASKS"
    if task.mounted and properties.exclude_mounted_tasks:
        return f"task {task} is excluded by property EXCLUDE_MOUNTED_TASKS"
    if task.left_to_cloud_init and properties.cloud_init:
        return f"task {task} is left to cloud-init (property CLOUD_INIT)"
    return None


def operator_tasks(files: Iterable[str], properties: ImageProperties) -> tuple[OperatorTask, ...]:
    """The tasks that the operator added to the helper, and which of them are skipped."""
    return tuple(OperatorTask(file=file, skipped=_why_operator_task(file, properties)) for file in files)


def _why_operator_task(file: str, properties: ImageProperties) -> str | None:
    """As of a built-in task: E, then M for those that run while the image is mounted."""
    place = operator_task_place(file)
    name = file[2:]
    if name in properties.exclude_tasks:
        return f"task {name} is excluded by property EXCLUDE_TASK_{name}"
    if place is not None and runs_mounted(place) and properties.exclude_mounted_tasks:
        return f"task {name} is excluded by property EXCLUDE_MOUNTED_TASKS"
    return None
