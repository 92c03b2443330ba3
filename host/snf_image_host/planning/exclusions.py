"""Which tasks are left out, and why (R-TASK-3)."""

from __future__ import annotations

from snf_image_contract.job import SkippedTask
from snf_image_contract.names import TaskName
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
