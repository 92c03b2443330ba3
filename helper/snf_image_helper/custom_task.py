"""Task RunCustomTask: a program of the operator, run in the helper (R-TASK-CUS-1).

The program gets what older helpers gave it: variables with the prefix ``SNF_IMAGE_``, its streams on the
console, and the mounted tree at ``SNF_IMAGE_TARGET``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Final

from snf_image_helper.errors import RequestError, TaskError
from snf_image_helper.guest import Guest
from snf_image_process import ProcessError, start

PREFIX: Final = "SNF_IMAGE_"
MAX_VALUE: Final = 64 * 1024
"""Bytes of the longest value that stands in the environment itself (D-18)."""
MAX_ENVIRONMENT: Final = 1024 * 1024
"""Bytes of all values together; the kernel allows 2 MiB for them and the arguments."""
_INTERPRETERS: Final = {"/bin/sh": "sh", "/bin/bash": "bash", "/usr/bin/python3": "python3"}
_ALIASES: Final = {"/usr/bin/sh": "/bin/sh", "/usr/bin/bash": "/bin/bash", "/bin/python3": "/usr/bin/python3"}
_CONSOLE: Final = (1, 2)


def run(guest: Guest) -> None:
    """Run the program that the job brings; its exit status decides."""
    program = guest.job.run_custom_task.program
    if program is None:
        guest.warn("property CUSTOM_TASK is not set: no custom task is run")
        return
    data = _decoded(program.reveal())
    argv = _interpreter(data)
    with private_directory() as directory:
        path = _store(directory, "custom-task", data)
        status = run_program(guest, [*argv, path], directory)
    if status:
        raise TaskError(f"the custom task failed: {describe(status)}")


def run_program(guest: Guest, argv: Sequence[str], directory: str, pass_fds: Sequence[int] = ()) -> int:
    """Run a program with the tasks' environment and the console; exit status, negative for a signal.

    ``directory``: a private one of this VM, for values too big for the environment. Whatever the program
    leaves running is killed, or it would keep the tree busy. The helper's own time limit bounds it.
    """
    stdout, stderr = _CONSOLE
    try:
        running = start(
            argv, stdout=stdout, stderr=stderr, env=environment(guest, directory), pass_fds=pass_fds
        )
    except ProcessError as error:
        raise TaskError(str(error)) from None
    with running:
        status = running.wait(None)
    assert status is not None  # noqa: S101 - a wait without a limit ends with the program
    return status


def describe(status: int) -> str:
    """An exit status for people."""
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


@contextlib.contextmanager
def private_directory() -> Iterator[str]:
    """A directory of this VM that only root may enter, gone at the end."""
    import tempfile  # noqa: PLC0415 - costs a tenth of a second at every start, and is rarely needed

    with tempfile.TemporaryDirectory(prefix="snf-image-") as directory:
        yield directory


def environment(guest: Guest, directory: str) -> dict[str, str]:
    """The variables of custom and overwriting tasks.

    Big values are written to files of ``directory``, and ``SNF_IMAGE_<NAME>_FILE`` names the file instead.
    """
    values = {variable.name: variable.value.reveal() for variable in guest.job.environment} | _facts(guest)
    if "PASSWD" in values:
        values.setdefault("PASSWORD", values["PASSWD"])
    result: dict[str, str] = {}
    left = MAX_ENVIRONMENT
    for name, value in sorted(values.items(), key=lambda item: len(item[1])):
        data = value.encode("utf-8", "surrogatepass")
        cost = len(PREFIX) + len(name) + len(data) + 16
        if len(data) > MAX_VALUE or cost > left or not _fits_environment(value):
            result[f"{PREFIX}{name}_FILE"] = _store(directory, name, data)
        else:
            result[f"{PREFIX}{name}"] = value
            left -= cost
    return result


def _fits_environment(value: str) -> bool:
    """Whether the kernel takes the text: no NUL, and nothing that is no character."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _facts(guest: Guest) -> dict[str, str]:
    """What only the helper knows."""
    disks = guest.disks.all
    resized = guest.resize_partition
    return {
        "TARGET": guest.target,
        "DEV": guest.disks.first.device,
        "DEV_COUNT": str(len(disks)),
        **{f"DEV_{disk.index}": disk.device for disk in disks},
        "RESIZE_PART": "" if resized is None else str(resized),
    }


def _store(directory: str, name: str, data: bytes) -> str:
    path = os.path.join(directory, name)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(data)
    return path


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("CUSTOM_TASK: not valid base64") from None


def _interpreter(program: bytes) -> list[str]:
    """The words of the ``#!`` line; the kernel's rule: an interpreter and at most one argument."""
    line = program.partition(b"\n")[0].decode("utf-8", "replace")
    if not line.startswith("#!"):
        raise RequestError("CUSTOM_TASK: the first line must begin with #! and an interpreter")
    words = line[2:].strip().split(None, 1)
    if words and words[0] == "/usr/bin/env":
        by_name = {name: path for path, name in _INTERPRETERS.items()}
        words = [by_name.get(word, word) for word in words[1:]]
    if words:
        words[0] = _ALIASES.get(words[0], words[0])
    if not words or words[0] not in _INTERPRETERS:
        known = ", ".join(_INTERPRETERS)
        raise RequestError(f"CUSTOM_TASK: interpreter {' '.join(words[:1])!r} is none of {known}")
    return [word.strip() for word in words]
