"""A row of the tables of parameters: parsing, error texts, ``--help`` and the reference come from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

EARLIER: Final = "0.x"
"""Since when: deployments of the 0.x generation know the name already."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One parameter, property or variable.

    ``values``: what may be written, for people. ``parse``: text to value. ``default``: as text, None for
    "not set"; ``default_shown`` says it in words where the text does not. ``families``: a word for the
    families of operating systems a property is for, empty for all.
    """

    name: str
    values: str
    parse: Callable[[str], Any]
    default: str | None = None
    default_shown: str = ""
    help: str
    since: str = EARLIER
    secret: bool = False
    example: str = ""

    @property
    def field(self) -> str:
        """The field of the typed result that holds the value."""
        return self.name.lower()

    @property
    def shown_default(self) -> str:
        return self.default_shown or self.default or "not set"
