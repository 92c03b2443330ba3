"""The second serial port: the word that says it all went well (R-HLP-9)."""

from __future__ import annotations

from typing import Final

from snf_image_contract.events import SUCCESS
from snf_image_host.inert import inert_bytes
from snf_image_host.vm.evidence import EvidenceFile
from snf_image_host.vm.redaction import Redaction

MAX_BYTES: Final = 4096
"""Where reading stops; what follows is dropped."""
_ERROR: Final = b"ERROR:"
_MAX_ERRORS: Final = 10


class ResultPort:
    """Consumer of the port."""

    def __init__(self, log: EvidenceFile, redaction: Redaction | None = None) -> None:
        self._log = log
        self._redaction = redaction or Redaction()
        self._data = bytearray()

    def feed(self, chunk: bytes) -> int:
        self._data += chunk[: MAX_BYTES - len(self._data)]
        return 0

    def end(self) -> None:
        for line in self._lines():
            self._log.write_line(inert_bytes(self._redaction.bytes(line), MAX_BYTES))

    @property
    def first_line(self) -> bytes:
        """The first whole line without its CR and LF; empty if none came."""
        line, newline, _ = bytes(self._data).partition(b"\n")
        return line.removesuffix(b"\r") if newline else b""

    @property
    def says_success(self) -> bool:
        """Whether the first line is exactly SUCCESS, and no error is told after it."""
        return self.first_line == SUCCESS.encode("ascii") and not self.errors

    @property
    def errors(self) -> tuple[str, ...]:
        """The causes of ``ERROR: <text>`` lines, made inert."""
        found = [line.removeprefix(_ERROR).strip() for line in self._lines() if line.startswith(_ERROR)]
        return tuple(inert_bytes(self._redaction.bytes(text), 1024) for text in found[:_MAX_ERRORS])

    def _lines(self) -> list[bytes]:
        return [line.rstrip(b"\r") for line in bytes(self._data).split(b"\n") if line.strip()]
