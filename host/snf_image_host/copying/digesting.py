"""A digest that lags behind the copy: of the last holes, which need no disk, only time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from snf_image_host.copying.workers import StoppedError

if TYPE_CHECKING:
    from hashlib import _Hash

LATE: Final = 2 * 1024 * 1024 * 1024
"""Bytes that may be left when the copy is called whole: a few seconds, in which the helper works."""


class Digesting:
    """Digests of the same bytes by several algorithms. ``position``: how many bytes went in."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self.position = 0
        self._digests: dict[str, _Hash] = {name: hashlib.new(name) for name in algorithms}

    def __bool__(self) -> bool:
        """Whether any is wanted."""
        return bool(self._digests)

    def update(self, view: memoryview) -> None:
        for digest in self._digests.values():
            digest.update(view)
        self.position += len(view)

    def hex(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


class LateDigest:
    """What is left of a sha256, computed in a thread of its own from now on."""

    def __init__(self, digesting: Digesting, rest: Iterator[memoryview]) -> None:
        self._digesting = digesting
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
                self._digesting.update(view)
        except StoppedError:
            return  # the copy has failed after all
        self._sha256 = self._digesting.hex()["sha256"]
