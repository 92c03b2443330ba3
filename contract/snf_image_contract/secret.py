"""A value that must never be shown."""

from __future__ import annotations

from typing import Final

MARKER: Final = "<secret>"


class Secret:
    """Text that prints as a marker wherever it is not asked for by name.

    ``repr``, ``str`` and ``format`` give the marker, so that a log line, an error text or a traceback
    cannot hold the value by accident. Only :meth:`reveal` gives it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return MARKER

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(MARKER, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
