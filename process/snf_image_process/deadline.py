"""Deadlines: one is made at the top and handed down."""

from __future__ import annotations

import math
import time


class DeadlineError(Exception):
    """Time ran out; the text says what was awaited."""


class Deadline:
    """A moment on the monotonic clock. ``Deadline(None)`` never passes."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = math.inf if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, never negative; infinity without a limit."""
        return max(0.0, self._at - time.monotonic())

    def passed(self) -> bool:
        return time.monotonic() >= self._at

    def wait_time(self, longest: float) -> float:
        """How long one wait may take: what is left, but at most ``longest`` seconds."""
        return min(longest, self.remaining())

    def check(self, awaited: str) -> None:
        """Raise :class:`DeadlineError` once the moment has passed."""
        if self.passed():
            raise DeadlineError(f"{awaited}: not within {self.seconds:g} seconds")
