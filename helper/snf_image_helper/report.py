"""Typed events to the host: the only way out of the helper for anything but its console."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Final

from snf_image_contract.events import (
    MAX_LINE,
    MAX_TEXT,
    Change,
    Event,
    Warned,
    encode_event,
    split_changes,
)
from snf_image_contract.names import TaskName

MAX_WARNINGS_PER_TASK: Final = 100
_ROOM: Final = MAX_LINE - 4096
"""Bytes of an event's line for a list of texts."""


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """``text`` as it may stand in an event: bounded, and valid Unicode whatever the image held."""
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 20] + " [cut]"


def clip_all(texts: Sequence[str]) -> tuple[str, ...]:
    """The first of ``texts`` that fit one event together, clipped; the last one counts those left out."""
    kept: list[str] = []
    left = _ROOM
    for text in map(clip, texts):
        left -= len(json.dumps(text)) + 2
        if left < 0:
            return (*kept, f"and {len(texts) - len(kept)} more like these")
        kept.append(text)
    return tuple(kept)


class Reporter:
    """Sends events in order and keeps what the running task changed until the task ends."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        """``send`` takes one whole line; a closure over a descriptor, or a list's append in tests."""
        self._send = send
        self._seq = 0
        self._changes: list[Change] = []
        self._warnings = 0
        self.task: TaskName | None = None

    def emit(self, event: Event) -> None:
        self._send(encode_event(event, self._seq))
        self._seq += 1

    def warn(self, message: str) -> None:
        """A warning of the running task; a flood is cut, with a note."""
        self._warnings += 1
        if self._warnings < MAX_WARNINGS_PER_TASK:
            self.emit(Warned(message=clip(message), task=self.task))
        elif self._warnings == MAX_WARNINGS_PER_TASK:
            self.emit(Warned(message="more warnings of this task are left out", task=self.task))

    def change(self, change: Change) -> None:
        """Remember one change of the running task for the receipt."""
        self._changes.append(Change(path=clip(change.path), change=change.change, detail=clip(change.detail)))

    def begin(self, task: TaskName | None) -> None:
        """A task begins; None: one of the operator's, which has no part in the list of changes."""
        self.task = task
        self._warnings = 0

    def flush_changes(self) -> None:
        """Send what the running task changed; called at its end, failed or not."""
        if self.task is not None:
            for event in split_changes(self.task, tuple(dict.fromkeys(self._changes))):
                self.emit(event)
        self._changes.clear()


def fd_sender(fd: int) -> Callable[[bytes], None]:
    """A ``send`` that writes whole lines to a descriptor."""

    def send(line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(fd, view) :]

    return send
