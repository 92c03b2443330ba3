"""Digests of the same bytes by several algorithms, as they pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


class Digests:
    """``position``: how many bytes went in."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self.position = 0
        self._digests = {name: hashlib.new(name, usedforsecurity=True) for name in algorithms}

    def __bool__(self) -> bool:
        """Whether any is wanted."""
        return bool(self._digests)

    def update(self, view: memoryview) -> None:
        for digest in self._digests.values():
            digest.update(view)
        self.position += len(view)

    def hex(self) -> dict[str, str]:
        """By name, in hexadecimal digits; of everything that went in until now."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}
