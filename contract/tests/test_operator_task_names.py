"""Names of the tasks that operators add, and their places among the built-in ones."""

from __future__ import annotations

import pytest

from snf_image_contract.codec import ContractError
from snf_image_contract.events import OperatorTaskEnded, OperatorTaskStarted, decode_event, encode_event
from snf_image_contract.names import (
    MAX_OPERATOR_TASK_NAME,
    TaskName,
    is_operator_task,
    operator_task_place,
    runs_mounted,
)
from snf_image_contract.programs import interpreter

LONGEST = "x" * MAX_OPERATOR_TASK_NAME


@pytest.mark.parametrize("file", ["55InstallAgent", "00a", "99Z9", f"10{LONGEST}"])
def test_a_file_has_a_number_and_a_name(file: str) -> None:
    """D-34."""
    assert operator_task_place(file) == (int(file[:2]), file[2:])


@pytest.mark.parametrize(
    "file",
    [
        "", "5", "55", "5Agent", "555", "Agent", "55install-agent", "55a.sh", "55a/b", "55a\n", "55é", "²²a",
        "\u0665\u0665a", f"10{LONGEST}x", "50AddSwap", "12addswap", "99UMOUNTIMAGE",
    ],
)  # fmt: skip
def test_any_other_name_is_none_of_a_task(file: str) -> None:
    """D-34: nor is that of a built-in task, whatever its number and letter case."""
    assert operator_task_place(file) is None


def test_the_built_in_tasks_are_in_the_order_of_their_places() -> None:
    """R-TASK-1: number, then name in byte order."""
    assert sorted(TaskName, key=lambda task: task.place) == list(TaskName)


@pytest.mark.parametrize(
    ("file", "mounted"),
    [
        ("00a", False), ("29z", False), ("30Mount", False), ("30MountImages", True), ("30a", True),
        ("55a", True), ("79z", True), ("80Umount", True), ("80UmountImages", False), ("81a", False),
    ],
)  # fmt: skip
def test_the_place_tells_whether_the_image_is_mounted(file: str, *, mounted: bool) -> None:
    """R-TASK-1."""
    place = operator_task_place(file)
    assert place is not None
    assert runs_mounted(place) is mounted


@pytest.mark.parametrize("name", ["", "AddSwap", "a" * 65, "a b", "a\x1b[2J", "9a", "ä"])
def test_a_helper_cannot_say_any_other_name(name: str) -> None:
    """D-6: the events' names are bounded and of letters and digits."""
    assert not is_operator_task(name)
    for event in (OperatorTaskStarted(task=name), OperatorTaskEnded(task=name, seconds=0)):
        with pytest.raises(ContractError, match="must be the name of an operator's task"):
            decode_event(encode_event(event, 0), 0)


def test_the_interpreters_are_those_of_the_helper() -> None:
    """R-TASK-CUS-1."""
    assert interpreter(b"#!/bin/sh -e\ntrue\n") == ["/bin/sh", "-e"]
    assert interpreter(b"#! /usr/bin/env python3\n") == ["/usr/bin/python3"]
    with pytest.raises(ValueError, match="'/usr/bin/perl' is none of /bin/sh"):
        interpreter(b"#!/usr/bin/perl\n")
