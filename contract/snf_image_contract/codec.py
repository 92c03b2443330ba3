"""Frozen dataclasses to JSON and back: strict and bounded in both directions.

Exact types (``true`` is no integer, ``1`` is no string), no unknown field, no missing field without a
default, no repeated key, no NaN, bounded depth, bounded numbers. Every error names the path of the offending
value, for example ``job.disks[1].serial: expected text, got number``, and never the value, which may be a
secret.

Annotations understood: ``str int float bool``, ``T | None``, ``tuple[T, ...]``, ``Literal``, ``StrEnum``,
``Secret``, dataclasses, and unions of dataclasses, told apart by their ``KIND`` (field ``kind`` in JSON).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from typing import Any, Final, TypeVar

from snf_image_contract.secret import MARKER, Secret

MAX_DEPTH: Final = 16
MAX_NUMBER: Final = 2**63 - 1
"""Largest number, and the negative of the smallest: every use of one can rely on it."""

T = TypeVar("T")

_NAMES: Final[dict[type, str]] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    type(None): "null",
}


class ContractError(ValueError):
    """What was received, or is to be sent, is not what the contract allows."""


def encode(value: object, *, redact: bool = False) -> Any:
    """The JSON-ready form of a dataclass of the contract.

    With ``redact`` each secret is replaced by a marker: the form that may be kept for a replay.
    """
    if isinstance(value, Secret):
        return MARKER if redact else value.reveal()
    if isinstance(value, enum.StrEnum):
        return value.value
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple):
        return [encode(item, redact=redact) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = getattr(type(value), "KIND", None)
        head = {} if kind is None else {"kind": kind}
        return head | {
            field.name: encode(getattr(value, field.name), redact=redact)
            for field in dataclasses.fields(value)
        }
    raise ContractError(f"cannot send a {type(value).__name__}")


def dumps(value: object, *, redact: bool = False, indent: int | None = None) -> str:
    """JSON text of a dataclass, control and non-ASCII characters escaped."""
    return json.dumps(encode(value, redact=redact), ensure_ascii=True, allow_nan=False, indent=indent)


def loads(text: str | bytes, *, limit: int, where: str = "document") -> Any:
    """JSON text to plain values: bounded in size and depth, no repeated keys, no NaN or Infinity."""
    if len(text) > limit:
        raise ContractError(f"{where}: {len(text)} bytes, at most {limit} allowed")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ContractError(f"{where}: nested too deeply") from None
    except ContractError:
        raise
    except ValueError as error:
        # json's message has a position, never the text itself.
        raise ContractError(f"{where}: not valid JSON: {getattr(error, 'msg', 'not UTF-8')}") from None
    _check_depth(data, where, 0)
    return data


def decode(kind: type[T], data: Any, *, where: str = "document") -> T:
    """Plain values to an instance of the dataclass ``kind``; :class:`ContractError` says what is wrong."""
    return typing.cast("T", _decode(kind, data, where))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ContractError(f"field {key[:64]!r} occurs twice")
        result[key] = value
    return result


def _no_constant(name: str) -> None:
    raise ContractError(f"{name} is not a number of JSON")


def _check_depth(data: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ContractError(f"{where}: nested too deeply")
    children = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for child in children:
        if isinstance(child, dict | list):
            _check_depth(child, where, depth + 1)


def _wrong(where: str, expected: str, data: Any) -> ContractError:
    kind: Any = type(data)
    got = {dict: "object", list: "list"}.get(kind) or _NAMES.get(kind, kind.__name__)
    return ContractError(f"{where}: expected {expected}, got {got}")


def _decode(kind: Any, data: Any, where: str) -> Any:
    if kind is Secret:
        return Secret(_decode(str, data, where))
    if type(data) in (int, float) and not -MAX_NUMBER <= data <= MAX_NUMBER:
        raise ContractError(f"{where}: number out of range")
    if kind is float and type(data) is int:
        return float(data)
    if kind in _NAMES:
        if type(data) is not kind:
            raise _wrong(where, _NAMES[kind], data)
        return data
    origin, arguments = _form(kind)
    if origin is typing.Literal:
        return _decode_choice(arguments, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise _wrong(where, "list", data)
        item = arguments[0]
        return tuple(_decode(item, entry, f"{where}[{index}]") for index, entry in enumerate(data))
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, data, where)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return kind(_decode_choice(tuple(member.value for member in kind), data, where))
    return _decode_dataclass(kind, data, where)


def _decode_choice(choices: tuple[Any, ...], data: Any, where: str) -> Any:
    if not any(type(data) is type(choice) and data == choice for choice in choices):
        raise ContractError(f"{where}: must be one of {', '.join(map(str, choices))}")
    return data


def _decode_union(members: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in members:
        return None
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        return _decode(others[0], data, where)
    if not isinstance(data, dict):
        raise _wrong(where, "object", data)
    by_kind = {member.KIND: member for member in others}
    kind = _decode_choice(tuple(by_kind), data.get("kind"), f"{where}.kind")
    return _decode_dataclass(by_kind[kind], data, where)


@functools.cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A generic type's origin and arguments; looked up once, because it is most of the time of decoding."""
    return typing.get_origin(kind), typing.get_args(kind)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(where, "object", data)
    given = dict(data)
    tag = getattr(kind, "KIND", None)
    if tag is not None and given.pop("kind", None) != tag:
        raise ContractError(f"{where}.kind: must be {tag}")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in given:
            hint = _hints(kind)[field.name]
            values[field.name] = _decode(hint, given.pop(field.name), f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ContractError(f"{where}.{field.name}: missing")
    if given:
        raise ContractError(f"{where}.{str(min(given))[:64]}: unknown field")
    return kind(**values)
