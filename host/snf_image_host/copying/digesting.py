"""A digest that lags behind the copy: of the last holes, which need no disk, only time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from snf_image_host.copying.workers import StoppedError
from snf_image_host.digests import Digests

LATE: Final = 2 * 1024 * 1024 * 1024
"""Bytes that may be left when the copy is called whole: a few seconds, in which the helper works."""


class LateDigest:
    """What is left of a sha256, computed in a thread of its own from now on."""

    def __init__(self, digests: Digests, rest: Iterator[memoryview]) -> None:
        self._digests = digests
        self._rest = rest
        self._sha256: str | None = None
        self._thread = threading.Thread(target=self._finish, name="late-digest", daemon=True)
        self._thread.start()

    def wait(self) -> str:
        """The digest, once it is there."""
        self._thread.join()
        if self._sha256 is None:
            raise RuntimeError("the digest's thread has failed")
        return self._sha256

    def _finish(self) -> None:
        try:
            for view in self._rest:
                self._digests.update(view)
        except StoppedError:
            return  # the copy has failed after all
        self._sha256 = self._digests.hex()["sha256"]
