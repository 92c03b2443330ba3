"""Plain lines, for logs and pipes: nothing is overwritten, progress now and then."""

from __future__ import annotations

import time
from typing import Final, TextIO

from snf_image_host.inert import inert
from snf_image_host.reporter import CopyProgress, Event
from snf_image_host.sinks.text import line_of, percent, size_text

_EVERY: Final = 3.0


class Lines:
    """Writes each event that matters as a line."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._next = time.monotonic() + _EVERY

    def handle(self, event: Event) -> None:
        if isinstance(event, CopyProgress):
            if not event.final and time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _EVERY
            line: str | None = f"copied {size_text(event.position)} ({percent(event):.0f} %)"
        else:
            line = line_of(event, verbose=self._verbose)
        if line is not None:
            self._stream.write(inert(line) + "\n")
            self._stream.flush()

    def close(self) -> None:
        pass
