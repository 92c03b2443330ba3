"""Events of a deployment, and who is told of them.

Code emits typed events; each sink shows them in its own way. A sink that fails is dropped, with one
warning to the others: it never fails or stalls a deployment (R-MON-4).
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Protocol

from snf_image_contract.events import Event as HelperEvent
from snf_image_host.errors import SnfImageError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """Something the user wants to know. ``message`` is free of host paths and secrets (R-MON-7).

    ``details`` is for the operator's log only.
    """

    message: str
    details: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Warning:  # noqa: A001 - the field's word for it
    """Something the user should know. ``details`` is for the operator's log only."""

    message: str
    details: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Debug:
    """For the operator's log with IMAGE_DEBUG; never a secret."""

    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage of the deployment begins: ``copy``, ``helper-start``, ``customize``, …"""

    stage: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StageEnded:
    stage: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgress:
    """Bytes of the image dealt with; ``total`` None while unknown; ``final`` for the last one."""

    position: int
    total: int | None
    final: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HelperSaid:
    """An event of the helper, already checked against the contract."""

    event: HelperEvent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleLine:
    """A line of the helper's console, made inert and behind its prefix (R-HLP-8)."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The deployment failed; sent exactly once, last (R-MON-6)."""

    error: SnfImageError


Event = Info | Warning | Debug | StageStarted | StageEnded | CopyProgress | HelperSaid | ConsoleLine | Failure


class Sink(Protocol):
    """Shows events to somebody. Neither method may block for long."""

    def handle(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Reporter:
    """Hands each event to every sink, one at a time, whichever thread tells it."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)
        # The helper is heard in threads of its own. Reentrant: a failing sink is told of from within.
        self._lock = threading.RLock()

    def add(self, sink: Sink) -> None:
        """From now on ``sink`` is told too."""
        with self._lock:
            self._sinks.append(sink)

    def emit(self, event: Event) -> None:
        with self._lock:
            for sink in tuple(self._sinks):
                if sink not in self._sinks:
                    continue  # it failed while it was told of another's failure
                try:
                    sink.handle(event)
                except Exception as error:  # noqa: BLE001 - whatever a sink does, the deployment goes on
                    self._sinks.remove(sink)
                    self.warn(f"{type(sink).__name__} stopped showing progress", details=str(error))

    def info(self, message: str, *, details: str = "") -> None:
        self.emit(Info(message=message, details=details))

    def warn(self, message: str, *, details: str = "") -> None:
        self.emit(Warning(message=message, details=details))

    def debug(self, message: str) -> None:
        self.emit(Debug(message=message))

    def close(self) -> None:
        for sink in self._sinks:
            with contextlib.suppress(Exception):
                sink.close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Reporter]:
        """Closes the sinks at the end, whatever happens."""
        try:
            yield self
        finally:
            self.close()
