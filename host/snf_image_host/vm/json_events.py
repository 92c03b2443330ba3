"""The shipped helper's third serial port: the contract's events, one strict JSON line each (D-6).

A line that is too long, malformed or out of order ends the deployment: it is lost or forged, and nothing
that was said after it can be relied upon.
"""

from __future__ import annotations

from snf_image_contract.codec import ContractError
from snf_image_contract.events import (
    MAX_LINE,
    AnyTaskEnded,
    AnyTaskStarted,
    Awake,
    Event,
    Failed,
    Hello,
    JobAccepted,
    Succeeded,
    Warned,
    decode_event,
)
from snf_image_host.inert import inert_bytes
from snf_image_host.vm.conversation import Conversation
from snf_image_host.vm.evidence import EvidenceFile


class JsonEvents:
    """Consumer of the port; what it hears goes into the conversation."""

    def __init__(self, conversation: Conversation, log: EvidenceFile) -> None:
        self._conversation = conversation
        self._log = log
        self._pending = b""
        self._received = 0
        self._seq = 0
        self._accepted = False
        self._task: str | None = None

    def feed(self, chunk: bytes) -> int:
        conversation = self._conversation
        if conversation.fault is not None:
            return 0
        self._received += len(chunk)
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            self._hear(line)
            if conversation.fault is not None:
                return len(lines)
        if len(self._pending) >= MAX_LINE:
            conversation.breach(f"a line of its events is longer than {MAX_LINE} bytes")
        elif self._received > conversation.bounds.bytes:
            conversation.breach(f"more than {conversation.bounds.bytes} bytes of events")
        return len(lines)

    def end(self) -> None:
        if self._pending and self._conversation.fault is None:
            self._log.write_line(inert_bytes(self._conversation.redaction.bytes(self._pending), MAX_LINE))
            self._conversation.breach("its last event is not a whole line")
        self._conversation.ended()

    def _hear(self, line: bytes) -> None:
        self._log.write_line(inert_bytes(self._conversation.redaction.bytes(line), 2 * MAX_LINE))
        try:
            event = decode_event(line + b"\n", self._seq)
        except ContractError as error:
            self._conversation.breach(str(error))
            return
        wrong = self._out_of_order(event) or self._conversation.take(event)
        if wrong is not None:
            self._conversation.breach(wrong)
        self._seq += 1

    def _out_of_order(self, event: Event) -> str | None:
        """What is wrong with ``event`` at this place, if anything; else notes where we are."""
        if self._conversation.terminal is not None:
            return f"event {event.KIND} after the final one"
        if isinstance(event, Hello):
            return None if self._seq == 0 else "a second hello"
        if isinstance(event, Failed | Warned):
            return None  # may come at any time
        if self._seq == 0:
            return f"event {event.KIND} before hello"
        if isinstance(event, Awake):
            return None if not self._accepted else "it wakes up in the middle of its job"
        if isinstance(event, JobAccepted):
            if self._accepted or not self._conversation.job_given:
                return f"event {event.KIND} without a job"
            self._accepted = True
            return None
        if not self._accepted:
            return f"event {event.KIND} before the job was accepted"
        return self._wrong_task(event)

    def _wrong_task(self, event: Event) -> str | None:
        if isinstance(event, AnyTaskStarted):
            if self._task is not None:
                return f"task {event.task} begins while {self._task} runs"
            self._task = event.task
        elif isinstance(event, AnyTaskEnded):
            if self._task != event.task:
                return f"task {event.task} ends but does not run"
            self._task = None
        elif isinstance(event, Succeeded) and self._task is not None:
            return f"success while task {self._task} runs"
        return None
