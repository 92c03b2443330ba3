"""Signals that end us: one exception, so that every context manager cleans up (R-HLP-13)."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

from snf_image_host.moments import interrupt

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked us to end. ``exit_code``: 130 after Ctrl-C, 143 otherwise (D-16)."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        return 130 if self.signal is signal.SIGINT else 143


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first ending signal into :class:`Interrupted`; later ones must not disturb the clean-up."""
    before = {number: signal.getsignal(number) for number in _ENDING}

    def end(number: int, _: FrameType | None) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)
        interrupt(Interrupted(number))

    for number in _ENDING:
        # nohup and its like: who started us wants this signal to be ignored.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
