"""Parsers of single values."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_contract.job import SwapDisk, SwapPartition
from snf_image_host.parameters import values
from snf_image_host.parameters.nearest import nearest
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.parameters.property_table import PROPERTIES
from snf_image_host.parameters.urls import parse_url, redact_url


@pytest.mark.parametrize("word", ["yes", "TRUE", " on ", "1", "Set", "\tyes\n"])
def test_true_words(word: str) -> None:
    """R-PROP-5: any letter case, blanks around it ignored."""
    assert values.parse_boolean(word) is True


@pytest.mark.parametrize("word", ["no", "False", "OFF", "0", " unset"])
def test_false_words(word: str) -> None:
    """R-PROP-5"""
    assert values.parse_boolean(word) is False


@pytest.mark.parametrize("word", ["", "y", "maybe", "yes!", "2", "ja", "truee", "y e s"])
def test_other_words_are_no_boolean(word: str) -> None:
    """R-PROP-5, T-17: there is no guessing."""
    with pytest.raises(ParseError, match="must be yes"):
        values.parse_boolean(word)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 << 30), ("512M", 512 << 20), ("1.5k", 1536), ("10GiB", 10 << 30), ("7", 7), ("2 TB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "0", "1e3", "4X", "1.5", "9" * 21, "9999999P", "0x10", "4G4"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ParseError):
        values.parse_size(text)


def test_a_disk_has_whole_sectors() -> None:
    assert values.parse_disk_size("1K") == 1024
    with pytest.raises(ParseError, match="multiple of 512"):
        values.parse_disk_size("1000")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("2m", 120), ("1.5h", 5400), ("1d", 86400), ("0", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    """R-CONF-8"""
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1 s", "-1", "1w", "1m30s", ".5", "5.", "1e3", "1S", "٣"])
def test_no_durations(text: str) -> None:
    """R-CONF-8"""
    with pytest.raises(ParseError, match="must be a time"):
        values.parse_duration(text)


def test_swap_grammar() -> None:
    """R-TASK-SWAP-1: a partition with its size, or the letter of a disk; all 26 letters count."""
    assert values.parse_swap("5:512") == SwapPartition(number=5, megabytes=512)
    assert values.parse_swap("a") == SwapDisk(index=0)
    assert values.parse_swap("I") == SwapDisk(index=8)
    assert values.parse_swap("z") == SwapDisk(index=25)


@pytest.mark.parametrize(
    "text", ["", "0:512", "2:0", "2:", ":512", "ab", "2:512 ", "02:512", "2:512\n", "2:1G", "é"]
)
def test_swap_refuses_other_text(text: str) -> None:
    """R-TASK-SWAP-1"""
    with pytest.raises(ParseError, match="must be <partition number>"):
        values.parse_swap(text)


@pytest.mark.parametrize("text", ["2000:1", "1:99999999999", "9" * 12 + ":1"])
def test_swap_refuses_absurd_numbers(text: str) -> None:
    with pytest.raises(ParseError, match="at most"):
        values.parse_swap(text)


def test_mac_is_written_lower_case_with_colons() -> None:
    """R-NET-1"""
    assert values.parse_mac("AA-00-00-12-34-5F") == "aa:00:00:12:34:5f"


@pytest.mark.parametrize(
    "text", ["", "aa:00:00:12:34", "aa:00:00:12:34:5g", "aa0000123456", "aa:00:00:12:34:56:78"]
)
def test_no_mac(text: str) -> None:
    """R-NET-1"""
    with pytest.raises(ParseError):
        values.parse_mac(text)


def test_subnets_need_a_prefix_and_ignore_host_bits() -> None:
    """R-NET-1"""
    assert str(values.parse_ipv4_network("192.0.2.10/24")) == "192.0.2.0/24"
    assert str(values.parse_ipv6_network("2001:db8::1/64")) == "2001:db8::/64"
    for parse, text in [
        (values.parse_ipv4_network, "192.0.2.0"),
        (values.parse_ipv4_network, "192.0.2.0/33"),
        (values.parse_ipv6_network, "2001:db8::"),
        (values.parse_ipv6_network, "192.0.2.0/24"),
    ]:
        with pytest.raises(ParseError, match="subnet"):
            parse(text)


def test_addresses_are_of_their_family() -> None:
    """R-NET-1"""
    assert str(values.parse_ipv4("192.0.2.1")) == "192.0.2.1"
    assert str(values.parse_ipv6("2001:DB8::1")) == "2001:db8::1"
    for parse, text in [
        (values.parse_ipv4, "2001:db8::1"),
        (values.parse_ipv4, "1.2.3"),
        (values.parse_ipv6, "192.0.2.1"),
        (values.parse_address, "example.org"),
    ]:
        with pytest.raises(ParseError):
            parse(text)


@given(st.binary(max_size=200), st.integers(1, 76))
def test_base64_round_trip_with_white_space(data: bytes, width: int) -> None:
    """R-PERS-3, R-OSP-11: white space is tolerated."""
    text = base64.b64encode(data).decode()
    folded = "\r\n ".join(text[i : i + width] for i in range(0, len(text), width))
    assert values.parse_base64(folded) == data
    assert values.encode_base64(data) == text


@pytest.mark.parametrize("text", ["a", "aGk", "aGk=x", "aGk==", "=aGk", "a-_b", "aGé=", "====", "YQ=="[:3]])
def test_base64_is_strict(text: str) -> None:
    """R-PERS-3: a decoding failure is an error, and does not show the text."""
    with pytest.raises(ParseError) as caught:
        values.parse_base64(text)
    assert str(caught.value) == "not valid base64"
    assert not caught.value.echo


@pytest.mark.parametrize("name", ["web1", "WEB-1.example.org", "a", "1", "a" * 254, "web_1"])
def test_hostnames(name: str) -> None:
    """R-TASK-HOST-1, D-24"""
    assert values.parse_hostname(name) == name


@pytest.mark.parametrize(
    "name", ["", "-web", "web-", ".web", "web.", "_web", "a b", "a" * 255, "wéb", "a/b", "$(x)"]
)
def test_no_hostnames(name: str) -> None:
    """R-TASK-HOST-1"""
    with pytest.raises(ParseError, match="must be at most 254"):
        values.parse_hostname(name)


@pytest.mark.parametrize("name", ["web\n", "web\nroot:x", "web\r"])
def test_a_hostname_with_a_newline(name: str) -> None:
    """R-TASK-HOST-1"""
    with pytest.raises(ParseError, match="must be one line"):
        values.parse_hostname(name)


def test_uid_ranges() -> None:
    """D-7: never a system account."""
    assert values.parse_uid_range("2100000000-2100065535") == (2100000000, 2100065535)
    for text in ("", "0-10", "999-2000", "5000-4000", "1000", "1000-4294967295", "a-b"):
        with pytest.raises(ParseError):
            values.parse_uid_range(text)


def test_problems_escape_and_cut_what_they_show() -> None:
    """R-OSP-16: one line each."""
    problems = Problems()
    problems.parse("X", values.parse_boolean, "a\nb\x1b[31m" + "c" * 500)
    [line] = problems.errors
    assert line.isprintable()
    assert len(line) < 200
    assert "X: must be yes" in line
    assert shown("a\nb") == r"'a\nb'"


def test_problems_never_show_a_secret() -> None:
    """R-SEC-1"""
    problems = Problems()
    problems.parse("X", values.parse_boolean, "hunter2", secret=True)
    assert "hunter2" not in problems.errors[0]


def _edits(word: str) -> st.SearchStrategy[str]:
    at = st.integers(0, len(word) - 1)
    return st.one_of(
        at.map(lambda i: word[:i] + word[i + 1 :]),
        at.map(lambda i: word[:i] + "Q" + word[i + 1 :]),
        at.map(lambda i: word[:i] + "Q" + word[i:]),
    )


@given(st.data())
def test_a_name_one_letter_off_is_recognised(data: st.DataObject) -> None:
    """D-31: for every property, whichever letter is left out, wrong or too many."""
    name = data.draw(st.sampled_from([row.name for row in PROPERTIES]))
    wrong = data.draw(_edits(name))
    assert nearest(wrong, [row.name for row in PROPERTIES]) is not None
    assert nearest(wrong, [name]) == name


def test_nothing_near_is_nothing() -> None:
    assert nearest("KERNEL", [row.name for row in PROPERTIES]) is None


SCHEMES = ("https", "http", "ftps", "ftp")


@pytest.mark.parametrize("url", ["https://example.org/x", "HTTP://[2001:db8::1]:8080/", "ftp://u:p@h/x?y#z"])
def test_urls(url: str) -> None:
    """R-FETCH-1"""
    assert parse_url(url, schemes=SCHEMES) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://h/a -o/etc/x",
        "http://h/a\nHost: x",
        "http://h\\@evil/",
        "http:///x",
        "http://",
        "file:///etc/shadow",
        "gopher://h/",
        "h/x",
        "-o/etc/x",
        "http://h:99999/",
        "http://[::1/",
        "http://h/\u00a0x",
        "http://h/" + "x" * 5000,
    ],
)
def test_no_urls(url: str) -> None:
    """R-FETCH-1, T-1: nothing that could become an option of a program, no other scheme, always a host."""
    with pytest.raises(ParseError) as caught:
        parse_url(url, schemes=SCHEMES)
    assert not caught.value.echo


def test_urls_are_shown_without_what_is_secret() -> None:
    """R-SEC-2: user-info, query and fragment are left out."""
    assert redact_url("https://u:p@h:8080/x?token=1#f") == "https://h:8080/x"
    assert redact_url("local://debian") == "local://debian"
    assert redact_url("debian.diskdump") == "debian.diskdump"
    assert redact_url("http://[::1") == "<invalid URL>"
    # What is no proper URL, or of a scheme that nobody knows, can have something secret all the same.
    assert redact_url("https:/u:p@h/x?token=1") == "https:/h/x"
    assert redact_url("https:u:p@h/x#f") == "https:h/x"
    assert redact_url("rbd:pool/image@snapshot") == "rbd:pool/image@snapshot"
    assert redact_url("//u:p@h/x?token=1") == "//h/x"
    assert redact_url("local:///a/b") == "local:///a/b"
    assert redact_url("rbd:///u:p@h/x") == "rbd:///h/x"
