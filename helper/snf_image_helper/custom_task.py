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

from snf_image_contract.programs import interpreter
from snf_image_helper.errors import RequestError, TaskError
from snf_image_helper.guest import Guest
from snf_image_helper.machine import Machine
from snf_image_process import ProcessError, start

PREFIX: Final = "SNF_IMAGE_"
MAX_VALUE: Final = 64 * 1024
"""Bytes of the longest value that stands in the environment itself (D-18)."""
MAX_ENVIRONMENT: Final = 1024 * 1024
"""Bytes of all values together; the kernel allows 2 MiB for them and the arguments."""
_CONSOLE: Final = (1, 2)


def run(guest: Guest) -> None:
    """Run the program that the job brings; its exit status decides."""
    program = guest.job.run_custom_task.program
    if program is None:
        guest.warn("property CUSTOM_TASK is not set: no custom task is run")
        return
    data = _decoded(program.reveal())
    try:
        argv = interpreter(data)
    except ValueError as error:
        raise RequestError(f"CUSTOM_TASK: {error}") from None
    with private_directory() as directory:
        path = _store(directory, "custom-task", data)
        status = run_program(guest, [*argv, path], directory)
    if status:
        raise TaskError(f"the custom task failed: {describe(status)}")


def run_program(
    subject: Guest | Machine, argv: Sequence[str], directory: str, pass_fds: Sequence[int] = ()
) -> int:
    """Run a program with the tasks' environment and the console; exit status, negative for a signal.

    ``directory``: a private one of this VM, for values too big for the environment. Whatever the program
    leaves running is killed, or it would keep the tree busy. The helper's own time limit bounds it.
    """
    stdout, stderr = _CONSOLE
    try:
        running = start(
            argv, stdout=stdout, stderr=stderr, env=environment(subject, directory), pass_fds=pass_fds
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


def environment(subject: Guest | Machine, directory: str) -> dict[str, str]:
    """The variables of custom, overwriting and operators' tasks; TARGET only where a tree is mounted.

    Big values are written to files of ``directory``, and ``SNF_IMAGE_<NAME>_FILE`` names the file instead.
    """
    values = {variable.name: variable.value.reveal() for variable in subject.job.environment} | _facts(
        subject
    )
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


def _facts(subject: Guest | Machine) -> dict[str, str]:
    """What only the helper knows."""
    disks = subject.disks.all
    resized = subject.resize_partition
    return {
        **({"TARGET": subject.target} if isinstance(subject, Guest) else {}),
        "DEV": subject.disks.first.device,
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
