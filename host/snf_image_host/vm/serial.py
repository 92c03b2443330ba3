"""Serial ports: a socket pair each, and a thread that reads our end without ever falling behind.

What arrives is bounded in rate: beyond it the thread waits, the socket fills, and the guest's own output
waits. A helper that floods slows itself, not the node.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

BYTES_PER_SECOND: Final = 8 * 1024 * 1024
MESSAGES_PER_SECOND: Final = 2000
_BURST_SECONDS: Final = 1.0
_CHUNK: Final = 65536


class Consumer(Protocol):
    """What becomes of a port's bytes; used by the port's thread only."""

    def feed(self, chunk: bytes) -> int:
        """Deal with bytes; returns how many messages (lines, events) they made."""
        ...

    def end(self) -> None:
        """The port is closed, nothing follows."""
        ...


class Ignored:
    """Consumer of a port that nobody listens to."""

    def feed(self, chunk: bytes) -> int:  # noqa: ARG002 - the bytes are dropped
        return 0

    def end(self) -> None:
        pass


class Port:
    """One port. ``theirs`` is the end that qemu inherits; it must be closed here once qemu has it."""

    def __init__(self, name: str, consumer: Consumer, *, at_end: Callable[[], None] | None = None) -> None:
        self.name = name
        self.failure: BaseException | None = None
        """What the consumer raised: a bug of ours, which must not be lost in a thread."""
        self._consumer = consumer
        self._at_end = at_end
        self._ours, self.theirs = socket.socketpair()
        self._closing = threading.Event()
        self._earned = _BURST_SECONDS
        self._counted = time.monotonic()
        self._thread = threading.Thread(target=self._read, name=f"helper-{name}", daemon=True)

    def start(self) -> None:
        """Read from now on; whatever was written before is not lost."""
        self.theirs.close()
        self._thread.start()

    def send(self, data: bytes) -> None:
        """Bytes for the guest; they are lost if it is gone or does not read."""
        with contextlib.suppress(OSError):
            self._ours.send(data, socket.MSG_DONTWAIT)

    def join(self, seconds: float) -> bool:
        """Wait until everything that was written is dealt with; False if that takes longer."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop reading at once and give everything back. May be called twice."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self.join(10.0)
        self._ours.close()
        self.theirs.close()

    def _read(self) -> None:
        try:
            self._read_all()
        except Exception as failure:  # noqa: BLE001 - raised again by the thread that owns the VM
            self.failure = failure
        finally:
            if self._at_end is not None:
                self._at_end()

    def _read_all(self) -> None:
        while not self._closing.is_set():
            try:
                chunk = self._ours.recv(_CHUNK)
            except OSError:
                break
            if not chunk:
                break
            messages = self._consumer.feed(chunk)
            self._pace(len(chunk), messages)
        self._consumer.end()

    def _pace(self, size: int, messages: int) -> None:
        """Wait as long as the bytes and messages so far are ahead of the permitted rate."""
        now = time.monotonic()
        self._earned = min(_BURST_SECONDS, self._earned + now - self._counted)
        self._counted = now
        self._earned -= max(size / BYTES_PER_SECOND, messages / MESSAGES_PER_SECOND)
        if self._earned < 0:
            self._closing.wait(-self._earned)
