"""Accounts in passwd and shadow."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.unix.accounts import change_shadow, check_user_names, find_accounts
from trees import GuestOf

TODAY = 20454
HASH = Secret("$6$new$hash")


def shadow(guest_of: GuestOf, old: str, *names: str) -> str:
    new, _ = change_shadow(guest_of({"/etc/shadow": old}).root, dict.fromkeys(names, HASH), TODAY)
    return new.decode()


def test_only_the_hash_and_its_day_change(guest_of: GuestOf) -> None:
    """T-79, R-TASK-PW-3: ageing is kept, the day is today."""
    old = "daemon:*:1:0:99999:7:::\nroot:$6$old:100:3:90:14:30:99999:flag\nbin:*:1:0:99999:7:::\n"
    new = "daemon:*:1:0:99999:7:::\nroot:$6$new$hash:20454:3:90:14:30:99999:flag\nbin:*:1:0:99999:7:::\n"
    assert shadow(guest_of, old, "root") == new


def test_the_line_keeps_its_place(guest_of: GuestOf) -> None:
    """T-80."""
    names = [line.partition(":")[0] for line in shadow(guest_of, "a:x:\nroot:x:\nb:x:\n", "root").split()]
    assert names == ["a", "root", "b"]


@pytest.mark.parametrize("name", ["a.b", "a*", "a[x]b", "^axb", "a+b", "a\\b", "roo", "ROOT"])
def test_names_are_no_patterns(guest_of: GuestOf, name: str) -> None:
    """T-81, R-TASK-PW-2: whole fields, also for what looks like one."""
    old = "axb:x:1::::::\nroot:x:1::::::\naab:x:1::::::\n"
    with pytest.raises(RequestError, match="not in /etc/shadow"):
        shadow(guest_of, old, name)
    assert shadow(guest_of, f"{old}{name}:x:1::::::\n", name) == f"{old}{name}:$6$new$hash:20454::::::\n"


def test_a_lock_mark_goes_with_the_old_hash(guest_of: GuestOf) -> None:
    """R-TASK-PW-3."""
    assert shadow(guest_of, "root:!$6$old:1:0:::::\n", "root") == "root:$6$new$hash:20454:0:::::\n"


def test_short_lines_and_a_missing_newline(guest_of: GuestOf) -> None:
    assert shadow(guest_of, "a:b\nroot:!", "root") == "a:b\nroot:$6$new$hash:20454::::::"
    assert shadow(guest_of, "root:x:1::::::\r\n", "root") == "root:$6$new$hash:20454::::::\r\n"


def test_of_two_lines_the_first_counts(guest_of: GuestOf) -> None:
    """R-TASK-PW-2: as for the C library."""
    assert shadow(guest_of, "root:a:1::::::\nroot:b:1::::::\n", "root").splitlines()[1] == "root:b:1::::::"


@pytest.mark.parametrize(
    ("expiry", "told"), [("20453", True), ("20454", True), ("20455", False), ("", False)]
)
def test_an_expired_account_is_told(guest_of: GuestOf, expiry: str, *, told: bool) -> None:
    """R-TASK-PW-3."""
    guest = guest_of({"/etc/shadow": f"root:x:1::::14:{expiry}:\n"})
    _, expired = change_shadow(guest.root, {"root": HASH}, TODAY)
    assert expired == (("root",) if told else ())


def test_every_missing_user_is_named(guest_of: GuestOf) -> None:
    """R-TASK-PW-2: with the file."""
    with pytest.raises(RequestError) as caught:
        shadow(guest_of, "root:x:\n", "root", "alice", "bob")
    assert caught.value.messages == (
        "user 'alice': not in /etc/shadow of the image",
        "user 'bob': not in /etc/shadow of the image",
    )


def test_no_shadow_is_an_error(guest_of: GuestOf) -> None:
    """R-TASK-PW-3."""
    with pytest.raises(ImageError, match=r"^/etc/shadow: missing"):
        change_shadow(guest_of({"/etc": None}).root, {"root": HASH}, TODAY)


def test_accounts_are_found_by_name(guest_of: GuestOf) -> None:
    """R-TASK-KEY-1: uid, gid and home; the first line of a name counts."""
    passwd = "root:x:0:0:root:/root:/bin/sh\nbob:*:1000:100:Bob:/home/bob\nbob:x:0:0::/:\n"
    found = find_accounts(guest_of({"/etc/passwd": passwd}).root, ["bob", "root"])
    assert (found["bob"].uid, found["bob"].gid, found["bob"].home) == (1000, 100, "/home/bob")
    assert (found["bob"].shadowed, found["root"].shadowed) == (False, True)


@pytest.mark.parametrize(
    "line", ["bob:x:1000\n", "bob:x:-1:0::/:/\n", "bob:x:4294967295:0::/:\n", "bob:x:a:b::/:\n"]
)
def test_a_malformed_account_is_an_error(guest_of: GuestOf, line: str) -> None:
    with pytest.raises(ImageError, match="malformed"):
        find_accounts(guest_of({"/etc/passwd": line}).root, ["bob"])


@pytest.mark.parametrize("name", ["", "a:b", "a/b", "a b", "a\tb", "a\n", "a\x7f", "a\x85", "../x"])
def test_names_that_no_account_has(name: str) -> None:
    """R-TASK-PW-1."""
    with pytest.raises(RequestError, match=r"^user name "):
        check_user_names([name])


def test_names_that_accounts_have() -> None:
    """R-TASK-PW-1."""
    check_user_names(["root", "a.b", "Jürgen", "x$", "-odd"])


def test_100000_users_are_quick_and_small(guest_of: GuestOf) -> None:
    """A large file is gone through once: about a second at most and a few times its size."""
    count = 100_000
    passwd = "".join(
        f"user{number}:x:{number}:100:User:/home/user{number}:/bin/sh\n" for number in range(count)
    )
    lines = "".join(f"user{number}:!:19000:0:99999:7:::\n" for number in range(count))
    guest = guest_of({"/etc/passwd": passwd, "/etc/shadow": lines})
    tracemalloc.start()
    begun = time.process_time()
    found = find_accounts(guest.root, [f"user{count - 1}", "user0"])
    new, _ = change_shadow(guest.root, {f"user{count - 1}": HASH}, TODAY)
    seconds = time.process_time() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[f"user{count - 1}"].uid == count - 1
    assert new.endswith(b"user99999:$6$new$hash:20454:0:99999:7:::\n")
    assert seconds < 5
    assert peak < 64 << 20
