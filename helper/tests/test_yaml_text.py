"""YAML of an image: read as far as it can be configuration."""

import pytest

from snf_image_helper.errors import ImageError
from snf_image_helper.linux import yaml_text


def test_a_mapping_is_read() -> None:
    assert yaml_text.load_mapping(b"a: [1, {b: c}]\n", "/x") == {"a": [1, {"b": "c"}]}
    assert yaml_text.load_mapping(b"", "/x") == {}


def test_merge_keys_are_read() -> None:
    """Some configuration of cloud-init has them."""
    data = b"base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nmore: {<<: [*base, {c: 4}]}\n"
    assert yaml_text.load_mapping(data, "/x") == {
        "base": {"a": 1, "b": 2},
        "other": {"a": 1, "b": 3},
        "more": {"a": 1, "b": 2, "c": 4},
    }


def _doubled_by_merging(levels: int) -> bytes:
    """Mappings that each merge the one before twice: the last has 2 to the ``levels`` pairs."""
    lines = ["a0: &a0 {k: v}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, levels))]
    return "\n".join(lines).encode("ascii")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: " + b"[" * 100_000, "nested too deeply"),
        (b"a: " + b"{b: " * 201 + b"}" * 201, "nested too deeply"),
        (b"a: 1\n" * 30_000, "larger than 131072 bytes"),
        (b"- a\n", "not a YAML mapping"),
        (b"\x00", "not valid YAML"),
        (_doubled_by_merging(16), "not valid YAML"),
        (b"a: &a {<<: *a}\n", "not valid YAML"),
        (b"a: &a {" + b"x: 1, " * 2000 + b"}\nb: {<<: [" + b"*a, " * 20_000 + b"]}", "not valid YAML"),
    ],
)
def test_what_would_take_minutes_is_no_configuration(data: bytes, words: str) -> None:
    """R-TASK-5: the file is named, and nobody waits for it: a parser of brackets takes the square of them."""
    with pytest.raises(ImageError, match=f"^/x: {words}"):
        yaml_text.load_mapping(data, "/x")


def test_many_brackets_beside_each_other_are_fine() -> None:
    data = b"a: [" + b"[], " * 1000 + b"]"
    assert yaml_text.load_mapping(data, "/x") == {"a": [[]] * 1000}


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!int '+'", "!!float ''", "!!bool maybe", "!!timestamp today"]
)
def test_a_value_that_is_not_of_its_type(value: str) -> None:
    """R-TASK-10: whatever the parser raises, the image's file is at fault and is named."""
    with pytest.raises(ImageError, match=r"^/x: not valid YAML"):
        yaml_text.load_mapping(f"a: {value}\n".encode(), "/x")
