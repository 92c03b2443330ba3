"""What front ends, programs and people are told: the exact words on the wire, bars, lines."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snf_image_contract.events import (
    Changed,
    Detected,
    Event,
    Failed,
    Hello,
    JobAccepted,
    OperatorTaskEnded,
    OperatorTaskStarted,
    Succeeded,
    TaskEnded,
    TaskStarted,
    Warned,
)
from snf_image_contract.job import AssignHostname as Hostname
from snf_image_contract.job import Job, JobDisk
from snf_image_contract.names import ImageFormat, OsFamily, TaskName
from snf_image_host.deployment import Deployment, HelperSettings, ImageSource, TargetDisk
from snf_image_host.errors import NodeError
from snf_image_host.reporter import (
    ConsoleLine,
    CopyProgress,
    Debug,
    Failure,
    HelperSaid,
    Info,
    StageEnded,
    StageStarted,
    Warning,
)
from snf_image_host.reporter import Event as HostEvent
from snf_image_host.sinks import JsonLines, Lines, MonitorLog, Terminal, public_names
from snf_image_host.sinks.messages import Messages, encode
from snf_image_host.vm.console import PREFIX

SWAP = TaskName.ADD_SWAP


def said(event: Event) -> dict[str, Any] | None:
    return Messages().of(HelperSaid(event=event))


def test_the_messages_of_tasks_are_these_and_no_others() -> None:
    """R-MON-1, R-MON-3, T-38: names without numbers; the end of a task is task-end, skipped or not."""
    assert said(TaskStarted(task=SWAP)) == {
        "type": "image-helper",
        "subtype": "task-start",
        "task": "AddSwap",
    }
    ended = {"type": "image-helper", "subtype": "task-end", "task": "AddSwap"}
    assert said(TaskEnded(task=SWAP, seconds=1.5)) == ended
    assert said(TaskEnded(task=SWAP, seconds=0, skipped="excluded")) == ended
    assert said(Warned(message="no swap", task=SWAP)) == {
        "type": "image-helper",
        "subtype": "warning",
        "messages": ["no swap"],
    }
    for quiet in (
        Hello(contract_version=1, build="b"),
        JobAccepted(),
        Succeeded(),
        Changed(task=SWAP, changes=()),
    ):
        assert said(quiet) is None


def test_a_task_of_the_operator_is_told_like_any_other() -> None:
    """R-MON-1, R-MON-3, D-34."""
    assert said(OperatorTaskStarted(task="InstallAgent")) == {
        "type": "image-helper",
        "subtype": "task-start",
        "task": "InstallAgent",
    }
    ended = OperatorTaskEnded(task="InstallAgent", seconds=1.5)
    assert said(ended) == {"type": "image-helper", "subtype": "task-end", "task": "InstallAgent"}
    stream = io.StringIO()
    lines, terminal = Lines(stream, verbose=True), Terminal(stream)
    lines.handle(HelperSaid(event=ended))
    terminal.handle(HelperSaid(event=OperatorTaskStarted(task="InstallAgent")))
    assert "InstallAgent: 1.50 s\n" in stream.getvalue()
    assert "[ +/18] InstallAgent" in stream.getvalue()


@pytest.mark.parametrize("task", list(TaskName))
def test_no_task_stops_on_the_wire(task: TaskName) -> None:
    """T-38: the older word for a task's end is never sent."""
    for event in (TaskStarted(task=task), TaskEnded(task=task, seconds=0)):
        message = said(event)
        assert message is not None
        assert b"task-stop" not in encode(message)


def test_a_failed_task_has_messages_or_its_last_ten_lines() -> None:
    """R-MON-1: `messages`, or else `stderr` as one text of at most ten lines."""
    told = said(Failed(blame="customization", messages=("no space", "on /dev/vda1"), task=SWAP))
    assert told == {"type": "image-helper", "subtype": "error", "messages": ["no space", "on /dev/vda1"]}
    lines = tuple(f"line {number}" for number in range(12))
    told = said(Failed(blame="customization", messages=(), stderr=lines))
    assert told == {"type": "image-helper", "subtype": "error", "stderr": "\n".join(lines[-10:])}


def test_what_was_detected_is_told() -> None:
    told = said(Detected(os_family=OsFamily.LINUX, root_partition=2))
    assert told == {
        "type": "image-info",
        "messages": ["the image is linux, its root file system is on partition 2"],
    }


def test_two_causes_stay_two_entries() -> None:
    """R-MON-6, T-24, T-25: every cause of its own, and none replaced by a general one."""
    error = NodeError("the disk is full", "the copy was not finished")
    message = Messages().of(Failure(error=error))
    assert message == {
        "type": "image-error",
        "messages": ["the disk is full", "the copy was not finished"],
    }


def test_start_and_end_of_the_copy_are_told() -> None:
    """R-MON-1: information of the copy's start and end; other stages have their own messages."""
    messages = Messages()
    assert messages.of(StageStarted(stage="copy")) == {
        "type": "image-info",
        "messages": ["copying the image"],
    }
    ended = messages.of(StageEnded(stage="copy", seconds=2.26))
    assert ended == {"type": "image-info", "messages": ["the image was copied in 2.3 s"]}
    assert messages.of(StageStarted(stage="customize")) is None
    assert messages.of(Info(message="helper VM ended, status 0")) == {
        "type": "image-info",
        "messages": ["helper VM ended, status 0"],
    }


def test_progress_comes_every_three_seconds_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-MON-1: two decimals; in between nothing is sent."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    messages = Messages()

    def at(seconds: float, position: int, *, final: bool = False) -> dict[str, Any] | None:
        nonlocal now
        now = 1000.0 + seconds
        return messages.of(CopyProgress(position=position, total=3000, final=final))

    assert at(0, 1000) == {
        "type": "image-copy-progress",
        "position": 1000,
        "total": 3000,
        "progress": 33.33,
    }
    assert at(2.9, 1100) is None
    assert (at(3.0, 2000) or {})["progress"] == 66.67
    assert (at(3.1, 3000, final=True) or {})["progress"] == 100.0


def test_a_size_that_is_not_known_is_zero_until_the_end() -> None:
    """R-MON-5: total 0 and 0.0 while copying; at the end total equals position, also 0/0."""
    copying = Messages().of(CopyProgress(position=7, total=None))
    assert copying == {"type": "image-copy-progress", "position": 7, "total": 0, "progress": 0.0}
    last = Messages().of(CopyProgress(position=9, total=None, final=True))
    assert last == {"type": "image-copy-progress", "position": 9, "total": 9, "progress": 100.0}
    nothing = Messages().of(CopyProgress(position=0, total=0, final=True))
    assert nothing == {"type": "image-copy-progress", "position": 0, "total": 0, "progress": 100.0}


@given(position=st.integers(0, 1 << 60), total=st.none() | st.integers(0, 1 << 60), final=st.booleans())
def test_progress_never_exceeds_100(position: int, total: int | None, *, final: bool) -> None:
    """R-FMT-7, T-21: whatever the numbers are."""
    message = Messages().of(CopyProgress(position=position, total=total, final=final))
    assert message is not None
    assert 0.0 <= message["progress"] <= 100.0


@example(text="\x00\x1b\x7f\x85\u2028 ä \ud800")
@given(text=st.text())
def test_a_message_is_one_line_of_printable_ascii(text: str) -> None:
    """R-MON-1: control and non-ASCII characters are escaped; a timestamp is added; the text survives."""
    line = encode(Messages().of(Info(message=text)) or {})
    assert line.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    document = json.loads(line)
    assert document["messages"] == [text]
    assert document["type"] == "image-info"
    assert 1_600_000_000 < document["timestamp"] < 10_000_000_000


def deployment(**changed: Any) -> Deployment:
    fields: dict[str, Any] = {
        "instance": "web1",
        "image": ImageSource(path="/srv/images/x.raw", shown="x.raw", format=ImageFormat.DISKDUMP),
        "disks": (TargetDisk(index=0, path="/dev/vg/web1"), TargetDisk(index=1, path="/dev/vg/web1.2")),
        "helper": HelperSettings(directory="/usr/lib/snf"),
        "job": Job(instance="web1", clock=0, disks=(JobDisk(index=0),), assign_hostname=Hostname(name="w")),
        "report": "/root/receipt.json",
    }
    return Deployment(**fields | changed)


def test_front_ends_are_not_told_paths_of_the_host() -> None:
    """R-MON-7: disks by number, the image by its name; operators are told the paths."""
    names = public_names(deployment())
    error = NodeError(
        "/dev/vg/web1.2 cannot be written at byte 5",
        "nor /dev/vg/web1; the image /srv/images/x.raw is fine, and so is /etc/passwd of the guest",
    )
    messages = Messages(names)
    told = messages.of(Failure(error=error))
    assert told == {
        "type": "image-error",
        "messages": [
            "disk 1 cannot be written at byte 5",
            "nor disk 0; the image x.raw is fine, and so is /etc/passwd of the guest",
        ],
    }
    warned = messages.of(Warning(message="see /usr/lib/snf/kernel", details="/dev/vg/web1"))
    assert warned is not None
    assert warned["messages"] == ["see the helper image/kernel"]
    stream = io.StringIO()
    Lines(stream).handle(Warning(message="/dev/vg/web1 is slow", details="disk at /dev/vg/web1"))
    assert stream.getvalue() == "warning: /dev/vg/web1 is slow (disk at /dev/vg/web1)\n"


def test_without_a_monitor_messages_go_to_the_log() -> None:
    """R-MON-2: behind a fixed word; what front ends are not told of is not there either."""
    stream = io.StringIO()
    log = MonitorLog(stream)
    log.handle(Info(message="helper VM started (tcg)"))
    log.handle(ConsoleLine(text="booting"))
    log.handle(HelperSaid(event=TaskStarted(task=SWAP)))
    log.close()
    lines = stream.getvalue().splitlines()
    assert [line[:10] for line in lines] == ["[MONITOR] "] * 2
    assert [json.loads(line[10:])["type"] for line in lines] == ["image-info", "image-helper"]


def test_json_lines_have_every_event_and_when_it_was() -> None:
    stream = io.StringIO()
    sink = JsonLines(stream)
    events: list[HostEvent] = [
        Info(message="i"),
        Warning(message="w", details="only for operators"),
        StageStarted(stage="copy"),
        CopyProgress(position=1, total=4),
        CopyProgress(position=2, total=4),
        CopyProgress(position=4, total=4, final=True),
        StageEnded(stage="copy", seconds=0.12345),
        HelperSaid(event=TaskEnded(task=SWAP, seconds=0.5)),
        Debug(message="not asked for"),
        ConsoleLine(text="neither"),
        Failure(error=NodeError("a", "b")),
    ]
    for event in events:
        sink.handle(event)
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(document.pop("time") > 0 for document in documents)
    assert documents == [
        {"event": "info", "message": "i"},
        {"event": "warning", "message": "w"},
        {"event": "stage-start", "stage": "copy"},
        {"event": "copy-progress", "position": 1, "total": 4, "progress": 25.0},
        {"event": "copy-progress", "position": 4, "total": 4, "progress": 100.0},
        {"event": "stage-end", "stage": "copy", "seconds": 0.123},
        {
            "event": "helper",
            "helper": {"kind": "task-end", "task": "AddSwap", "seconds": 0.5, "skipped": None},
        },
        {"event": "failure", "exit_code": 5, "messages": ["a", "b"]},
    ]


def test_verbose_json_lines_have_the_console() -> None:
    stream = io.StringIO()
    sink = JsonLines(stream, verbose=True)
    sink.handle(Debug(message="d"))
    sink.handle(ConsoleLine(text="c"))
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["debug", "console"]


def test_lines_for_logs() -> None:
    stream = io.StringIO()
    sink = Lines(stream)
    sink.handle(StageStarted(stage="copy"))
    sink.handle(CopyProgress(position=1 << 20, total=4 << 20))  # too soon to be told
    sink.handle(CopyProgress(position=4 << 20, total=4 << 20, final=True))
    sink.handle(StageEnded(stage="copy", seconds=1.04))
    sink.handle(HelperSaid(event=Warned(message="odd", task=SWAP)))
    sink.handle(ConsoleLine(text="not asked for"))
    assert stream.getvalue().splitlines() == [
        "copied 4 MiB (100 %)",
        "copying the image: 1.0 s",
        "warning: AddSwap: odd",
    ]


HOSTILE = "\x1b[2Jgone\r\n\x07\u202eevil\x9b31m"


def test_the_console_is_shown_as_it_comes_with_its_prefix_once() -> None:
    """R-HLP-8: the console's reader puts the prefix, nobody else does."""
    stream = io.StringIO()
    Lines(stream, verbose=True).handle(ConsoleLine(text=f"{PREFIX}booting"))
    assert stream.getvalue() == "HELPER: booting\n"


@pytest.mark.parametrize("kind", [Lines, Terminal])
def test_nothing_the_helper_says_steers_a_terminal(kind: type[Lines | Terminal]) -> None:
    """T-34: escape sequences, line breaks and changes of direction are shown, not obeyed."""
    stream = io.StringIO()
    sink = kind(stream, verbose=True)
    sink.handle(HelperSaid(event=Warned(message=HOSTILE)))
    sink.handle(HelperSaid(event=Detected(os_family=OsFamily.LINUX, root_partition=1, distribution=HOSTILE)))
    sink.handle(ConsoleLine(text=HOSTILE))
    own = stream.getvalue().replace("\r\x1b[K", "")
    assert not [c for c in own if not c.isprintable() and c != "\n"]
    assert r"\x1b[2Jgone\r\n\x07" in own
    assert own.count("\n") == 3


def shown(stream: io.StringIO) -> str:
    """What the terminal's last line says now."""
    return stream.getvalue().rpartition("\r\x1b[K")[2].rpartition("\n")[2]


def test_the_bar_fills_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setenv("COLUMNS", "100")
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.handle(StageStarted(stage="copy"))
    assert shown(stream) == "copying the image …"
    now = 52.0
    terminal.handle(CopyProgress(position=512 << 20, total=1024 << 20))
    assert shown(stream) == f"[{'#' * 12}{'-' * 12}]  50 %  512 MiB at 256 MiB/s, 2 s left"
    terminal.handle(CopyProgress(position=513 << 20, total=1024 << 20))  # too soon
    assert " 512 MiB at " in shown(stream)
    now = 54.0
    terminal.handle(CopyProgress(position=1024 << 20, total=1024 << 20, final=True))
    assert shown(stream) == f"[{'#' * 24}] 100 %  1.0 GiB at 256 MiB/s"


def test_the_bar_without_a_size_does_not_divide_by_it() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.handle(CopyProgress(position=5 << 20, total=None))
    assert "  0 %  5 MiB" in shown(stream)
    terminal.handle(CopyProgress(position=0, total=0, final=True))
    assert "100 %" in shown(stream)


def test_warnings_stay_above_the_line_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.handle(HelperSaid(event=TaskStarted(task=SWAP)))
    status = shown(stream)
    assert re.fullmatch(r"\[ ?\d+/\d+\] AddSwap", status)
    terminal.handle(Warning(message="x" * 60))
    assert f"warning: {'x' * 60}\n" in stream.getvalue()
    assert shown(stream) == status
    terminal.handle(StageStarted(stage="y" * 60))
    assert len(shown(stream)) == 39  # a line that wraps cannot be cleared
    terminal.close()
    assert shown(stream) == ""
