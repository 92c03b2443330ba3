"""The configuration of the guest's sshd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_helper.unix.sshd_config import (
    Directive,
    all_values,
    directives,
    expand,
    first_value,
    parse_line,
)
from trees import GuestOf, Link, Tree, warnings

CONFIG = "/etc/ssh/sshd_config"


def read(guest_of: GuestOf, tree: Tree) -> tuple[Directive, ...]:
    guest = guest_of(tree)
    found = directives(guest.root, guest.warn)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("line", "keyword", "arguments"),
    [
        (b"Port 22", "port", ("22",)),
        (b"  AUTHORIZEDKEYSFILE\t.a  .b ", "authorizedkeysfile", (".a", ".b")),
        (b"HostKey=/etc/k", "hostkey", ("/etc/k",)),
        (b"HostKey = /etc/k", "hostkey", ("/etc/k",)),
        (b'AuthorizedKeysFile "a b" c', "authorizedkeysfile", ("a b", "c")),
        (b"AuthorizedKeysFile 'a b'", "authorizedkeysfile", ("a b",)),
        (b'AuthorizedKeysFile "a\\"b"', "authorizedkeysfile", ('a"b',)),
        (b"HostKey /a # comment", "hostkey", ("/a",)),
        (b"HostKey /a#b\r", "hostkey", ("/a#b",)),
        (b"AuthorizedKeysFile $(touch /x)`id`", "authorizedkeysfile", ("$(touch", "/x)`id`")),
    ],
)
def test_lines_are_read_as_sshd_reads_them(line: bytes, keyword: str, arguments: tuple[str, ...]) -> None:
    """R-TASK-KEY-1, T-86: keyword in any case, quotes, comments; nothing is evaluated."""
    assert parse_line(line) == Directive(keyword, arguments)


@pytest.mark.parametrize(
    "line", [b"", b"  ", b"# HostKey /a", b"HostKey", b"HostKey ", b'HostKey "/a', b"HostKey # x"]
)
def test_lines_that_say_nothing(line: bytes) -> None:
    assert parse_line(line) is None


@given(st.binary())
def test_any_line_is_read_or_left_out(line: bytes) -> None:
    found = parse_line(line)
    assert found is None or found.arguments


def test_included_files_count_where_they_are_included(guest_of: GuestOf) -> None:
    """T-87, R-TASK-KEY-1: in byte order, relative names below /etc/ssh, first value first."""
    found = read(
        guest_of,
        {
            CONFIG: "A 1\nInclude sshd_config.d/*.conf /etc/more\nA 5\n",
            "/etc/ssh/sshd_config.d/20.conf": "A 3\n",
            "/etc/ssh/sshd_config.d/10.conf": "A 2\n",
            "/etc/ssh/sshd_config.d/.hidden.conf": "A x\n",
            "/etc/ssh/sshd_config.d/30.off": "A y\n",
            "/etc/more": "A 4\n",
        },
    )
    assert all_values(found, "A") == ("1", "2", "3", "4", "5")
    assert first_value(found, "a") == ("1",)


def test_match_blocks_are_left_out(guest_of: GuestOf) -> None:
    """R-TASK-KEY-1: a block ends with its file, and includes within it are part of it."""
    found = read(
        guest_of,
        {
            CONFIG: "Include a\nA 2\nMatch User x\n A 3\n Include b\nMatch all\nA 5\n",
            "/etc/ssh/a": "A 1\nmatch all\nA 0\n",
            "/etc/ssh/b": "A 4\n",
        },
    )
    assert all_values(found, "A") == ("1", "2")


def test_vendors_configuration_where_there_is_no_other(guest_of: GuestOf) -> None:
    """R-TASK-KEY-1."""
    vendor = "/usr/etc/ssh/sshd_config"
    assert all_values(read(guest_of, {vendor: "A vendor\n"}), "A") == ("vendor",)
    assert all_values(read(guest_of, {vendor: "A vendor\n", CONFIG: "A own\n"}), "A") == ("own",)
    guest = guest_of({"/etc": None})
    assert directives(guest.root, guest.warn) is None


def test_files_that_include_each_other_end(guest_of: GuestOf) -> None:
    """A hostile configuration takes neither time nor memory."""
    guest = guest_of({CONFIG: "Include *\nA 1\n", "/etc/ssh/a": "Include *\n", "/etc/ssh/b": "Include *\n"})
    found = directives(guest.root, guest.warn)
    assert found is not None
    assert len(found) < 300
    assert len(warnings(guest)) == 1


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/etc/*/x", ["/etc/a/x", "/etc/b/x"]),
        ("/etc/[b-c]/?", ["/etc/b/x"]),
        ("/etc/a", []),
        ("/none/*/x", []),
        ("/link/x", ["/link/x"]),
        ("/etc/a/[", []),
        ("/etc/.*/x", ["/etc/.c/x"]),
    ],
)
def test_patterns_of_file_names(guest_of: GuestOf, pattern: str, found: list[str]) -> None:
    """R-TASK-KEY-1: as glob(7), and never out of the image."""
    tree: Tree = {"/etc/a/x": "", "/etc/b/x": "", "/etc/.c/x": "", "/link": Link("/etc/a")}
    assert expand(guest_of(tree).root, pattern) == found


def test_a_pattern_with_many_stars_ends(guest_of: GuestOf) -> None:
    """A value of the image costs no exponential time."""
    guest = guest_of({"/etc/" + "a" * 200: ""})
    assert expand(guest.root, "/etc/" + "a*" * 60 + "b") == []
