"""A terminal: one line that moves, and above it what should stay."""

from __future__ import annotations

import shutil
import time
from typing import Final, TextIO

from snf_image_contract.events import OperatorTaskStarted, TaskStarted
from snf_image_contract.names import TaskName
from snf_image_host.inert import inert
from snf_image_host.reporter import CopyProgress, Event, HelperSaid, StageEnded, StageStarted
from snf_image_host.sinks.text import line_of, percent, size_text, stage_name

_EVERY: Final = 0.1
_BAR: Final = 24
_CLEAR: Final = "\r\x1b[K"


class Terminal:
    """A bar for the copy, the running task for the helper; warnings and finished stages stay above."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._status = ""
        self._next = 0.0
        self._copy_begun = 0.0

    def handle(self, event: Event) -> None:
        line = line_of(event, verbose=self._verbose)
        if line is not None:
            self._stream.write(f"{_CLEAR}{inert(line)}\n")
        if isinstance(event, StageStarted):
            self._copy_begun = time.monotonic()
            self._show(f"{stage_name(event.stage)} …")
        elif isinstance(event, StageEnded):
            self._show("")
        elif isinstance(event, CopyProgress):
            if event.final or time.monotonic() >= self._next:
                self._show(self._bar(event))
        elif isinstance(event, HelperSaid) and isinstance(event.event, TaskStarted):
            number = list(TaskName).index(event.event.task) + 1
            self._show(f"[{number:2}/{len(TaskName)}] {event.event.task}")
        elif isinstance(event, HelperSaid) and isinstance(event.event, OperatorTaskStarted):
            # One that the operator added is none of the counted ones.
            self._show(f"[ +/{len(TaskName)}] {event.event.task}")
        elif line is not None:
            self._show(self._status)

    def _bar(self, progress: CopyProgress) -> str:
        done = percent(progress)
        filled = int(_BAR * done / 100)
        seconds = max(1e-3, time.monotonic() - self._copy_begun)
        rate = progress.position / seconds
        left = ""
        if progress.total and progress.position and not progress.final:
            left = f", {(progress.total - progress.position) / max(1.0, rate):.0f} s left"
        bar = "#" * filled + "-" * (_BAR - filled)
        return f"[{bar}] {done:3.0f} %  {size_text(progress.position)} at {size_text(rate)}/s{left}"

    def _show(self, status: str) -> None:
        self._next = time.monotonic() + _EVERY
        self._status = status
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(_CLEAR + inert(status)[:width])
        self._stream.flush()

    def close(self) -> None:
        self._stream.write(_CLEAR)
        self._stream.flush()
