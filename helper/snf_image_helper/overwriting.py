"""Programs of the image that replace tasks, with its owner's and the operator's consent (R-TASK-8).

This is the one way in which anything of an image is ever run. Without ``allow_task_overwriting`` in the
job, which the host sets only if the image asks for it and the operator allows it, nothing here happens.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Final

from snf_image_contract.names import TaskName
from snf_image_helper import custom_task
from snf_image_helper.errors import TaskError
from snf_image_helper.guest import Guest
from snf_image_process import ProcessError
from snf_image_process import run as run_to_end

DIRECTORY: Final = "/root/snf-image/helper"
MAX_PROGRAM: Final = 64 * 1024 * 1024
RUN_BUILT_IN: Final = 101
"""Exit status that asks for the built-in task, and for a second call after it."""
_MOUNTS: Final = "/proc/self/mountinfo"
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def run(guest: Guest, task: TaskName, built_in: Callable[[], None]) -> None:
    """Run ``task``: the image's own program if it has one and may bring it, else ``built_in``."""
    name = replacement(guest, task)
    if name is None:
        built_in()
        return
    guest.warn(f"task {task} is replaced by the image's own program {DIRECTORY}/{name}")
    with custom_task.private_directory() as directory, _executable_mounts(guest.target):
        status = _call(guest, name, "pre-exec", directory)
    if status == RUN_BUILT_IN:
        built_in()
        with custom_task.private_directory() as directory, _executable_mounts(guest.target):
            status = _call(guest, name, "post-exec", directory)
    if status:
        raise TaskError(
            f"the image's own program {DIRECTORY}/{name} for task {task} failed: "
            f"{custom_task.describe(status)}"
        )


def replacement(guest: Guest, task: TaskName) -> str | None:
    """Name of the image's program for ``task``; None if there is none, or none may run."""
    if not guest.job.allow_task_overwriting or not task.replaceable:
        return None
    wanted = f"overwrite_task_{task}".lower()
    for name in guest.root.list(DIRECTORY) if guest.root.is_dir(DIRECTORY) else []:
        if name.lower() != wanted:
            continue
        if guest.root.is_executable(f"{DIRECTORY}/{name}"):
            return name
        guest.warn(f"{DIRECTORY}/{name}: not an executable file, task {task} is not replaced")
    return None


def _call(guest: Guest, name: str, argument: str, directory: str) -> int:
    """Run the program from a copy in memory, so that it is the file that was looked at."""
    program = guest.root.read(f"{DIRECTORY}/{name}", MAX_PROGRAM)
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(program)
        # A descriptor open for writing cannot be run (ETXTBSY).
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
    try:
        argv = [f"/proc/self/fd/{readable}", argument]
        return custom_task.run_program(guest, argv, directory, pass_fds=[readable])
    finally:
        os.close(readable)


@contextlib.contextmanager
def _executable_mounts(target: str) -> Iterator[None]:
    """Allow execution on the mounts of the tree for as long as one program runs."""
    mounts = [(path, options) for path, options in _mounts_below(target) if "noexec" in options]
    done: list[tuple[str, list[str]]] = []
    try:
        for path, options in mounts:
            # Said, not left out: mount(8) keeps flags that are not named.
            _remount(path, ["exec" if option == "noexec" else option for option in options])
            done.append((path, options))
        yield
    finally:
        for path, options in done:
            _remount(path, options)


def _mounts_below(target: str) -> Iterator[tuple[str, list[str]]]:
    """Mount points at and below ``target`` with the options of each mount (proc(5), mountinfo)."""
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            words = line.split(" ")
            path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), words[4])
            if target and (path == target or path.startswith(f"{target}/")):
                yield path, words[5].split(",")


def _remount(path: str, options: list[str]) -> None:
    words = ",".join(["remount", "bind", *options])
    try:
        run_to_end(["mount", "-o", words, path], timeout=30)
    except ProcessError as error:
        raise TaskError(f"mount options of {path} cannot be changed: {error}") from None
