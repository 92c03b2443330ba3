"""Tasks that the operator adds: what may be one, and how they come into the image (D-34)."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat

from snf_image_contract.names import MAX_OPERATOR_TASKS, operator_task_place
from snf_image_contract.programs import words_before

FOLDER = "tasks"
"""Below the directory of our own code, in the context and in the image."""
_BACKUPS = (".bak", "~")


def read_tasks(directory: str) -> list[str]:
    """The names of the task files, sorted; :class:`OSError` names the first file that cannot be one.

    Hidden files and those that editors and packages leave behind are passed over, with a line each.
    """
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
    except OSError as error:
        raise OSError(f"the directory of tasks {directory}: {error.strerror}") from None
    tasks: list[str] = []
    for name in names:
        if name.startswith(".") or name.endswith(_BACKUPS) or ".dpkg-" in name:
            print(f"helper image: {os.path.join(directory, name)} is no task, it is left out", flush=True)
        else:
            _check(directory, name)
            tasks.append(name)
    _refuse_namesakes(directory, tasks)
    if len(tasks) > MAX_OPERATOR_TASKS:
        raise OSError(f"{directory} holds {len(tasks)} tasks, at most {MAX_OPERATOR_TASKS} can be added")
    return tasks


def digest_of(directory: str, tasks: list[str]) -> bytes:
    """A digest over names and contents; of no task it is empty."""
    digest = hashlib.sha256()
    for name in tasks:
        with open(os.path.join(directory, name), "rb") as file:
            digest.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.digest() if tasks else b""


def add_tasks(directory: str, tasks: list[str], code: str) -> None:
    """Copy them below ``code``; without any, no folder is made."""
    if tasks:
        os.mkdir(os.path.join(code, FOLDER))
    for name in tasks:
        shutil.copy(os.path.join(directory, name), os.path.join(code, FOLDER, name))


def _check(directory: str, name: str) -> None:
    path = os.path.join(directory, name)
    if operator_task_place(name) is None:
        raise OSError(
            f"{path!r} cannot be a task: its name must be two digits, then letters and digits, at most 64 and"
            " not the name of a built-in task, such as 55InstallAgent"
        )
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"the task {path} is not a regular file")
    if not status.st_mode & stat.S_IXUSR:
        raise OSError(f"the task {path} is not executable: chmod +x {path}")
    with open(path, "rb") as file:
        try:
            words_before(file)
        except ValueError as error:
            raise OSError(f"the task {path}: {error}") from None


def _refuse_namesakes(directory: str, tasks: list[str]) -> None:
    """One property excludes one task."""
    by_name: dict[str, str] = {}
    for name in tasks:
        other = by_name.setdefault(name[2:].upper(), name)
        if other != name:
            raise OSError(f"{directory}: the tasks {other} and {name} have the same name")
