"""What the host says while the helper runs, on the port of the helper's own events."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Final

from snf_image_contract.job import MAX_HOST_KEYS_BYTES, SLOTS_FILLED, HostKey, load_host_keys
from snf_image_helper.errors import TaskError

HostKeySource = Callable[[], tuple[HostKey, ...]]
"""Waits for the SSH host keys that the host makes; none if it makes none."""
_CHUNK: Final = 4096


def no_host_keys() -> tuple[HostKey, ...]:
    """A host that makes none."""
    return ()


class FromHost:
    """Reads the port, line by line.

    An empty line asks for a sign of life, ``SLOTS_FILLED`` says that the job is there, and the line that
    remains holds the SSH host keys; those may come at any time, also before the job is found here.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = b""
        self._keys: bytes | None = None
        self.slots_filled = False

    def asks(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for anything; whether the host asked if anybody is there."""
        asked = False
        if self._receive(seconds):
            *lines, self._received = self._received.split(b"\n")
            for line in lines:
                if not line:
                    asked = True
                elif line + b"\n" == SLOTS_FILLED:
                    self.slots_filled = True
                else:
                    self._keys = line
        return asked

    def host_keys(self, seconds: float) -> tuple[HostKey, ...]:
        """The keys, waiting up to ``seconds`` for them; :class:`TaskError` if they do not come."""
        end = time.monotonic() + seconds
        while self._keys is None:
            left = end - time.monotonic()
            if left <= 0 or len(self._received) > MAX_HOST_KEYS_BYTES:
                raise TaskError("the SSH host keys that the host makes did not arrive")
            self.asks(left)
        return load_host_keys(self._keys).keys

    def _receive(self, seconds: float) -> bool:
        """Wait for bytes and take them; False if none came in time."""
        if not select.select([self._port], [], [], max(0.0, seconds))[0]:
            return False
        self._received += os.read(self._port, _CHUNK)
        return True
