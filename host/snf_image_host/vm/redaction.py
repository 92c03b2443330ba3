"""Takes the secrets of a job out of what the helper says.

The helper never says them by itself, but programs that it runs may: a custom task with ``set -x`` shows on
the console whatever it was given (R-SEC-1).
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Iterator
from typing import Any, Final

from snf_image_contract.events import Failed, Warned
from snf_image_contract.job import HostKeys, Job
from snf_image_contract.secret import MARKER, Secret

MIN_LENGTH: Final = 4
"""Characters; a shorter one is in every other word, and gives little away."""
MIN_LINE: Final = 12
"""The same for a line of a secret of several lines, such as a key or a script."""


class Redaction:
    """Knows nothing until a job is handed over; before that the helper has no secret."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._needles: frozenset[str] = frozenset()
        self._text: re.Pattern[str] | None = None
        self._bytes: re.Pattern[bytes] | None = None

    def learn(self, job: Job | HostKeys) -> None:
        """From now on, take every secret of ``job`` out, beside those that are known."""
        # Of a custom task's environment every value is wrapped, the ordinary ones too; what is secret among
        # them is in another field as well.
        without = dataclasses.replace(job, environment=()) if isinstance(job, Job) else job
        needles = {needle for secret in _secrets(without) for needle in _needles(secret.reveal())}
        # The job and its SSH host keys are handed over by two threads.
        with self._lock:
            if needles <= self._needles:
                return
            self._needles |= needles
            # The longest first: one secret may be the beginning of another.
            ordered = sorted(self._needles, key=len, reverse=True)
            self._text = re.compile("|".join(map(re.escape, ordered)))
            written = dict.fromkeys(form for needle in ordered for form in _written(needle))
            self._bytes = re.compile(b"|".join(re.escape(form) for form in written))

    def bytes(self, line: bytes) -> bytes:
        """A raw line of the helper, with the marker in place of each secret."""
        return line if self._bytes is None else self._bytes.sub(MARKER.encode("ascii"), line)

    def event(self, event: Any) -> Any:
        """An event with its free texts redacted; names and paths of the contract stay as they are."""
        if self._text is None:
            return event
        if isinstance(event, Warned):
            return dataclasses.replace(event, message=self._in_text(event.message))
        if isinstance(event, Failed):
            return dataclasses.replace(
                event,
                messages=tuple(map(self._in_text, event.messages)),
                stderr=tuple(map(self._in_text, event.stderr)),
            )
        return event

    def _in_text(self, text: str) -> str:
        return text if self._text is None else self._text.sub(MARKER, text)


def _secrets(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _secrets(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _secrets(getattr(value, field.name))


def _needles(value: str) -> Iterator[str]:
    """What gives a secret away: the whole of one line, each longer line of several."""
    lines = [line.strip() for line in value.splitlines()]
    least = MIN_LENGTH if len(lines) == 1 else MIN_LINE
    yield from (line for line in lines if len(line) >= least)


def _written(needle: str) -> Iterator[bytes]:
    """The bytes of a needle on a console, and within a line of JSON."""
    yield needle.encode("utf-8", "surrogateescape")
    yield json.dumps(needle, ensure_ascii=True)[1:-1].encode("ascii")
    yield json.dumps(needle, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape")
