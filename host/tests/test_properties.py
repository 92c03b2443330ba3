"""Image properties: two JSON objects, merged and parsed by their table."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_contract.job import SwapPartition
from snf_image_contract.names import OsFamily, TaskName
from snf_image_host.parameters.problems import ParseError, Problems
from snf_image_host.parameters.properties import ImageProperties, for_family, parse_object, parse_properties
from snf_image_host.parameters.property_table import PROPERTIES


def parse(image: str = "{}", instance: str = "{}") -> tuple[ImageProperties, Problems]:
    problems = Problems()
    properties = parse_properties(parse_object(image), parse_object(instance), problems)
    return properties, problems


def good(**values: Any) -> ImageProperties:
    properties, problems = parse(json.dumps(values))
    assert not problems.errors
    return properties


def test_the_table_and_the_typed_result_agree() -> None:
    fields = {field.name for field in dataclasses.fields(ImageProperties)}
    assert fields == {row.field for row in PROPERTIES} | {"exclude_tasks", "merged", "unknown"}


@pytest.mark.parametrize("row", PROPERTIES, ids=lambda row: row.name)
def test_every_example_is_right(row: Any) -> None:
    properties, problems = parse(json.dumps({row.name: row.example}))
    assert not problems.errors
    assert getattr(properties, row.field) == row.parse(row.example)


def test_nothing_given_is_the_defaults() -> None:
    properties, problems = parse()
    assert not problems.errors
    assert not problems.warnings
    assert properties.osfamily is None
    assert properties.swap is None
    assert properties.machine_id == "auto"
    assert properties.do_sync is False
    assert properties.merged == ()


@pytest.mark.parametrize(
    "text", ["[]", '"x"', "1", "null", "", "{", '{"a":1}x', "{'a': 1}", '{"a": NaN}', "\ufeff{}"]
)
def test_only_an_object_will_do(text: str) -> None:
    """R-PROP-1, T-16"""
    with pytest.raises(ParseError) as caught:
        parse_object(text)
    assert not caught.value.echo


def test_control_characters_in_strings_are_tolerated() -> None:
    """R-PROP-1, T-19: a value is not cut at a newline."""
    properties, problems = parse('{"NOTE": "two\nlines\tand a tab"}')
    assert not problems.errors
    assert dict(properties.merged)["NOTE"] == "two\nlines\tand a tab"


@pytest.mark.parametrize("text", [r'{"NOTE": "a\u0000b"}', r'{"NOTE": "\ud800"}', r'{"\u0000": "x"}'])
def test_text_that_no_environment_can_hold(text: str) -> None:
    with pytest.raises(ParseError):
        parse_object(text)


def test_deep_and_long_json_is_refused_quickly() -> None:
    for text in ('{"a":' * 100_000, '{"a":' + "[" * 20 + "]" * 20 + "}"):
        with pytest.raises(ParseError, match="nested too deeply"):
            parse_object(text)
    with pytest.raises(ParseError, match="longer than"):
        parse_object('{"a":"' + "x" * (16 * 1024 * 1024) + '"}')


def test_names_are_folded() -> None:
    """R-PROP-2"""
    properties, problems = parse('{"swap": "2:512", "Exclude_FilesystemResize_Tasks": "yes"}')
    assert not problems.errors
    assert properties.swap == SwapPartition(number=2, megabytes=512)
    assert properties.exclude_filesystemresize_tasks is True


@pytest.mark.parametrize("name", ["", "A-B", "A B", "A=B", "é", "A" * 129, "PATH\n", "ß", "A.B", "()"])
def test_names_of_other_characters(name: str) -> None:
    """R-PROP-2, T-20: no name can be anything but the tail of a variable's name."""
    _, problems = parse(json.dumps({name: "x"}))
    assert len(problems.errors) == 1
    assert problems.errors[0].startswith("img_properties: property name")
    assert problems.errors[0].isprintable()


def test_the_same_name_twice() -> None:
    """R-PROP-2: also if only the letter case differs."""
    for text in ('{"SWAP": "b", "SWAP": "c"}', '{"SWAP": "b", "swap": "c"}'):
        with pytest.raises(ParseError, match="occurs twice"):
            parse_object(text)


def test_the_instance_replaces_the_image() -> None:
    """R-PROP-3"""
    properties, _ = parse('{"USERS": "a", "DO_SYNC": "yes"}', '{"users": "b"}')
    assert properties.users == ("b",)
    assert properties.do_sync is True


def test_value_types() -> None:
    """R-PROP-4"""
    properties, problems = parse('{"A": "x", "B": 12, "C": 1.50, "D": true, "E": false, "F": 1e3, "G": null}')
    assert not problems.errors
    assert dict(properties.merged) == {"A": "x", "B": "12", "C": "1.50", "D": "yes", "E": "no", "F": "1000"}


def test_null_means_not_set() -> None:
    """R-PROP-4, T-18: and removes the image's value."""
    properties, problems = parse('{"SWAP": "2:512", "PASSWD_HASHING_METHOD": null}', '{"SWAP": null}')
    assert not problems.errors
    assert properties.swap is None
    assert properties.passwd_hashing_method is None
    assert properties.merged == ()


@pytest.mark.parametrize("value", [[], {}, ["a"], {"a": 1}])
def test_arrays_and_objects(value: Any) -> None:
    """R-PROP-4"""
    _, problems = parse(json.dumps({"SWAP": value}))
    assert len(problems.errors) == 1
    assert "property SWAP: must be text" in problems.errors[0]


def test_users_may_be_an_array() -> None:
    """R-PROP-4: names with spaces."""
    properties, problems = parse('{"USERS": ["John Doe", "root"]}')
    assert not problems.errors
    assert properties.users == ("John Doe", "root")
    assert dict(properties.merged)["USERS"] == "John Doe\nroot"
    _, problems = parse('{"USERS": ["a", 1]}')
    assert "array of names" in problems.errors[0]


@pytest.mark.parametrize(
    "number", ["1e999999999", "1" * 100, "-1e-999999999", "1e9999999999999999999", "-0e-9999999999999999999"]
)
def test_huge_numbers(number: str) -> None:
    _, problems = parse(f'{{"X": {number}}}')
    assert problems.errors == ["img_properties: property X: the number is too long"]


def test_an_empty_boolean_is_no_with_a_warning() -> None:
    """R-PROP-5"""
    properties, problems = parse('{"DO_SYNC": " ", "EXCLUDE_TASK_AddSwap": ""}')
    assert properties.do_sync is False
    assert not properties.exclude_tasks
    assert len(problems.warnings) == 2
    assert not problems.errors


def test_a_boolean_of_another_word_is_an_error() -> None:
    """R-PROP-5, T-17"""
    _, problems = parse('{"CLOUD_INIT": "maybe", "EXCLUDE_TASK_ADDSWAP": "sometimes"}')
    assert [line.partition(":")[0] for line in problems.errors] == [
        "property CLOUD_INIT",
        "property EXCLUDE_TASK_ADDSWAP",
    ]


def test_unknown_properties_are_kept_for_custom_tasks() -> None:
    """R-PROP-6"""
    properties, problems = parse('{"kernel": "6.1"}')
    assert not problems.errors
    assert not problems.warnings
    assert properties.unknown == ("KERNEL",)
    assert properties.merged == (("KERNEL", "6.1"),)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("PASWD_HASHING_METHOD", "PASSWD_HASHING_METHOD"),
        ("SWP", "SWAP"),
        ("USER", "USERS"),
        ("EXCLUDE_ALL_TASK", "EXCLUDE_ALL_TASKS"),
        ("EXCLUDE_TASKADDSWAP", "EXCLUDE_TASK_ADDSWAP"),
    ],
)
def test_a_property_one_letter_off_a_known_one(wrong: str, right: str) -> None:
    """R-PROP-6: stays usable, with a warning that names the known one."""
    properties, problems = parse(json.dumps({wrong: "1"}))
    assert not problems.errors
    assert len(problems.warnings) == 1
    assert f"did you mean {right}?" in problems.warnings[0]
    assert properties.unknown == (wrong,)


def test_exclusions() -> None:
    properties = good(
        EXCLUDE_TASK_AddSwap="yes", exclude_task_CHANGEPASSWORD=True, EXCLUDE_TASK_DELETESSHKEYS="no"
    )
    assert properties.exclude_tasks == {TaskName.ADD_SWAP, TaskName.CHANGE_PASSWORD}


def test_an_exclusion_of_no_task() -> None:
    """R-PROP-6: a warning that names the nearest one."""
    _, problems = parse('{"EXCLUDE_TASK_AdSwap": "yes", "EXCLUDE_TASK_X": "yes"}')
    assert not problems.errors
    assert problems.warnings == [
        "property EXCLUDE_TASK_ADSWAP names no task, did you mean AddSwap?",
        "property EXCLUDE_TASK_X names no task",
    ]


def test_a_task_that_cannot_be_excluded() -> None:
    """R-TASK-3: MountImage has no attribute E."""
    properties, problems = parse('{"EXCLUDE_TASK_MOUNTIMAGE": "yes"}')
    assert not properties.exclude_tasks
    assert "cannot be excluded alone" in problems.warnings[0]


def test_properties_of_other_families_are_ignored() -> None:
    """R-PROP-7: with a warning each."""
    problems = Problems()
    given = good(SWAP="2:512", MACHINE_ID="random", DO_SYNC="yes", OFFLINE_NTFSRESIZE="yes")
    windows = for_family(given, OsFamily.WINDOWS, problems)
    assert windows.swap is None
    assert windows.machine_id == "auto"
    assert windows.offline_ntfsresize is True
    assert windows.do_sync is True
    assert problems.warnings == [
        "property SWAP does not apply to windows images and is ignored",
        "property MACHINE_ID does not apply to windows images and is ignored",
    ]


def test_errors_do_not_stop_at_the_first() -> None:
    """R-OSP-16"""
    _, problems = parse('{"OSFAMILY": "linus", "ROOT_PARTITION": "0", "SWAP": "x:y"}')
    assert len(problems.errors) == 3


@pytest.mark.parametrize("value", ["IyEvYmluL3NoCg", "bm8gc2hlYmFuZw==", "", "!"])
def test_custom_task_must_be_a_program(value: str) -> None:
    """R-TASK-CUS-1; R-SEC-1: the error does not show it."""
    _, problems = parse(json.dumps({"CUSTOM_TASK": value}))
    assert len(problems.errors) == 1
    assert not value or value not in problems.errors[0]


@given(st.dictionaries(st.text(max_size=20), st.none() | st.booleans() | st.floats() | st.text(max_size=20)))
def test_whatever_is_given_ends_in_problems_at_most(values: dict[str, Any]) -> None:
    try:
        image = parse_object(json.dumps(values))
    except ParseError:
        return
    problems = Problems()
    parse_properties(image, {}, problems)
    assert all(line.isprintable() for line in (*problems.errors, *problems.warnings))
