"""The one runner of external programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from snf_image_process import PIPE, Deadline, DeadlineError, ProcessError, run, start

PYTHON = sys.executable


def test_output_of_both_streams_and_input() -> None:
    done = run(["sh", "-c", "cat; echo err >&2"], timeout=10, stdin=b"in\xff")
    assert (done.stdout, done.stderr, done.status) == (b"in\xff", b"err\n", 0)
    assert done.text == "in\\xff"


def test_large_input_and_output_do_not_deadlock() -> None:
    data = os.urandom(1 << 20)
    assert run(["cat"], timeout=20, stdin=data).stdout == data


def test_a_program_that_does_not_read_its_input() -> None:
    assert run(["true"], timeout=10, stdin=b"x" * (1 << 20)).status == 0


def test_output_beyond_the_limit_is_dropped_not_kept() -> None:
    done = run(["head", "-c", "5000000", "/dev/zero"], timeout=20, output_limit=1000)
    assert len(done.stdout) == 1000


def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-SEC-1: the environment is built."""
    monkeypatch.setenv("OSP_IMG_PASSWD", "hunter2")
    lines = run(["env"], timeout=10, env={"EXTRA": "1"}).text.split()
    assert not [line for line in lines if "hunter2" in line]
    assert "EXTRA=1" in lines
    assert "LC_ALL=C.UTF-8" in lines


def test_standard_input_is_null() -> None:
    assert run(["readlink", "/proc/self/fd/0"], timeout=10).text == "/dev/null\n"


def test_a_failing_program_says_what_it_said() -> None:
    with pytest.raises(ProcessError) as error:
        run(["sh", "-c", "for i in $(seq 20); do echo line $i >&2; done; exit 3"], timeout=10)
    assert error.value.status == 3
    assert error.value.stderr_tail == tuple(f"line {n}" for n in range(11, 21))
    assert str(error.value).startswith("sh: exit status 3\n  line 11")


def test_accepted_statuses() -> None:
    assert run(["sh", "-c", "exit 1"], timeout=10, accept=(0, 1)).status == 1


def test_a_signal_is_named() -> None:
    with pytest.raises(ProcessError, match="killed by signal 9"):
        run(["sh", "-c", "kill -9 $$"], timeout=10)


def test_a_missing_program() -> None:
    with pytest.raises(ProcessError, match="no-such-program: not found on this machine"):
        run(["no-such-program"], timeout=10)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end and alive(pid):
        time.sleep(0.01)
    return not alive(pid)


def test_at_the_timeout_the_whole_session_is_killed() -> None:
    begun = time.monotonic()
    with pytest.raises(ProcessError, match=r"not finished within 0\.5 seconds"):
        run(["sh", "-c", "sleep 1000 & echo $! ; wait"], timeout=0.5)
    assert time.monotonic() - begun < 5


def test_a_child_that_outlives_its_parent_is_killed(tmp_path: object) -> None:
    """A program that leaves something behind with the pipes open still ends at the timeout, all of it."""
    path = f"{tmp_path}/pid"
    with pytest.raises(ProcessError, match="not finished"):
        run(["sh", "-c", f"sleep 1000 & echo $! > {path}; exit 0"], timeout=0.5)
    with open(path, encoding="ascii") as file:
        assert gone(int(file.read()))


def test_leaving_the_context_kills() -> None:
    with start(["sleep", "1000"]) as running:
        pid = running.pid
        assert running.poll() is None
        assert running.wait(0.01) is None
    assert gone(pid)
    assert running.poll() == -signal.SIGKILL


def test_stop_asks_first() -> None:
    code = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(7)); print(flush=1); time.sleep(9)"
    with start([PYTHON, "-c", code], stdout=PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert running.stop(grace=10) == 7


def test_it_runs_in_a_session_of_its_own() -> None:
    with start(["sleep", "1000"]) as running:
        assert os.getsid(running.pid) == running.pid != os.getsid(0)


def test_descriptors_are_passed_only_if_named() -> None:
    read, write = os.pipe()
    try:
        assert run(["test", "-e", f"/proc/self/fd/{write}"], timeout=10, pass_fds=(write,)).status == 0
        assert run(["test", "-e", f"/proc/self/fd/{write}"], timeout=10, accept=(1,)).status == 1
    finally:
        os.close(read)
        os.close(write)


def test_deadline() -> None:
    assert Deadline(None).remaining() == float("inf")
    assert not Deadline(None).passed()
    assert Deadline(100).wait_time(3) == 3
    soon = Deadline(0.0)
    assert soon.passed()
    assert soon.remaining() == 0
    with pytest.raises(DeadlineError, match="the helper's hello: not within 0 seconds"):
        soon.check("the helper's hello")


def test_only_the_runner_uses_subprocess() -> None:
    """One runner: no other module of ours imports subprocess (the linter says so too)."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    grep = subprocess.run(
        ["grep", "-rlE", "^(import|from) subprocess", "--include=*.py",
         *(f"{root}/{folder}/snf_image_{folder}" for folder in ("contract", "host", "helper", "vmtests"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert grep.stdout == ""
