"""The operator's program: how it is run, and what it is told."""

from __future__ import annotations

import base64
import os
import stat
import time
from pathlib import Path

import pytest

from snf_image_contract.job import RunCustomTask, Variable
from snf_image_contract.names import TaskName
from snf_image_contract.secret import Secret
from snf_image_helper import custom_task
from snf_image_helper.errors import RequestError, TaskError
from snf_image_helper.guest import Guest
from trees import GuestOf, warnings


def task(program: bytes | str) -> RunCustomTask:
    data = program.encode() if isinstance(program, str) else program
    return RunCustomTask(program=Secret(base64.b64encode(data).decode()))


def made(guest_of: GuestOf, program: bytes | str, **variables: str) -> Guest:
    return guest_of(
        {},
        task=TaskName.RUN_CUSTOM_TASK,
        run_custom_task=task(program),
        environment=tuple(Variable(name=name, value=Secret(value)) for name, value in variables.items()),
    )


def test_no_program_is_a_warning(guest_of: GuestOf) -> None:
    """R-TASK-CUS-1."""
    guest = guest_of({})
    custom_task.run(guest)
    assert "CUSTOM_TASK" in warnings(guest)[0]


@pytest.mark.parametrize(
    "program",
    [
        '#!/bin/sh\necho "out of $SNF_IMAGE_TARGET"; echo err >&2\n',
        '#!/bin/bash -e\n[[ -n $BASH ]] && echo "out of $SNF_IMAGE_TARGET"; echo err >&2\n',
        (
            "#!/usr/bin/python3\nimport os, sys\nprint('out of', os.environ['SNF_IMAGE_TARGET'])\n"
            "sys.stderr.write('err')\n"
        ),
        '#! /usr/bin/env sh\necho "out of $SNF_IMAGE_TARGET"; echo err >&2\n',
    ],
)
def test_every_interpreter_runs_and_talks_on_the_console(
    program: str, guest_of: GuestOf, capfd: pytest.CaptureFixture[str]
) -> None:
    """R-TASK-CUS-1."""
    guest = made(guest_of, program)
    custom_task.run(guest)
    out, err = capfd.readouterr()
    assert out == f"out of {guest.target}\n"
    assert err.startswith("err")


@pytest.mark.parametrize(
    ("program", "reason"),
    [("#!/bin/sh\nexit 3\n", "exit status 3"), ("#!/bin/sh\nkill -9 $$\n", "signal 9")],
)
def test_the_status_decides(program: str, reason: str, guest_of: GuestOf) -> None:
    """R-TASK-CUS-1."""
    with pytest.raises(TaskError, match=reason):
        custom_task.run(made(guest_of, program))


@pytest.mark.parametrize(
    "program",
    [b"echo x\n", b"", b"#!\n", b"#!/usr/bin/perl\n", b"#!/bin/sh/../perl\n", b"\x7fELF", b"#!sh\n"],
)
def test_a_program_without_a_known_interpreter_is_refused(program: bytes, guest_of: GuestOf) -> None:
    """R-TASK-CUS-1: interpreters of the helper only."""
    with pytest.raises(RequestError, match="CUSTOM_TASK"):
        custom_task.run(made(guest_of, program))


def test_bad_base64_is_refused(guest_of: GuestOf) -> None:
    """R-TASK-CUS-1, R-SEC-1: the text is not repeated."""
    guest = guest_of({}, run_custom_task=RunCustomTask(program=Secret("IyEv*secret")))
    with pytest.raises(RequestError, match="base64") as caught:
        custom_task.run(guest)
    assert "secret" not in str(caught.value)


def test_the_environment(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-CUS-1 and the table of variables: what the job names, and what only the helper knows."""
    guest = made(guest_of, "#!/bin/sh\n", HOSTNAME="web1", PASSWD="s3cret $(x)", PROPERTY_PATH="/evil")
    found = custom_task.environment(guest, str(tmp_path))
    assert found == {
        "SNF_IMAGE_HOSTNAME": "web1",
        "SNF_IMAGE_PASSWD": "s3cret $(x)",
        "SNF_IMAGE_PASSWORD": "s3cret $(x)",
        "SNF_IMAGE_PROPERTY_PATH": "/evil",
        "SNF_IMAGE_TARGET": guest.target,
        "SNF_IMAGE_DEV": "/dev/vda",
        "SNF_IMAGE_DEV_0": "/dev/vda",
        "SNF_IMAGE_DEV_COUNT": "1",
        "SNF_IMAGE_RESIZE_PART": "",
    }
    assert not [name for name in os.listdir(tmp_path) if not name.startswith("guest")]


def test_nothing_else_is_inherited(
    guest_of: GuestOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """T-20: not even from the helper."""
    monkeypatch.setenv("LD_PRELOAD", "/nowhere.so")
    out = tmp_path / "names"
    custom_task.run(
        made(
            guest_of, f"#!/usr/bin/python3\nimport os\nopen({str(out)!r}, 'w').write(' '.join(os.environ))\n"
        )
    )
    assert all(
        name.startswith("SNF_IMAGE_") or name in ("PATH", "LC_ALL") for name in out.read_text().split()
    )


def test_big_values_come_as_files(guest_of: GuestOf, tmp_path: Path) -> None:
    """D-18: one of a mebibyte reaches the program whole, readable by root only, and is gone afterwards."""
    out = tmp_path / "report"
    big = "x" * (1 << 20)
    program = (
        "#!/bin/sh\n"
        f'{{ wc -c < "$SNF_IMAGE_PERSONALITY_FILE"; stat -c %a "$SNF_IMAGE_PERSONALITY_FILE"; '
        f'echo "$SNF_IMAGE_PERSONALITY_FILE"; echo "${{SNF_IMAGE_PERSONALITY-absent}}"; }} > {out}\n'
    )
    custom_task.run(made(guest_of, program, PERSONALITY=big))
    size, mode, path, inline = out.read_text().split()
    assert (int(size), mode, inline) == (1 << 20, "600", "absent")
    assert not os.path.exists(os.path.dirname(path))


def test_the_limit_of_one_value(guest_of: GuestOf, tmp_path: Path) -> None:
    """D-18: 64 KiB stand in the environment, a byte more does not."""
    found = custom_task.environment(made(guest_of, "", A="x" * 65536, B="x" * 65537), str(tmp_path))
    assert {"SNF_IMAGE_A", "SNF_IMAGE_B_FILE"} <= found.keys()
    assert not {"SNF_IMAGE_A_FILE", "SNF_IMAGE_B"} & found.keys()


def test_many_values_fit_the_kernel(guest_of: GuestOf, tmp_path: Path) -> None:
    """D-18: what is too much together is moved to files, the biggest first."""
    out = tmp_path / "count"
    variables = {f"PROPERTY_{index}": "x" * 60_000 for index in range(100)}
    custom_task.run(made(guest_of, f"#!/bin/sh\nenv | grep -c ^SNF_IMAGE_PROPERTY_ > {out}\n", **variables))
    assert int(out.read_text()) == 100


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_what_no_environment_can_hold_comes_as_a_file(value: str, guest_of: GuestOf, tmp_path: Path) -> None:
    """D-18."""
    found = custom_task.environment(made(guest_of, "", X=value), str(tmp_path))
    assert Path(found["SNF_IMAGE_X_FILE"]).read_bytes() == value.encode("utf-8", "surrogatepass")


def test_values_are_private(guest_of: GuestOf) -> None:
    """R-SEC-3: the directory of big values and of the program itself."""
    with custom_task.private_directory() as directory:
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert not os.path.exists(directory)


def test_what_the_program_leaves_running_is_ended(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-UMO-1: or it would keep the tree busy."""
    pid = tmp_path / "pid"
    custom_task.run(made(guest_of, f"#!/bin/sh\nsleep 300 >/dev/null 2>&1 &\necho $! > {pid}\n"))
    assert _ends(int(pid.read_text()))


def _ends(pid: int) -> bool:
    """Whether a process that was killed is gone, or waits to be reaped, within some seconds."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False
