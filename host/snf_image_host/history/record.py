"""What is known of a run that failed, as a receipt: gathered from the events, as far as they came."""

from __future__ import annotations

import time
from typing import Any, Final

from snf_image_contract.events import Changed, Detected, OperatorTaskEnded, TaskEnded, Warned
from snf_image_host.deployment import Deployment
from snf_image_host.errors import SnfImageError
from snf_image_host.receipt import FORMAT, describe_asked, describe_system, describe_tasks, describe_warning
from snf_image_host.receipt import version as version_of_this
from snf_image_host.reporter import Event, HelperSaid, StageEnded, Warning

_MAX_EVENTS: Final = 100_000


class Record:
    """A sink that remembers what a receipt needs, for runs that do not come as far as having one."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._events: list[Changed | Detected | OperatorTaskEnded | TaskEnded] = []
        self._warnings: list[str] = []
        self._seconds: dict[str, float] = {}

    def handle(self, event: Event) -> None:
        match event:
            case Warning(message=message):
                self._warnings.append(message)
            case StageEnded(stage=stage, seconds=seconds):
                self._seconds[stage] = round(seconds, 3)
            case HelperSaid(event=Warned() as warned):
                self._warnings.append(describe_warning(warned))
            case HelperSaid(event=Changed() | Detected() | OperatorTaskEnded() | TaskEnded() as said):
                if len(self._events) < _MAX_EVENTS:
                    self._events.append(said)
            case _:
                pass

    def close(self) -> None:
        pass

    def failure(
        self, error: SnfImageError, *, kind: str, instance: str, deployment: Deployment | None
    ) -> dict[str, Any]:
        """The receipt of a failure. ``kind``: whose fault it is, in a word or two."""
        events = tuple(self._events)
        detected = next((event for event in events if isinstance(event, Detected)), None)
        return {
            "format": FORMAT,
            "version": version_of_this(),
            "result": "failure",
            "error": {
                "class": kind,
                "exit_code": error.exit_code,
                "messages": list(error.messages),
                "details": list(error.details),
                "hint": error.hint,
                "kept": error.kept,
            },
            "instance": instance,
            "disk": deployment.disks[0].path if deployment is not None else None,
            "image": None
            if deployment is None
            else {"name": deployment.image.shown, "format": str(deployment.image.format)},
            "system": None if detected is None else describe_system(detected),
            "asked": None if deployment is None else describe_asked(deployment.job),
            "tasks": describe_tasks(events),
            "complete": False,
            "warnings": list(self._warnings),
            "seconds": self._seconds | {"all": round(time.monotonic() - self._begun, 3)},
        }
