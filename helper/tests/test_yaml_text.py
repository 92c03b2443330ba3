"""YAML of an image: read as far as it can be configuration."""

import pytest

from snf_image_helper.errors import ImageError
from snf_image_helper.linux import yaml_text


def test_a_mapping_is_read() -> None:
    assert yaml_text.load_mapping(b"a: [1, {b: c}]\n", "/x") == {"a": [1, {"b": "c"}]}
    assert yaml_text.load_mapping(b"", "/x") == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: " + b"[" * 100_000, "nested too deeply"),
        (b"a: " + b"{b: " * 201 + b"}" * 201, "nested too deeply"),
        (b"a: 1\n" * 30_000, "larger than 131072 bytes"),
        (b"- a\n", "not a YAML mapping"),
        (b"\x00", "not valid YAML"),
    ],
)
def test_what_would_take_minutes_is_no_configuration(data: bytes, words: str) -> None:
    """R-TASK-5: the file is named, and nobody waits for it: a parser of brackets takes the square of them."""
    with pytest.raises(ImageError, match=f"^/x: {words}"):
        yaml_text.load_mapping(data, "/x")


def test_many_brackets_beside_each_other_are_fine() -> None:
    data = b"a: [" + b"[], " * 1000 + b"]"
    assert yaml_text.load_mapping(data, "/x") == {"a": [[]] * 1000}
