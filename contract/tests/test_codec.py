"""The contract's JSON: strict, bounded, the same both ways."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_contract import codec
from snf_image_contract.codec import ContractError, decode, dumps, encode, loads
from snf_image_contract.secret import MARKER, Secret


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    KIND: ClassVar = "circle"
    radius: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    KIND: ClassVar = "square"
    side: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    text: str
    count: int = 0
    share: float = 0.0
    flag: bool = False
    maybe: str | None = None
    many: tuple[int, ...] = ()
    choice: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    shape: Circle | Square | None = None
    password: Secret | None = None


def test_every_kind_of_value_survives() -> None:
    value = Everything(
        text="ü\n\x00",
        count=-3,
        share=0.5,
        flag=True,
        maybe="x",
        many=(1, 2),
        choice="b",
        shape=Circle(radius=2),
        password=Secret("p"),
    )
    assert decode(Everything, json.loads(dumps(value))) == value


@pytest.mark.parametrize(
    ("field", "bad", "complaint"),
    [
        ("text", 1, "document.text: expected text, got number"),
        ("count", True, "document.count: expected number, got true or false"),
        ("count", 1.5, "document.count: expected number, got number"),
        ("flag", 1, "document.flag: expected true or false, got number"),
        ("maybe", [], "document.maybe: expected text, got list"),
        ("many", "12", "document.many: expected list, got text"),
        ("many", [1, "2"], "document.many[1]: expected number, got text"),
        ("choice", "c", "document.choice: must be one of a, b"),
        ("colour", "blue", "document.colour: must be one of red"),
        ("shape", {"kind": "star"}, "document.shape.kind: must be one of circle, square"),
        ("shape", {"kind": "circle"}, "document.shape.radius: missing"),
        ("shape", 4, "document.shape: expected object, got number"),
        ("nonsense", 1, "document.nonsense: unknown field"),
    ],
)
def test_an_error_names_the_path_and_not_the_value(field: str, bad: object, complaint: str) -> None:
    plain = encode(Everything(text="t")) | {field: bad}
    with pytest.raises(ContractError) as error:
        decode(Everything, plain)
    assert str(error.value) == complaint


def test_missing_field_without_default() -> None:
    with pytest.raises(ContractError, match=r"^document\.text: missing$"):
        decode(Everything, {})


def test_a_whole_number_serves_as_float() -> None:
    assert decode(Square, {"kind": "square", "side": 3}) == Square(side=3.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": 1, "a": 2}', "occurs twice"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "is not a number"),
        ("{", "not valid JSON"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("[" * 200_000, "nested too deeply"),
        ('"' + "x" * 300_000 + '"', "at most 250000 allowed"),
    ],
)
def test_hostile_text_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint):
        loads(text, limit=250_000)


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "", "count": 9223372036854775808}',
        '{"text": "", "count": -9223372036854775808}',
        '{"text": "", "many": [' + "9" * 4000 + "]}",
        '{"text": "", "share": 1e999}',
        '{"text": "", "share": -1e999}',
        '{"text": "", "share": ' + "9" * 4000 + "}",
    ],
)
def test_a_number_that_would_overflow_is_refused(text: str) -> None:
    """A helper that was taken over must not make a program of the host stumble over its numbers."""
    with pytest.raises(ContractError, match="out of range"):
        decode(Everything, loads(text, limit=8192))


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(ContractError, match="not valid JSON"):
        loads(b'"\xff"', limit=100)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    """Whatever arrives, the only exception is the contract's own."""
    try:
        result = decode(Everything, value)
    except ContractError:
        return
    assert isinstance(result, Everything)


def test_secrets_do_not_print_and_can_be_left_out() -> None:
    """R-SEC-1, D-5: the redacted form is what a replay may keep."""
    secret = Secret("hunter2")
    value = Everything(text="t", password=secret)
    assert "hunter2" not in f"{value!r} {secret} {secret:>20} {value}"
    assert encode(value, redact=True)["password"] == MARKER
    assert encode(value)["password"] == "hunter2"
    assert secret == Secret("hunter2")
    assert secret != Secret("other")


def test_a_foreign_value_is_not_sent() -> None:
    with pytest.raises(ContractError, match="cannot send a set"):
        codec.encode({1})
