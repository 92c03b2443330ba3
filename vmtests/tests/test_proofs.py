"""Proofs that could not fail would prove nothing."""

import json

import pytest
import yaml

from snf_image_vmtests.matrix import Cell
from snf_image_vmtests.matrix_model import ASCII_PASSWORD
from snf_image_vmtests.proofs import tells

DEFAULT = Cell(id="a", fixture="f", disk_size=1).password


@pytest.mark.parametrize(
    "password", [DEFAULT, ASCII_PASSWORD.replace("blank", "blanks"), "s3cret", "a b", "%&"]
)
@pytest.mark.parametrize("write", [str, json.dumps, yaml.safe_dump, repr])
def test_clear_text_is_found_in_any_notation(password: str, write: object) -> None:
    """R-TASK-PW-7: a password of quotes and umlauts stands in YAML in other characters than its own."""
    assert callable(write)
    document = str(write(f"{password}\n")).encode()
    assert tells(document, password)
    assert not tells(b"chpasswd: {users: [{name: root, password: $6$..., type: hash}]}", password)
