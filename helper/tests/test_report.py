"""What the helper says fits its lines, whatever an image holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snf_image_contract.events import (
    MAX_LINE,
    MAX_TEXT,
    Failed,
    FoundUsers,
    Warned,
    decode_event,
    encode_event,
)
from snf_image_contract.names import TaskName
from snf_image_helper import inspection
from snf_image_helper.report import Reporter, clip_all
from trees import GuestOf


@pytest.mark.parametrize(
    "text", ["x" * 9000, "\x01" * 9000, "\U0001f600" * 9000, "\udcff" * 9000, "user 'a': no"]
)
def test_any_number_of_causes_fits_one_event(text: str) -> None:
    """D-6, R-MON-6: the causes that fit are there, each by itself; the others are counted."""
    causes = clip_all([text] * 20_000)
    assert len(encode_event(Failed(blame="image", messages=causes), 0)) <= MAX_LINE
    assert causes[-1] == f"and {20_001 - len(causes)} more like these"
    assert clip_all(["a", "b"]) == ("a", "b")


def test_users_with_hostile_names_fit_their_events(guest_of: GuestOf) -> None:
    """D-6: long lists are split over events; D-28."""
    names = [f"{number:03}" + "\x01" * 400 for number in range(150)]
    guest = guest_of(
        {
            "/etc/passwd": "".join(f"{name}:x:0:0::/:/bin/sh\n" for name in names),
            "/etc/shadow": "".join(f"{name}:*:::::::\n" for name in names),
        }
    )
    events = inspection._users(guest.root)
    assert all(len(encode_event(event, 0)) <= MAX_LINE for event in events)
    told = [name[:3] for event in events for name in event.users]
    assert told == [name[:3] for name in names[: inspection.MAX_USERS]]
    assert sum(event.more for event in events) == 50
    assert inspection._users(guest_of({}).root) == (FoundUsers(users=()),)


@given(text=st.text(st.characters(), max_size=300), times=st.integers(1, 40))
@example(text="\udcff\x00\n", times=1)
@example(text="\U0001f600", times=MAX_TEXT)
@example(text="\x01", times=MAX_TEXT + 1)
def test_a_warning_is_never_a_failure(text: str, times: int) -> None:
    """T-126: whatever stands in it, it is one event that the host can read."""
    lines: list[bytes] = []
    reporter = Reporter(lines.append)
    reporter.begin(TaskName.ADD_SWAP)
    reporter.warn(text * times)
    (line,) = lines
    event = decode_event(line, 0)
    assert isinstance(event, Warned)
    assert event.task is TaskName.ADD_SWAP
    assert len(event.message) <= MAX_TEXT
    assert event.message.encode("utf-8").startswith(text.encode("utf-8", "backslashreplace")[:100])


def calls_of_warn() -> Iterator[ast.Call]:
    for path in sorted(Path(inspection.__file__).parent.rglob("*.py")):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        yield from (call for call in calls if ast.unparse(call.func).endswith(".warn"))


def test_every_warning_goes_the_one_way() -> None:
    """T-126: what warns is a reporter, or a guest that hands on to it; both take one text, nothing else."""
    calls = list(calls_of_warn())
    assert len(calls) > 50
    assert {(len(call.args), len(call.keywords)) for call in calls} == {(1, 0)}
    receivers = {ast.unparse(call.func).removesuffix(".warn") for call in calls}
    assert receivers == {"guest", "report", "self.report", "machine.report"}
