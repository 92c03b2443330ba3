"""PROGRESS_MONITOR, and its stand-in in the log where there is none (R-MON-2, R-MON-4)."""

from __future__ import annotations

import collections
import contextlib
import os
import shlex
import threading
from collections.abc import Mapping
from typing import IO, Final, TextIO

from snf_image_host.errors import UserError
from snf_image_host.reporter import CopyProgress, Event
from snf_image_host.sinks.messages import Messages, encode
from snf_image_process import PIPE, ProcessError, Running, start

_QUEUE: Final = 512
"""From so many messages on, copy progress that nobody reads is dropped."""
_FULL: Final = 4096
"""So many other messages mean that nobody reads at all; a helper may send a quarter of them."""
_CLOSING: Final = 3.0


class MonitorLog:
    """Messages as lines behind ``[MONITOR] `` in the log."""

    def __init__(self, stream: TextIO, *, names: Mapping[str, str] | None = None) -> None:
        self._stream = stream
        self._messages = Messages(names)

    def handle(self, event: Event) -> None:
        message = self._messages.of(event)
        if message is not None:
            self._stream.write("[MONITOR] " + encode(message).decode("ascii"))
            self._stream.flush()

    def close(self) -> None:
        pass


class MonitorProgram:
    """Messages to a program's standard input.

    A thread of its own writes them, so that a program that blocks, dies or floods its output never holds up
    a deployment: of what does not fit the queue the oldest copy progress is dropped, and nothing else; if
    there is none, the program counts as gone.
    """

    def __init__(self, command: str, instance: str, *, names: Mapping[str, str] | None = None) -> None:
        """``command`` is split into words without a shell; the instance's name comes last."""
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UserError(f"PROGRESS_MONITOR cannot be split into words: {error}") from None
        if not words:
            raise UserError("PROGRESS_MONITOR is empty", hint="leave it out to have messages in the log")
        self._messages = Messages(names)
        self._queue: collections.deque[tuple[bool, bytes]] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failed: str | None = None
        self._running: Running | None = None
        try:
            self._running = start([*words, instance], stdin=PIPE)
        except ProcessError as error:
            self._failed = str(error)
            return
        self._thread = threading.Thread(target=self._feed, args=(self._running.stdin,), daemon=True)
        self._thread.start()

    def handle(self, event: Event) -> None:
        """Queue the event's message; raises once if the program is gone, and is then dropped."""
        if self._failed is not None:
            self._end()
            raise RuntimeError(f"PROGRESS_MONITOR: {self._failed}")
        message = self._messages.of(event)
        if message is None:
            return
        disposable = isinstance(event, CopyProgress) and not event.final
        with self._changed:
            if len(self._queue) >= _QUEUE:
                self._make_room()
            self._queue.append((disposable, encode(message)))
            self._changed.notify()

    def _make_room(self) -> None:
        oldest = next((entry for entry in self._queue if entry[0]), None)
        if oldest is not None:
            self._queue.remove(oldest)
        elif len(self._queue) >= _FULL:
            self._failed = "does not read its messages"

    def _feed(self, stdin: IO[bytes] | None) -> None:
        if stdin is None:
            return
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    break
                _, line = self._queue.popleft()
            try:
                view = memoryview(line)
                while view:
                    view = view[os.write(stdin.fileno(), view) :]
            except OSError as error:
                self._failed = self._failed or f"does not read any more: {error.strerror}"
                return
        with contextlib.suppress(OSError):
            stdin.close()

    def close(self) -> None:
        """Give the program a moment to read the rest and end by itself."""
        if self._running is None:
            return
        self._tell_the_end()
        self._thread.join(_CLOSING)
        if not self._thread.is_alive():
            self._running.wait(_CLOSING)
        self._end()

    def _tell_the_end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _end(self) -> None:
        """Nothing of the program is left afterwards."""
        if self._running is not None:
            self._tell_the_end()
            self._running.stop()
            # Writing to a dead program fails at once; only then may its descriptor be closed.
            self._thread.join(_CLOSING)
            with self._running:
                pass
