"""The older text lines of foreign helpers (R-MON-8), read with tolerance (R-MON-9).

Nothing a foreign helper sends ends the deployment by its mere amount or form: what is too long is cut,
what is too much or not understood is counted.
"""

from __future__ import annotations

import time
from typing import Final

from snf_image_contract.events import MAX_STDERR_LINES, Failed, TaskEnded, TaskStarted, Warned
from snf_image_contract.names import TaskName
from snf_image_host.inert import inert_bytes
from snf_image_host.vm.conversation import Conversation
from snf_image_host.vm.evidence import EvidenceFile

MAX_LINE: Final = 4096
_MAX_CAUSES: Final = 10


class TextEvents:
    """Consumer of the port; lines become the contract's events.

    ``ERROR`` and ``STDERR`` lines are kept until the end and make one ``Failed``: these helpers go on
    talking after an error.
    """

    def __init__(self, conversation: Conversation, log: EvidenceFile) -> None:
        self._conversation = conversation
        self._log = log
        self._line = bytearray()
        self._begun: dict[TaskName, float] = {}
        self._task: TaskName | None = None
        self._errors: list[str] = []
        self._stderr: list[str] = []
        self._stderr_due = 0

    def feed(self, chunk: bytes) -> int:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._extend(line)
            self._finish()
        self._extend(rest)
        return len(lines)

    def end(self) -> None:
        if self._line:
            self._finish()
        if self._errors or self._stderr:
            messages = tuple(self._errors) or ("the helper reported an error",)
            failed = Failed(
                blame="customization", messages=messages, task=self._task, stderr=tuple(self._stderr)
            )
            self._conversation.take(failed)
        self._conversation.ended()

    def _extend(self, part: bytes) -> None:
        self._line += part[: max(0, 2 * MAX_LINE - len(self._line))]

    def _finish(self) -> None:
        line = bytes(self._line).removesuffix(b"\r")
        self._line.clear()
        self._log.write_line(inert_bytes(self._conversation.redaction.bytes(line), MAX_LINE))
        if self._stderr_due:
            self._stderr_due -= 1
            self._keep(self._stderr, line, MAX_STDERR_LINES)
        elif line and not self._understand(*line.partition(b":")):
            self._conversation.not_understood += 1

    def _understand(self, word: bytes, _colon: bytes, text: bytes) -> bool:
        if word == b"TASK_START":
            return self._task_started(text)
        if word == b"TASK_END":
            return self._task_ended(text)
        if word == b"WARNING":
            message = inert_bytes(text.strip(), MAX_LINE)
            return self._conversation.take(Warned(message=message, task=self._task)) is None
        if word == b"ERROR":
            return self._keep(self._errors, text, _MAX_CAUSES)
        if word == b"STDERR":
            return self._stderr_begins(text)
        return False

    def _task_started(self, text: bytes) -> bool:
        name = _task(text)
        if name is None:
            return False
        self._task = name
        self._begun[name] = time.monotonic()
        return self._conversation.take(TaskStarted(task=name)) is None

    def _task_ended(self, text: bytes) -> bool:
        name = _task(text)
        if name is None or name not in self._begun:
            return False
        seconds = round(time.monotonic() - self._begun.pop(name), 3)
        self._task = None
        return self._conversation.take(TaskEnded(task=name, seconds=seconds)) is None

    def _stderr_begins(self, text: bytes) -> bool:
        count, colon, first = text.partition(b":")
        if not colon or not count.isdigit() or len(count) > 2 or not 1 <= int(count) <= MAX_STDERR_LINES:
            return False
        self._stderr_due = int(count) - 1
        return self._keep(self._stderr, first, MAX_STDERR_LINES)

    @staticmethod
    def _keep(lines: list[str], line: bytes, limit: int) -> bool:
        if len(lines) >= limit:
            return False
        lines.append(inert_bytes(line.strip(), MAX_LINE))
        return True


def _task(text: bytes) -> TaskName | None:
    try:
        return TaskName(text.decode("ascii").strip())
    except ValueError:
        return None
