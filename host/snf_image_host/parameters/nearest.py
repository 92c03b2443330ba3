"""The known name that an unknown one was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

# Low enough for one wrong letter in a name of four.
_CUTOFF: Final = 0.75


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The best match for ``word`` among ``known`` (letter case ignored), or None if nothing is near."""
    by_folded = {name.upper(): name for name in known}
    found = difflib.get_close_matches(word.upper()[:256], by_folded, n=1, cutoff=_CUTOFF)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``", did you mean NAME?"``, or nothing."""
    found = nearest(word, known)
    return f", did you mean {found}?" if found else ""
