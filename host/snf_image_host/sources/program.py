"""An image that a program of the operator writes to its standard output (R-BACK-3, R-BACK-8)."""

from __future__ import annotations

import os
import threading
from typing import Final

from snf_image_host.errors import ImageError, NodeError
from snf_image_host.inert import inert
from snf_image_host.reporter import Reporter
from snf_image_host.sources.backends import BackendPlaces, ask_size, program_environment
from snf_image_host.sources.reading import widen
from snf_image_process import PIPE, ProcessError, start

_ENDING_SECONDS: Final = 60.0
_MAX_LINE: Final = 4096


class ProgramSource:
    """What the program writes. ``size`` None if it does not tell; a failure of its is one of the image."""

    def __init__(
        self, program: str, identifier: str, shown: str, image_format: str, reporter: Reporter
    ) -> None:
        environment = program_environment(image_format, BackendPlaces())
        self.size = ask_size(program, identifier, environment)
        self._shown = shown
        self._name = os.path.basename(program)
        self._reporter = reporter
        self._abandoned = False
        self._position = 0
        try:
            self._running = start([program, identifier], stdout=PIPE, stderr=PIPE, env=environment)
        except ProcessError as error:
            raise NodeError(f"the back-end {self._name} {error.reason}") from None
        assert self._running.stdout is not None  # noqa: S101 - it was asked for
        self._out = self._running.stdout.fileno()
        widen(self._out)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def read_into(self, view: memoryview) -> int:
        count = os.readv(self._out, [view])
        self._position += count
        if count == 0 and not self._abandoned:
            self._check_end()
        return count

    def abandon(self) -> None:
        self._abandoned = True
        self._running.stop()

    def close(self) -> None:
        self.abandon()
        self._listener.join(_ENDING_SECONDS)
        self._running.__exit__()

    def _check_end(self) -> None:
        status = self._running.wait(_ENDING_SECONDS)
        if status != 0:
            how = "does not end" if status is None else f"ended with status {status}"
            raise ImageError(f"the image {self._shown} is not whole: the back-end {self._name} {how}")
        if self.size is not None and self._position != self.size:
            raise ImageError(
                f"the back-end {self._name} wrote {self._position} bytes of {self._shown}, not {self.size}"
            )

    def _listen(self) -> None:
        """Its error output goes to the log line by line; nothing in it can steer a terminal."""
        stderr = self._running.stderr
        assert stderr is not None  # noqa: S101 - it was asked for
        while line := stderr.readline(_MAX_LINE):
            self._reporter.debug(f"{self._name}: {inert(line.decode('utf-8', 'backslashreplace').rstrip())}")
