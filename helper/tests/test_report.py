"""What the helper says fits its lines, whatever an image holds."""

from __future__ import annotations

import pytest

from snf_image_contract.events import MAX_LINE, Failed, FoundUsers, encode_event
from snf_image_helper import inspection
from snf_image_helper.report import clip_all
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
