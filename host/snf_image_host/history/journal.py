"""Writing the history: a console log while a run lasts, its receipt at the end, no more than was allowed."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
from typing import Any, Final, Self

from snf_image_host.history.entry import CONSOLE, ENTRY_NAME, EVIDENCE, RECEIPT
from snf_image_host.reporter import ConsoleLine, Event, Reporter

_MIB: Final = 1024 * 1024


class Journal:
    """One run's place in the history of an instance: a sink, and a context manager.

    Whatever fails here, such as a full disk, is one warning and never the reason why a deployment fails.
    ``evidence``: the directory below which evidence of a failure is kept until it is rotated away; None if
    there is no such place.
    """

    def __init__(
        self, directory: str, instance: str, action: str, *, keep: int, max_size: int, reporter: Reporter
    ) -> None:
        """``instance`` must be checked; ``keep``: so many runs; ``max_size``: MiB of all of them."""
        self._place = os.path.join(directory, instance)
        self._keep = keep
        self._max_size = max_size * _MIB
        self._reporter = reporter
        self._fd: int | None = None
        now = dt.datetime.now(dt.UTC)
        self._base = f"{now:%Y%m%dT%H%M%S.%f}Z-{action}"
        self.evidence: str | None = None
        try:
            _make_private(directory)
            _make_private(self._place)
            self._fd = self._create()
            evidence = self._path(EVIDENCE)
            os.mkdir(evidence, 0o700)
            self.evidence = evidence
        except OSError as error:
            self._warn(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        if self.evidence is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self.evidence)  # nothing was kept
        self._rotate()

    @property
    def receipt(self) -> str:
        """Where the receipt is, or would be."""
        return self._path(RECEIPT)

    def handle(self, event: Event) -> None:
        """Lines of the helper's console are logged; they are inert and bounded already (R-HLP-8)."""
        if isinstance(event, ConsoleLine) and self._fd is not None:
            try:
                os.write(self._fd, event.text.encode("utf-8", "backslashreplace") + b"\n")
            except OSError as error:
                self.close()
                self._warn(error)

    def close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def write(self, document: dict[str, Any]) -> str | None:
        """Write the receipt, whole or not at all; its path, None if it cannot be written."""
        partial = self.receipt + ".new"
        try:
            with open(os.open(partial, _NEW, 0o600), "w", encoding="ascii") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
            os.rename(partial, self.receipt)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            self._warn(error)
            return None
        return self.receipt

    def _path(self, suffix: str) -> str:
        return os.path.join(self._place, self._base + suffix)

    def _create(self) -> int:
        return os.open(self._path(CONSOLE), _NEW, 0o600)

    def _warn(self, error: OSError) -> None:
        self._reporter.warn(
            "the history of this instance is not complete", details=f"{self._place}: {error.strerror}"
        )

    def _rotate(self) -> None:
        """Remove the oldest runs beyond the number and the size that are kept; never this one."""
        try:
            found: dict[str, list[str]] = {}
            for name in sorted(os.listdir(self._place), reverse=True):
                if match := ENTRY_NAME.fullmatch(name):
                    found.setdefault(match[1], []).append(os.path.join(self._place, name))
        except OSError:
            return
        total = 0
        for number, (base, paths) in enumerate(found.items()):
            total += sum(_size(path) for path in paths)
            if base != self._base and (number >= self._keep or total > self._max_size):
                for path in paths:
                    _remove(path)


_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def _make_private(path: str) -> None:
    """A directory for root only; its parents are the system's."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(path, mode=0o700)


def _size(path: str) -> int:
    """Bytes that a file, or what is in a directory, takes on the disk."""
    total = 0
    with contextlib.suppress(OSError):
        total += os.lstat(path).st_blocks * 512
        if os.path.isdir(path) and not os.path.islink(path):
            for parent, _, names in os.walk(path):
                total += sum(os.lstat(os.path.join(parent, name)).st_blocks * 512 for name in names)
    return total


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
