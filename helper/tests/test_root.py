"""The door to the untrusted tree."""

from __future__ import annotations

from trees import GuestOf, changes, content


def test_a_file_is_created_and_recorded(guest_of: GuestOf) -> None:
    """R-TASK-6: a new file gets the stated attributes, and the receipt hears of it."""
    guest = guest_of({"/etc": None})
    guest.root.write("/etc/hostname", b"web1\n")
    assert content(guest, "/etc/hostname") == b"web1\n"
    assert changes(guest) == [("created", "/etc/hostname")]
