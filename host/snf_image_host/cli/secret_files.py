"""Files named on the command line: bounded, text where text is due, standard input at most once (D-17)."""

from __future__ import annotations

import os
import sys
from typing import Final

from snf_image_host.parameters.problems import Problems

LIMIT: Final = 64 * 1024 * 1024


class InputFiles:
    """Reads the files of one command line; what is wrong goes to ``problems``."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._standard_input_of: str | None = None

    def read(self, option: str, path: str) -> bytes | None:
        """The bytes of a file, or of standard input for ``-``."""
        if path == "-":
            if self._standard_input_of is not None:
                self._problems.error(f"{option} and {self._standard_input_of} cannot both be standard input")
                return None
            self._standard_input_of = option
        try:
            data = sys.stdin.buffer.read(LIMIT + 1) if path == "-" else _read(path)
        except OSError as error:
            self._problems.error(f"{option}: {path}: {error.strerror}")
            return None
        if len(data) > LIMIT:
            self._problems.error(f"{option}: {path}: longer than {LIMIT} bytes")
            return None
        return data

    def read_text(self, option: str, path: str) -> str | None:
        """The text of a file in UTF-8, whole."""
        data = self.read(option, path)
        if data is None:
            return None
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._problems.error(f"{option}: {path}: not valid UTF-8")
            return None

    def read_line(self, option: str, path: str) -> str | None:
        """The text of a file without the newline at its end, which editors put there."""
        text = self.read_text(option, path)
        if text is None:
            return None
        return text.removesuffix("\n").removesuffix("\r")


def _read(path: str) -> bytes:
    # A pipe is welcome: --password-file <(pass show web1).
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        return file.read(LIMIT + 1)
