"""Moments that a signal must not break: between making a thing and knowing how to undo it (R-HLP-13).

The handler of a signal that ends us raises an exception wherever the main thread just is. Whoever makes what
would outlive us, such as a file, does that and registers its removal within :func:`uninterrupted`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Final


@dataclasses.dataclass(slots=True)
class _State:
    depth: int = 0
    waiting: BaseException | None = None


_STATE: Final = _State()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """An interruption waits until this context ends, and is raised then. For the main thread only.

    Keep it short: nothing that blocks may be within it.
    """
    _STATE.depth += 1
    try:
        yield
    finally:
        _STATE.depth -= 1
        if _STATE.depth == 0 and _STATE.waiting is not None:
            interruption, _STATE.waiting = _STATE.waiting, None
            raise interruption


def interrupt(interruption: BaseException) -> None:
    """Raise it now, or at the end of the moment that must not be broken. To be called by a signal handler."""
    if _STATE.depth == 0:
        raise interruption
    _STATE.waiting = interruption
