"""The progress messages that front ends of existing clusters read (R-MON-1, R-MON-3, R-MON-5, R-MON-7)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from snf_image_contract.events import (
    Detected,
    Failed,
    OperatorTaskEnded,
    OperatorTaskStarted,
    TaskEnded,
    TaskStarted,
    Warned,
)
from snf_image_host.deployment import Deployment
from snf_image_host.reporter import (
    CopyProgress,
    Event,
    Failure,
    HelperSaid,
    Info,
    StageEnded,
    StageStarted,
    Warning,
)
from snf_image_host.sinks.text import percent

_MAX_STDERR: Final = 10
_EVERY: Final = 3.0


class Messages:
    """Turns events into messages; copy progress every three seconds and at the end.

    ``names``: what stands in a message instead of a path of the host (:func:`public_names`).
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        # The longest first: a directory's path is the beginning of others.
        self._names = sorted((names or {}).items(), key=lambda item: len(item[0]), reverse=True)
        self._next = 0.0

    def of(self, event: Event) -> dict[str, Any] | None:
        """The message of an event, None if front ends are not told of it."""
        match event:
            case Info(message=message):
                return {"type": "image-info", "messages": [self._public(message)]}
            case StageStarted(stage="copy"):
                return {"type": "image-info", "messages": ["copying the image"]}
            case StageEnded(stage="copy", seconds=seconds):
                return {"type": "image-info", "messages": [f"the image was copied in {seconds:.1f} s"]}
            case Warning(message=message):
                return {"type": "image-helper", "subtype": "warning", "messages": [self._public(message)]}
            case CopyProgress():
                return self._progress(event)
            case HelperSaid(event=said):
                return _of_helper(said)
            case Failure(error=error):
                return {"type": "image-error", "messages": [self._public(text) for text in error.messages]}
        return None

    def _public(self, text: str) -> str:
        """``text`` without the paths of this host, which are the operator's business (R-MON-7)."""
        for path, name in self._names:
            text = text.replace(path, name)
        return text

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
        case TaskStarted(task=task) | OperatorTaskStarted(task=task):
            return {"type": "image-helper", "subtype": "task-start", "task": str(task)}
        case TaskEnded(task=task) | OperatorTaskEnded(task=task):
            return {"type": "image-helper", "subtype": "task-end", "task": str(task)}
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
    """One line of ASCII with the moment of sending; no control character but its end."""
    line = json.dumps(message | {"timestamp": round(time.time(), 3)}, ensure_ascii=True)
    # JSON lets one control character stand as it is.
    return (line.replace("\x7f", "\\u007f") + "\n").encode("ascii")


def public_names(deployment: Deployment) -> dict[str, str]:
    """What front ends are told instead of this host's paths: ``disk 0``, the image's own name, …"""
    names = {deployment.helper.directory: "the helper image", deployment.helper.state_dir: "the node's state"}
    names |= {disk.path: f"disk {disk.index}" for disk in deployment.disks}
    if deployment.image.path is not None:
        names[deployment.image.path] = deployment.image.shown
    if deployment.report is not None:
        names[deployment.report] = "the receipt"
    return {path: name for path, name in names.items() if path.startswith("/") and path != name}
