"""What a test leaves behind for whoever asks why it failed: one directory per test."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from snf_image_vmtests import places

_TAIL_BYTES: Final = 6000
_LOG_SUFFIXES: Final = (".log", ".stderr", ".txt")
_MAX_NAME: Final = 120


class Evidence:
    """A directory of logs, screenshots, command lines and receipts of one test."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._watchers: list[Callable[[], None]] = []
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory, mode=0o700)

    @classmethod
    def of_test(cls, nodeid: str) -> Evidence:
        """The directory of the test with this id, emptied."""
        name = re.sub(r"[^A-Za-z0-9_.=-]+", "-", nodeid.rpartition("/")[2]).strip("-")
        if len(name) > _MAX_NAME:
            name = f"{name[:_MAX_NAME]}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"
        return cls(os.path.join(places.build_directory(), "evidence", name))

    def path(self, name: str) -> str:
        """Where a file of this name belongs."""
        return os.path.join(self.directory, name)

    def write(self, name: str, text: str) -> None:
        with open(self.path(name), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)

    def on_failure(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` if the test fails, while what it started still runs."""
        self._watchers.append(watcher)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Log a step and how long it took, to the test's output and to ``steps.txt``."""
        begun = time.monotonic()
        verdict = "failed"
        try:
            yield
            verdict = "ok"
        finally:
            line = f"{time.monotonic() - begun:7.2f} s  {verdict:6}  {text}\n"
            print(line, end="")
            with open(self.path("steps.txt"), "a", encoding="utf-8") as file:
                file.write(line)

    def sections_of_failure(self) -> list[tuple[str, str]]:
        """Titles and texts for the report of a failed test: the ends of all logs, last the directory."""
        for watcher in self._watchers:
            try:
                watcher()
            except Exception as error:  # noqa: BLE001 - a report must not fail for want of a screenshot
                self.write("watcher-errors.txt", f"{error}\n")
        names = [name for name in sorted(os.listdir(self.directory)) if name.endswith(_LOG_SUFFIXES)]
        logs = [name for name in names if os.path.getsize(self.path(name))]
        return [*((f"end of {name}", tail(self.path(name))) for name in logs), ("evidence", self.directory)]

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def tail(path: str, size: int = _TAIL_BYTES) -> str:
    """The end of a log, control characters made harmless."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - size))
        text = file.read().decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() or c in "\n\t" else "" if c == "\r" else f"\\x{ord(c):02x}" for c in text
    )
