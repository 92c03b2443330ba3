"""A digest that lags behind the copy: of what needs no disk any more, only time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from snf_image_host.digests import Digests

LATE: Final = 2 * 1024 * 1024 * 1024
"""Bytes that may be left when the copy is called whole: a few seconds, in which the helper works."""


class LateDigest:
    """What is left of a sha256, computed in a thread of its own from now on."""

    def __init__(self, digests: Digests, rest: Iterator[memoryview]) -> None:
        """``rest``: views, each valid until the next is asked for; none has to be waited for."""
        self._digests = digests
        self._rest = rest
        self._given_up = threading.Event()
        self._sha256: str | None = None
        self._thread = threading.Thread(target=self._finish, name="late-digest", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        return self._sha256 is not None

    def wait(self) -> str:
        """The digest, once it is there."""
        self._thread.join()
        if self._sha256 is None:
            raise RuntimeError("the digest's thread has failed")
        return self._sha256

    def give_up(self) -> None:
        """Nobody waits for it any more: a processor is not kept busy for nothing."""
        self._given_up.set()

    def _finish(self) -> None:
        for view in self._rest:
            if self._given_up.is_set():
                return
            self._digests.update(view)
        self._sha256 = self._digests.hex()["sha256"]
