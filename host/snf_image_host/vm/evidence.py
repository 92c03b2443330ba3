"""Files of the evidence directory: private, bounded, and never the reason why a deployment fails."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from snf_image_host.inert import inert_bytes

MAX_BYTES: Final = 16 * 1024 * 1024


class EvidenceFile:
    """A text file that is written a line at a time; one that cannot be written is left as it is."""

    def __init__(self, directory: str | None, name: str) -> None:
        """``directory`` None: nothing is kept."""
        self._left = MAX_BYTES
        self._fd: int | None = None
        if directory is None:
            return
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(os.path.join(directory, name), flags, 0o600)

    def write_line(self, text: str) -> None:
        """Add a line; a full disk ends the file."""
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        self._left -= len(data)
        if self._fd is None or self._left < 0:
            return
        try:
            os.write(self._fd, data)
        except OSError:
            self.close()

    def close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


class OutputTail:
    """Consumer of what qemu prints: all of it, within bounds, in a file; the last lines for error texts."""

    LINES: Final = 10
    MAX_LINE: Final = 1024

    def __init__(self, log: EvidenceFile) -> None:
        self._log = log
        self._line = bytearray()
        self._tail: list[str] = []

    @property
    def tail(self) -> tuple[str, ...]:
        return tuple(self._tail)

    def feed(self, chunk: bytes) -> int:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._extend(line)
            self._finish()
        self._extend(rest)
        return len(lines)

    def end(self) -> None:
        if self._line:
            self._finish()

    def _extend(self, part: bytes) -> None:
        self._line += part[: max(0, 2 * self.MAX_LINE - len(self._line))]

    def _finish(self) -> None:
        text = inert_bytes(bytes(self._line), self.MAX_LINE)
        self._line.clear()
        self._log.write_line(text)
        self._tail = [*self._tail, text][-self.LINES :]
