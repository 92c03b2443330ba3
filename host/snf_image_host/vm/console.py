"""The helper's console: untrusted bytes to harmless lines, in the log and on the way to the user.

Every line begins with the prefix, whatever the helper prints (R-HLP-8): nothing it says can be taken for a
line of ours.
"""

from __future__ import annotations

from typing import Final

from snf_image_host.inert import inert_bytes
from snf_image_host.reporter import ConsoleLine, Reporter
from snf_image_host.vm.evidence import EvidenceFile
from snf_image_host.vm.redaction import Redaction

PREFIX: Final = "HELPER: "
MAX_LINE: Final = 4096
"""Bytes of a line, with its prefix."""
MAX_TOTAL: Final = 4 * 1024 * 1024
"""Bytes of the console that are kept; beyond, they are counted."""


class Console:
    """Consumer of the first serial port. ``last_line`` and ``panic`` are for error texts."""

    def __init__(
        self,
        reporter: Reporter,
        log: EvidenceFile,
        redaction: Redaction | None = None,
        *,
        max_total: int = MAX_TOTAL,
    ) -> None:
        self._reporter = reporter
        self._log = log
        self._redaction = redaction or Redaction()
        self._left = max_total
        self._dropped = 0
        self._line = bytearray()
        self.last_line = ""
        self.panic = ""
        """The line with which the guest's kernel gave up, if it did."""

    def feed(self, chunk: bytes) -> int:
        room = chunk[: self._left]
        self._left -= len(room)
        self._dropped += len(chunk) - len(room)
        *lines, rest = room.split(b"\n")
        for line in lines:
            self._extend(line)
            self._finish()
        self._extend(rest)
        return len(lines)

    def end(self) -> None:
        if self._line:
            self._finish()
        if self._dropped:
            self._emit(f"[{self._dropped} more bytes of the console are not shown]")

    def _extend(self, part: bytes) -> None:
        # Twice the limit is enough to know that the line is cut, and to find it not worth keeping more.
        self._line += part[: max(0, 2 * MAX_LINE - len(self._line))]

    def _finish(self) -> None:
        line = self._redaction.bytes(bytes(self._line).rstrip(b"\r"))
        text = inert_bytes(line, MAX_LINE - len(PREFIX))
        self._line.clear()
        if text.strip():
            self.last_line = text
        if "Kernel panic - " in text and not self.panic:
            self.panic = text[text.index("Kernel panic - ") :]
        self._emit(text)

    def _emit(self, text: str) -> None:
        self._log.write_line(PREFIX + text)
        self._reporter.emit(ConsoleLine(text=PREFIX + text))
