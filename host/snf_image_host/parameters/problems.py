"""Problems found while reading what was asked: collected, then reported together (R-OSP-16)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from snf_image_host.errors import NodeError, UserError

T = TypeVar("T")
_SHOWN: Final = 60


class ParseError(ValueError):
    """A value is not what its place allows; the text continues "NAME: …" and holds no part of the value.

    ``echo``: whether the message may end with the value, if the value is no secret.
    """

    def __init__(self, text: str, *, echo: bool = True) -> None:
        super().__init__(text)
        self.echo = echo


def shown(text: str) -> str:
    """``text`` in quotes, cut and with control characters escaped, so that it fits into one line."""
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return repr(cut)


class Problems:
    """Errors and warnings in the order in which they were found; each text is one line."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def error(self, text: str) -> None:
        self.errors.append(text)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def parse(self, name: str, parse: Callable[[str], T], text: str, *, secret: bool = False) -> T | None:
        """The parsed value; None and one error that begins with ``name`` if it is not right."""
        try:
            return parse(text)
        except ParseError as error:
            echo = f", not {shown(text)}" if error.echo and not secret else ""
            self.error(f"{name}: {error}{echo}")
            return None

    def raise_user_error(self, hint: str = "") -> None:
        """Raise everything that was found, if anything was, as the requester's mistake."""
        if self.errors:
            raise UserError(*self.errors, hint=hint)

    def raise_node_error(self, hint: str = "") -> None:
        """Raise everything that was found, if anything was, as the operator's mistake."""
        if self.errors:
            raise NodeError(*self.errors, hint=hint)
