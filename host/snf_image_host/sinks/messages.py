"""The progress messages that front ends of existing clusters read (R-MON-1, R-MON-3, R-MON-5)."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from snf_image_contract.events import Detected, Failed, TaskEnded, TaskStarted, Warned
from snf_image_host.reporter import CopyProgress, Event, Failure, HelperSaid, Info, Warning
from snf_image_host.sinks.text import percent

_MAX_STDERR: Final = 10
_EVERY: Final = 3.0


class Messages:
    """Turns events into messages; copy progress every three seconds and at the end."""

    def __init__(self) -> None:
        self._next = 0.0

    def of(self, event: Event) -> dict[str, Any] | None:
        """The message of an event, None if front ends are not told of it."""
        match event:
            case Info(message=message):
                return {"type": "image-info", "messages": [message]}
            case Warning(message=message):
                return {"type": "image-helper", "subtype": "warning", "messages": [message]}
            case CopyProgress():
                return self._progress(event)
            case HelperSaid(event=said):
                return _of_helper(said)
            case Failure(error=error):
                return {"type": "image-error", "messages": list(error.messages)}
        return None

    def _progress(self, event: CopyProgress) -> dict[str, Any] | None:
        if not event.final and time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + _EVERY
        total = event.position if event.final else event.total or 0
        return {
            "type": "image-copy-progress",
            "position": event.position,
            "total": total,
            "progress": round(percent(event), 2),
        }


def _of_helper(said: object) -> dict[str, Any] | None:
    match said:
        case TaskStarted(task=task):
            return {"type": "image-helper", "subtype": "task-start", "task": task.value}
        case TaskEnded(task=task):
            return {"type": "image-helper", "subtype": "task-end", "task": task.value}
        case Warned(message=message):
            return {"type": "image-helper", "subtype": "warning", "messages": [message]}
        case Failed(messages=messages, stderr=stderr):
            if messages:
                return {"type": "image-helper", "subtype": "error", "messages": list(messages)}
            return {"type": "image-helper", "subtype": "error", "stderr": "\n".join(stderr[-_MAX_STDERR:])}
        case Detected(os_family=family, root_partition=root):
            text = f"the image is {family}, its root file system is on partition {root}"
            return {"type": "image-info", "messages": [text]}
    return None


def encode(message: dict[str, Any]) -> bytes:
    """One line of ASCII with the moment of sending."""
    return (json.dumps(message | {"timestamp": round(time.time(), 3)}, ensure_ascii=True) + "\n").encode()
