"""UUIDs as the standard library has them."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from snf_image_helper import uuids


@given(st.uuids())
def test_text_and_bytes_are_those_of_module_uuid(value: uuid.UUID) -> None:
    """R-DET-2, T-58: in the order of file systems, and in that of a GPT."""
    assert uuids.text_of(value.bytes) == uuids.text_of_guid(value.bytes_le) == str(value)
    assert uuids.bytes_of(str(value)) == value.bytes
    assert uuids.bytes_of_guid(str(value).upper()) == value.bytes_le


def test_a_new_one_is_random_and_says_so() -> None:
    """R-TASK-MID-1, R-TASK-FIX-5: version 4, all other bits the system's."""
    made = [uuid.UUID(uuids.new()) for _ in range(256)]
    assert {(value.version, value.variant) for value in made} == {(4, uuid.RFC_4122)}
    ones, zeros = (1 << 128) - 1, 0
    for value in made:
        ones, zeros = ones & value.int, zeros | value.int
    assert f"{ones:032x}" == "0" * 12 + "4" + "0" * 3 + "8" + "0" * 15, "bits that are always set"
    assert f"{zeros:032x}" == "f" * 12 + "4" + "f" * 3 + "b" + "f" * 15, "bits that are ever set"
