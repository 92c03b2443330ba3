"""The small parts: inert text, console, result, QMP, pace, verdict."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_contract.events import (
    Change,
    Changed,
    Event,
    Failed,
    Hello,
    JobAccepted,
    OperatorTaskEnded,
    OperatorTaskStarted,
    Succeeded,
    TaskStarted,
    Warned,
    encode_event,
)
from snf_image_contract.job import CONTRACT_VERSION
from snf_image_contract.names import TaskName
from snf_image_host.errors import NodeError, SnfImageError
from snf_image_host.inert import inert_bytes, inert_event, inert_text
from snf_image_host.reporter import Reporter
from snf_image_host.vm import serial
from snf_image_host.vm.console import Console
from snf_image_host.vm.conversation import Bounds, Conversation
from snf_image_host.vm.evidence import EvidenceFile, OutputTail
from snf_image_host.vm.json_events import JsonEvents
from snf_image_host.vm.qmp import DiskFault, Qmp, QmpError
from snf_image_host.vm.result import ResultPort
from snf_image_host.vm.serial import Port
from snf_image_host.vm.text_events import TextEvents
from snf_image_host.vm.verdict import Ending, judge
from snf_image_process import Deadline

if TYPE_CHECKING:
    from tests.vm.conftest import Recorder

NO_LOG = EvidenceFile(None, "")


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(min_value=20, max_value=200))
def test_inert_bytes_are_printable_ascii(data: bytes, limit: int) -> None:
    """T-34, R-HLP-8: whatever came, and no longer than allowed."""
    shown = inert_bytes(data, limit)
    assert len(shown) <= limit
    assert re.fullmatch(r"[ -~]*", shown)


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(min_value=20, max_value=200))
def test_inert_text_is_printable(text: str, limit: int) -> None:
    """T-34: also for texts in events; what is printable and short stays as it is."""
    shown = inert_text(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    if text.isprintable() and len(text) <= limit:
        assert shown == text


def test_inert_events_reach_into_lists() -> None:
    """T-34: paths of changed files are the image's text."""
    changes = (
        Change(path="/etc/ok", change="modified"),
        Change(path="/etc/\x1b[2J", change="created", detail="a\nb"),
    )
    event = inert_event(Changed(task=TaskName.ADD_SWAP, changes=changes), 100)
    assert event.changes == (changes[0], Change(path=r"/etc/\x1b[2J", change="created", detail=r"a\nb"))
    assert event.task is TaskName.ADD_SWAP
    same = Warned(message="plain ü")
    assert inert_event(same, 100) is same


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_every_line_of_the_console_has_the_prefix(chunks: list[bytes]) -> None:
    """R-HLP-8: however the bytes are cut, lines are the same and none can pose as ours."""
    seen: list[list[str]] = []
    for parts in (chunks, [b"".join(chunks)]):
        lines: list[str] = []
        reporter = Reporter(_Lines(lines))
        console = Console(reporter, NO_LOG)
        for part in parts:
            console.feed(part)
        console.end()
        seen.append(lines)
    assert seen[0] == seen[1]
    assert all(re.fullmatch(r"HELPER: [ -~]*", line) for line in seen[0])


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def handle(self, event: Any) -> None:
        self._lines.append(event.text)

    def close(self) -> None:
        pass


def test_the_console_is_capped(reporter: Reporter, recorder: Recorder) -> None:
    """R-HLP-8: lines at 4096 bytes, the total with a note; a panic is remembered for the error."""
    console = Console(reporter, NO_LOG, max_total=20_000)
    console.feed(b"[1.0] Kernel panic - not syncing: VFS\r\n")
    console.feed(b"y" * 10_000 + b"\n")
    console.feed(b"z" * 100_000 + b"\n")
    console.end()
    assert console.panic == "Kernel panic - not syncing: VFS"
    assert [len(line) for line in recorder.console[1:3]] == [4096, 4096]
    assert recorder.console[3] == "HELPER: [90041 more bytes of the console are not shown]"


@pytest.mark.parametrize(
    ("data", "success", "errors"),
    [
        (b"SUCCESS\n", True, ()),
        (b"SUCCESS\r\n", True, ()),
        (b"SUCCESS\nmore\n", True, ()),
        (b"SUCCESS", False, ()),
        (b" SUCCESS\n", False, ()),
        (b"SUCCESS \n", False, ()),
        (b"\nSUCCESS\n", False, ()),
        (b"SUCCESS\nERROR: but\n", False, ("but",)),
        (b"ERROR: one\nERROR: two\x1b\n", False, ("one", r"two\x1b")),
        (b"x" * 4096 + b"\nSUCCESS\n", False, ()),
        (b"SUCCESS\n" + b"x" * 4096 + b"\nERROR: too late to be read\n", True, ()),
        (b"", False, ()),
    ],
)
def test_the_result_is_one_exact_word(data: bytes, success: bool, errors: tuple[str, ...]) -> None:
    """R-HLP-9: the first line, CR removed, is exactly SUCCESS; reading stops at 4 KiB."""
    port = ResultPort(NO_LOG)
    for byte in data:
        port.feed(bytes([byte]))
    port.end()
    assert (port.says_success, port.errors) == (success, errors)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_upset_the_listeners(chunks: list[bytes]) -> None:
    """R-MON-9, R-MON-10, T-36: a breach for the shipped helper, a count for a foreign one; never a crash."""
    for listener in (JsonEvents, TextEvents):
        conversation = Conversation(Reporter(), Bounds(warnings=5))
        consumer = listener(conversation, NO_LOG)
        for chunk in chunks:
            consumer.feed(chunk)
        consumer.end()
        assert conversation.is_over
        if listener is TextEvents:
            assert conversation.fault is None


def heard(*events: Event) -> Conversation:
    """The conversation after a helper that was given a job said these."""
    conversation = Conversation(Reporter(), Bounds(warnings=5))
    conversation.job_given = True
    consumer = JsonEvents(conversation, NO_LOG)
    hello = Hello(contract_version=CONTRACT_VERSION, build="b")
    for seq, event in enumerate((hello, JobAccepted(), *events)):
        consumer.feed(encode_event(event, seq))
    return conversation


def test_tasks_of_the_operator_have_their_turn_like_others() -> None:
    """R-MON-9, D-34: one after the other, a bounded number of times."""
    started, ended = OperatorTaskStarted(task="Agent"), OperatorTaskEnded(task="Agent", seconds=0)
    turn: tuple[Event, ...] = (started, ended)
    swap = TaskStarted(task=TaskName.ADD_SWAP)
    assert heard(started, ended, started).fault is None
    assert heard(started).last_said == "task Agent was running"
    assert heard(started, ended).last_said == "task Agent was done"
    assert heard(swap, started).fault == "task Agent begins while AddSwap runs"
    assert heard(started, swap).fault == "task AddSwap begins while Agent runs"
    assert heard(ended).fault == "task Agent ends but does not run"
    assert heard(started, Succeeded()).fault == "success while task Agent runs"
    assert heard(*turn * 200).fault is None
    assert heard(*turn * 201).fault == "more than 200 events operator-task-start"


@pytest.fixture
def qmp_pair() -> Any:
    ours, theirs = socket.socketpair()
    qmp = Qmp(ours)
    yield qmp, theirs
    qmp.close()
    theirs.close()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_from_qemu_is_an_error(data: bytes) -> None:
    """R-HLP-10: qemu's answers are untrusted; the client ends with its own error, in time."""
    ours, theirs = socket.socketpair()
    qmp = Qmp(ours)
    with theirs:
        theirs.sendall(data)
    with pytest.raises(QmpError):
        qmp.greet(Deadline(1.0))
    qmp.close()


def test_a_silent_qemu_is_not_waited_for(qmp_pair: Any) -> None:
    """R-HLP-10: every wait has an end."""
    with pytest.raises(QmpError, match="nothing came in time"):
        qmp_pair[0].greet(Deadline(0.05))


def test_events_between_answers_are_noted(qmp_pair: Any) -> None:
    """R-HLP-9: the last SHUTDOWN counts; faults of disks are kept, each once."""
    qmp, theirs = qmp_pair
    fault = {"node-name": "disk-0\x1b", "operation": "write", "nospace": True, "reason": "No space"}
    for message in (
        {"event": "SHUTDOWN", "data": {"reason": "guest-reset"}},
        *({"event": "BLOCK_IO_ERROR", "data": fault},) * 30,
        {"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}},
        {"event": "SHUTDOWN"},
        {"event": "SHUTDOWN", "data": {"reason": "host-signal"}},
    ):
        theirs.sendall(json.dumps(message).encode() + b"\r\n")
    theirs.close()
    qmp.drain(Deadline(1.0))
    assert qmp.shutdown_reason == "host-signal"
    assert qmp.disk_faults == [DiskFault(node="disk-0?", operation="write", no_space=True, reason="No space")]


def test_a_descriptor_travels_with_its_command(qmp_pair: Any, tmp_path: Path) -> None:
    """R-HLP-2: SCM_RIGHTS, in one message with the command."""
    qmp, theirs = qmp_pair
    answers = []

    def serve() -> None:
        data, fds, _, _ = socket.recv_fds(theirs, 65536, 4)
        answers.append((json.loads(data), os.readlink(f"/proc/self/fd/{fds[0]}")))
        os.close(fds[0])
        theirs.sendall(json.dumps({"return": {"fdset-id": 3}, "id": 1}).encode() + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    with open(tmp_path / "disk", "wb") as file:
        assert qmp.execute("add-fd", fds=(file.fileno(),)) == {"fdset-id": 3}
    thread.join()
    assert answers == [({"execute": "add-fd", "id": 1}, str(tmp_path / "disk"))]


class _Counter:
    def __init__(self, messages: int) -> None:
        self.size = 0
        self._messages = messages

    def feed(self, chunk: bytes) -> int:
        self.size += len(chunk)
        return self._messages

    def end(self) -> None:
        pass


def test_a_port_slows_a_flood_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-MON-9: beyond the permitted rate the reader waits, and with it whoever writes."""
    monkeypatch.setattr(serial, "MESSAGES_PER_SECOND", 100)
    monkeypatch.setattr(serial, "_BURST_SECONDS", 0.1)
    counter = _Counter(10)
    port = Port("test", counter)
    begun = time.monotonic()
    with socket.socket(fileno=os.dup(port.theirs.fileno())) as writer:
        port.start()
        for _ in range(6):
            writer.sendall(b"x")
            while counter.size < _ + 1:
                time.sleep(0.001)
    assert port.join(5.0)
    assert time.monotonic() - begun > 0.4
    port.close()


def test_a_bug_in_a_consumer_is_not_lost() -> None:
    """R-MON-9: what a thread dies of is raised by whoever owns the VM."""

    class Broken:
        def feed(self, chunk: bytes) -> int:
            raise ZeroDivisionError

        def end(self) -> None:
            pass

    ended = threading.Event()
    port = Port("test", Broken(), at_end=ended.set)
    with socket.socket(fileno=os.dup(port.theirs.fileno())) as writer:
        port.start()
        writer.sendall(b"x")
        assert ended.wait(5.0)
    port.close()
    assert isinstance(port.failure, ZeroDivisionError)


def test_evidence_is_private_bounded_and_forgiving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-5: mode 0600; a link in its place is not followed; a directory that is gone harms nobody."""
    monkeypatch.setattr("snf_image_host.vm.evidence.MAX_BYTES", 20)
    file = EvidenceFile(str(tmp_path), "log")
    for _ in range(5):
        file.write_line("12345678")
    file.close()
    file.write_line("late")
    assert (tmp_path / "log").read_text() == "12345678\n12345678\n"
    assert os.stat(tmp_path / "log").st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    EvidenceFile(str(tmp_path), "link").write_line("x")
    EvidenceFile(str(tmp_path / "gone"), "log").write_line("x")
    assert not (tmp_path / "victim").exists()


def test_the_end_of_qemus_output_is_kept() -> None:
    """R-HLP-10: the last ten lines, inert."""
    tail = OutputTail(NO_LOG)
    tail.feed(b"".join(b"line %d\x1b\n" % number for number in range(30)) + b"unfinished")
    tail.end()
    assert len(tail.tail) == 10
    assert tail.tail[-2:] == (r"line 29\x1b", "unfinished")


GOOD = Ending(
    terminal=Succeeded(),
    wants_success_event=True,
    fault=None,
    says_success=True,
    result_errors=(),
    status=0,
    shutdown_reason="guest-shutdown",
    stopped="no",
    limit=120.0,
    hard_limit=5.0,
    disk_faults=(),
    last_said="no task had begun",
    last_line="",
    panic="",
    stderr=(),
)
BREAK: dict[str, Callable[[Ending], Ending]] = {
    "no final event": lambda end: dataclasses.replace(end, terminal=None),
    "a failure": lambda end: dataclasses.replace(end, terminal=Failed(blame="image", messages=("bad",))),
    "a fault": lambda end: dataclasses.replace(end, fault="nonsense"),
    "no SUCCESS": lambda end: dataclasses.replace(end, says_success=False),
    "an ERROR line": lambda end: dataclasses.replace(end, says_success=False, result_errors=("why",)),
    "a status": lambda end: dataclasses.replace(end, status=1),
    "a signal": lambda end: dataclasses.replace(end, status=-9),
    "no reason": lambda end: dataclasses.replace(end, shutdown_reason=None),
    "host-signal": lambda end: dataclasses.replace(end, shutdown_reason="host-signal"),
    "guest-reset": lambda end: dataclasses.replace(end, shutdown_reason="guest-reset"),
    "soft limit": lambda end: dataclasses.replace(end, stopped="soft"),
    "hard limit": lambda end: dataclasses.replace(end, stopped="hard"),
    "failed write": lambda end: dataclasses.replace(
        end, disk_faults=(DiskFault(node="disk-0", operation="write", no_space=False, reason=""),)
    ),
}


def test_everything_that_success_takes() -> None:
    """R-HLP-9: and a foreign helper needs the same without an event of success (D-6)."""
    assert judge(GOOD) is None
    assert judge(dataclasses.replace(GOOD, terminal=None, wants_success_event=False)) is None


@settings(deadline=None)
@given(st.sets(st.sampled_from(sorted(BREAK)), min_size=1))
def test_no_single_sign_makes_a_success(broken: set[str]) -> None:
    """T-45, R-HLP-12: whichever signs of success lack, alone or together, it is a failure with a text."""
    end = GOOD
    for name in sorted(broken):
        end = BREAK[name](end)
    error = judge(end)
    assert isinstance(error, SnfImageError)
    assert error.messages
    assert all(error.messages)


def test_a_read_error_that_did_no_harm_is_no_failure() -> None:
    """R-HLP-9: the guest saw the error and went on; its word counts. A failed write is another matter."""
    fault = DiskFault(node="disk-0", operation="read", no_space=False, reason="Input/output error")
    assert judge(dataclasses.replace(GOOD, disk_faults=(fault,))) is None
    written = dataclasses.replace(fault, operation="write")
    assert isinstance(judge(dataclasses.replace(GOOD, disk_faults=(written,))), NodeError)
