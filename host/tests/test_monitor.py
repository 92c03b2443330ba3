"""PROGRESS_MONITOR: programs that read, die, block or flood, and what a deployment notices of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snf_image_contract.events import TaskStarted
from snf_image_contract.names import TaskName
from snf_image_host.errors import UserError
from snf_image_host.reporter import CopyProgress, Event, HelperSaid, Info, Reporter, Warning
from snf_image_host.sinks import MonitorProgram, monitor


class Log:
    """The operator's log."""

    def __init__(self) -> None:
        self.warnings: list[Warning] = []
        self.others = 0

    def handle(self, event: Event) -> None:
        if isinstance(event, Warning):
            self.warnings.append(event)
        else:
            self.others += 1

    def close(self) -> None:
        pass


def program(tmp_path: Path, text: str) -> str:
    """The command of a Python program."""
    path = tmp_path / "a monitor.py"
    path.write_text(text)
    return f"{sys.executable} -S '{path}' --word"


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


COPY_STDIN = """
import os, sys
with open(OUT, "w") as file:
    print(sys.argv[1:], sorted(os.environ), file=file)
    file.writelines(sys.stdin)
"""


def test_it_reads_messages_and_its_last_argument_is_the_instance(tmp_path: Path) -> None:
    """R-MON-2, T-6: split into words without a shell; a clean environment; everything arrives, in order."""
    out = tmp_path / "out"
    command = program(tmp_path, COPY_STDIN.replace("OUT", repr(str(out)))) + " '$HOME;`touch x`'"
    sink = MonitorProgram(command, "web1.example.org")
    for number in range(20):
        sink.handle(Info(message=str(number)))
    sink.handle(CopyProgress(position=1, total=1, final=True))
    sink.close()
    first, *lines = out.read_text().splitlines()
    assert first.startswith("['--word', '$HOME;`touch x`', 'web1.example.org'] ['LC_ALL', 'PATH'")
    messages = [json.loads(line) for line in lines]
    assert [message["messages"][0] for message in messages[:20]] == [str(n) for n in range(20)]
    assert messages[20]["type"] == "image-copy-progress"


def test_a_monitor_that_dies_costs_one_warning(tmp_path: Path) -> None:
    """R-MON-4, T-37: the deployment goes on, and the others hear everything."""
    log = Log()
    sink = MonitorProgram(program(tmp_path, "raise SystemExit(3)"), "web1")
    reporter = Reporter(sink, log)

    def told() -> bool:
        reporter.info("x")
        return bool(log.warnings)

    eventually(told)
    before = log.others
    for _ in range(50):
        reporter.info("x")
    reporter.close()
    assert len(log.warnings) == 1
    assert "does not read any more: Broken pipe" in log.warnings[0].details
    assert log.others == before + 50


def test_a_monitor_that_cannot_be_started_costs_one_warning() -> None:
    """R-MON-4."""
    log = Log()
    reporter = Reporter(MonitorProgram("/nonexistent/monitor", "web1"), log)
    reporter.info("x")
    reporter.info("y")
    reporter.close()
    assert [warning.details for warning in log.warnings] == [
        "PROGRESS_MONITOR: monitor: not found on this machine"
    ]


@pytest.mark.parametrize("command", ["", "  ", "'unfinished"])
def test_a_command_that_is_none_is_refused(command: str) -> None:
    """R-MON-2: the name of an instance is never taken for the program."""
    with pytest.raises(UserError, match="PROGRESS_MONITOR"):
        MonitorProgram(command, "web1")


SLEEP = "import time; time.sleep(100)"


def is_gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def test_a_monitor_that_blocks_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-MON-4, T-37: nobody waits for it, its queue is bounded, and it does not outlive us."""
    monkeypatch.setattr(monitor, "_CLOSING", 0.2)
    sink = MonitorProgram(program(tmp_path, SLEEP), "web1")
    assert sink._running is not None
    pid = sink._running.pid
    begun = time.monotonic()
    for position in range(3000):
        sink.handle(CopyProgress(position=position, total=3000, final=False))
        monkeypatch.setattr(sink._messages, "_next", 0.0)  # as if three seconds had passed
    for task in TaskName:
        sink.handle(HelperSaid(event=TaskStarted(task=task)))
    assert time.monotonic() - begun < 5
    with sink._changed:  # its thread still takes what fits into the pipe
        queue = list(sink._queue)
    assert len(queue) <= monitor._QUEUE
    kept = [json.loads(line) for _, line in queue]
    progress = [message["position"] for message in kept if message["type"] == "image-copy-progress"]
    assert [message["task"] for message in kept if message["type"] == "image-helper"] == list(TaskName)
    assert progress[-1] == 2999  # the oldest are dropped first
    assert 0 not in progress
    sink.close()
    assert time.monotonic() - begun < 10
    assert is_gone(pid)


def test_a_monitor_that_never_reads_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-MON-4: with one warning, and nothing of it is left behind."""
    monkeypatch.setattr(monitor, "_QUEUE", 5)
    monkeypatch.setattr(monitor, "_FULL", 10)
    log = Log()
    sink = MonitorProgram(program(tmp_path, SLEEP), "web1")
    assert sink._running is not None
    pid = sink._running.pid
    reporter = Reporter(sink, log)
    for _ in range(400):
        reporter.info("x" * 4000)
    assert [warning.details for warning in log.warnings] == ["PROGRESS_MONITOR: does not read its messages"]
    assert is_gone(pid)
    assert not sink._thread.is_alive()
    reporter.close()


def test_a_monitor_that_floods_its_output_is_not_listened_to(tmp_path: Path) -> None:
    """R-MON-4, T-37."""
    flood = r"""
import sys
for line in sys.stdin:
    print("x" * 100000)
    print("y" * 100000, file=sys.stderr)
"""
    done = tmp_path / "done"
    sink = MonitorProgram(program(tmp_path, f"{flood}open({str(done)!r}, 'w')"), "web1")
    for _ in range(50):
        sink.handle(Info(message="x"))
    sink.close()
    assert done.exists()


def test_a_monitor_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-13: it may take a moment for the rest; then nothing is left of it."""
    monkeypatch.setattr(monitor, "_CLOSING", 0.2)
    reads_on = "import sys, time\nfor line in sys.stdin: pass\ntime.sleep(100)"
    sink = MonitorProgram(program(tmp_path, reads_on), "web1")
    assert sink._running is not None
    sink.handle(Info(message="x"))
    sink.close()
    assert is_gone(sink._running.pid)
