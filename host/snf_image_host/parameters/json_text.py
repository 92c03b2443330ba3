"""JSON that a tenant wrote: bounded, no repeated keys, numbers kept as text, control characters tolerated."""

from __future__ import annotations

import contextlib
import decimal
import json
from typing import Any, Final

from snf_image_host.parameters.problems import ParseError, shown

MAX_DEPTH: Final = 16
_MAX_NUMBER_DIGITS: Final = 40


class Number(str):
    """A number as it was written, so that nothing is lost or blown up by reading it."""

    __slots__ = ()

    def decimal_text(self) -> str:
        """Plain decimal text without an exponent; :class:`ParseError` if that would be absurdly long."""
        value = None
        if len(self) <= _MAX_NUMBER_DIGITS:
            # What has an exponent beyond the module's own bounds is no number to it.
            with contextlib.suppress(decimal.InvalidOperation):
                value = decimal.Decimal(self)
        if value is None or abs(value.adjusted()) > _MAX_NUMBER_DIGITS:
            raise ParseError("the number is too long", echo=False)
        return format(value, "f")


def load_json(text: str, *, limit: int, fold_keys: bool = False) -> Any:
    """Plain values: dict, list, str, :class:`Number`, bool, None. ``limit`` in characters.

    ``fold_keys``: keys of the outermost objects that differ in letter case only count as repeated, too.
    """
    if len(text) > limit:
        raise ParseError(f"longer than {limit} bytes", echo=False)
    try:
        data = json.loads(
            text,
            strict=False,
            object_pairs_hook=_folded if fold_keys else _unique,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise ParseError("nested too deeply", echo=False) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ParseError(f"not valid JSON ({error.msg}, {where})", echo=False) from None
    _check(data, 0)
    return data


def _unique(pairs: list[tuple[str, Any]], *, fold: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {}
    seen: set[str] = set()
    for key, value in pairs:
        folded = key.upper() if fold else key
        if folded in seen:
            raise ParseError(f"key {shown(key)} occurs twice", echo=False)
        seen.add(folded)
        result[key] = value
    return result


def _folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return _unique(pairs, fold=True)


def _no_constant(name: str) -> None:
    raise ParseError(f"{name} is not valid JSON", echo=False)


def _check(data: Any, depth: int) -> None:
    """Bound the depth and refuse text that cannot be written to a file or an environment."""
    if depth > MAX_DEPTH:
        raise ParseError("nested too deeply", echo=False)
    if isinstance(data, dict):
        for key, value in data.items():
            _check_text(key)
            _check(value, depth + 1)
    elif isinstance(data, list):
        for value in data:
            _check(value, depth + 1)
    elif isinstance(data, str):
        _check_text(data)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ParseError("holds text that is not valid Unicode", echo=False) from None
    if "\0" in text:
        raise ParseError("holds a NUL character", echo=False)
