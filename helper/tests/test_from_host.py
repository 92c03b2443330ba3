"""What the host says on the port of the helper's events."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from snf_image_contract.codec import ContractError
from snf_image_contract.job import SLOTS_FILLED, HostKey, HostKeys, dump_host_keys
from snf_image_contract.secret import Secret
from snf_image_helper.errors import TaskError
from snf_image_helper.from_host import FromHost

KEYS = (HostKey(type="rsa", private=Secret("P" * 3000), public="ssh-rsa A r@web1"),)
LINE = dump_host_keys(HostKeys(keys=KEYS))


@pytest.fixture
def port() -> Iterator[tuple[FromHost, int]]:
    reading, writing = os.pipe()
    yield FromHost(reading), writing
    os.close(reading)
    os.close(writing)


def test_an_empty_line_asks_and_nothing_else_does(port: tuple[FromHost, int]) -> None:
    """R-HLP-14."""
    host, writing = port
    assert not host.asks(0)
    os.write(writing, b"\n\n")
    assert host.asks(0)
    assert not host.asks(0)
    os.write(writing, LINE)
    assert not host.asks(0)
    assert not host.slots_filled


@pytest.mark.parametrize("said", [LINE + SLOTS_FILLED, SLOTS_FILLED + LINE, b"\n" + SLOTS_FILLED + LINE])
def test_what_comes_at_once_is_told_apart(port: tuple[FromHost, int], said: bytes) -> None:
    """R-HLP-4, R-TASK-SSH-2: in any order, and in pieces."""
    host, writing = port
    for piece in (said[:100], said[100:2000], said[2000:]):
        os.write(writing, piece)
        host.asks(0)
    assert host.slots_filled
    assert host.host_keys(0) == KEYS


def test_keys_that_do_not_come_are_an_error_in_time(port: tuple[FromHost, int]) -> None:
    """R-TASK-SSH-2: the deployment fails rather than wait for ever."""
    host, writing = port
    os.write(writing, LINE[:-1])
    with pytest.raises(TaskError, match="did not arrive"):
        host.host_keys(0.05)


def test_no_more_is_read_than_keys_can_take(port: tuple[FromHost, int]) -> None:
    """R-SEC-1: bounded, as everything that is received."""
    host, writing = port
    for _ in range(17):
        os.write(writing, b"x" * 4096)
        host.asks(0)
    with pytest.raises(TaskError, match="did not arrive"):
        host.host_keys(60)


def test_a_line_that_holds_no_keys_is_an_error(port: tuple[FromHost, int]) -> None:
    host, writing = port
    os.write(writing, b"keys\n")
    with pytest.raises(ContractError):
        host.host_keys(1)
