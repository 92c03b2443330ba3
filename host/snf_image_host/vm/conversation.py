"""What the helper has said so far: shared by the port's thread, which hears, and the owner, who waits.

The helper is untrusted. What it says is bounded in number and size, made inert, and counted against what
the contract allows; the first breach ends the conversation.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from snf_image_contract.events import (
    MAX_TEXT,
    AnyTaskEnded,
    AnyTaskStarted,
    Awake,
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
    is_terminal,
)
from snf_image_contract.names import MAX_OPERATOR_TASKS, TaskName
from snf_image_host.inert import inert_event
from snf_image_host.reporter import HelperSaid, Reporter
from snf_image_host.vm.redaction import Redaction
from snf_image_process import Deadline

MAX_TASK_EVENTS: Final = 2 * len(TaskName)
"""Of task-start, and of task-end: twice the number of tasks (R-MON-9)."""
MAX_OPERATOR_TASK_EVENTS: Final = 2 * MAX_OPERATOR_TASKS
_MOST: Final[dict[type[Event], int]] = {
    TaskStarted: MAX_TASK_EVENTS,
    TaskEnded: MAX_TASK_EVENTS,
    OperatorTaskStarted: MAX_OPERATOR_TASK_EVENTS,
    OperatorTaskEnded: MAX_OPERATOR_TASK_EVENTS,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a helper may say. ``warnings`` beyond are counted; anything else beyond is a flood."""

    warnings: int
    events: int = 20_000
    bytes: int = 8 * 1024 * 1024


class Conversation:
    """Events in the order in which they came.

    :meth:`take`, :meth:`breach` and :meth:`ended` are for the port's thread; the rest is for the owner.
    """

    def __init__(self, reporter: Reporter, bounds: Bounds, redaction: Redaction | None = None) -> None:
        self.bounds = bounds
        self.redaction = redaction or Redaction()
        self.hello: Hello | None = None
        self.hello_at: float | None = None
        """When it came, on the monotonic clock."""
        self.awake_at: float | None = None
        """When a restored helper answered."""
        self.terminal: Failed | Succeeded | None = None
        self.fault: str | None = None
        """What the helper did that the contract does not allow."""
        self.job_given = False
        self.job_accepted = False
        """Whether the helper has its first disk and the job."""
        self.is_over = False
        """Whether nothing more can come."""
        self.warnings_left_out = 0
        self.not_understood = 0
        """Lines of a foreign helper that made no sense or were too many."""
        self._reporter = reporter
        self._events: list[Event] = []
        self._counts: Counter[type[Event]] = Counter()
        self._changed = threading.Condition()

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything said so far, but for warnings beyond the bound."""
        with self._changed:
            return tuple(self._events)

    @property
    def last_said(self) -> str:
        """The last step the helper told of, for messages about what came after it."""
        for event in reversed(self.events):
            if isinstance(event, AnyTaskStarted):
                return f"task {event.task} was running"
            if isinstance(event, AnyTaskEnded):
                return f"task {event.task} was done"
        return "no task had begun"

    def wait(self, done: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``done()``, a fault or the end; False if the deadline passes first."""

        def settled() -> bool:
            return done() or self.fault is not None or self.is_over

        with self._changed:
            while not settled():
                if deadline.passed():
                    return False
                self._changed.wait(deadline.wait_time(60.0))
        return True

    def take(self, event: Event) -> str | None:
        """Note an event and tell everybody. Returns the bound that it breaks, if it breaks one.

        A warning beyond its bound is counted and goes no further.
        """
        kind = type(event)
        self._counts[kind] += 1
        if isinstance(event, Warned) and self._counts[Warned] > self.bounds.warnings:
            self.warnings_left_out += 1
            return None
        if kind in _MOST and self._counts[kind] > _MOST[kind]:
            return f"more than {_MOST[kind]} events {event.KIND}"
        if len(self._events) >= self.bounds.events:
            return f"more than {self.bounds.events} events"
        event = inert_event(self.redaction.event(event), MAX_TEXT)
        with self._changed:
            self._events.append(event)
        # Told before anybody wakes up: the owner may close the sinks once the last event is here.
        self._reporter.emit(HelperSaid(event=event))
        with self._changed:
            if isinstance(event, Hello):
                self.hello = event
                self.hello_at = time.monotonic()
            if isinstance(event, Awake):
                self.awake_at = time.monotonic()
            if isinstance(event, JobAccepted):
                self.job_accepted = True
            if isinstance(event, Failed | Succeeded) and is_terminal(event):
                self.terminal = event
            self._changed.notify_all()
        return None

    def breach(self, what: str) -> None:
        """The helper did what it must not; the first time counts."""
        with self._changed:
            if self.fault is None:
                self.fault = what
            self._changed.notify_all()

    def ended(self) -> None:
        """Nothing more can come."""
        if self.warnings_left_out:
            self._reporter.warn(f"{self.warnings_left_out} more warnings of the helper are left out")
        if self.not_understood:
            self._reporter.warn(f"{self.not_understood} lines of the helper's events were not understood")
        with self._changed:
            self.is_over = True
            self._changed.notify_all()
