"""Editing of text configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_helper.edit import (
    Lines,
    assignments,
    fields,
    parse_assignment,
    set_assignments,
    shell_quoted,
)
from snf_image_helper.errors import ImageError


def set_one(data: bytes, key: bytes, value: bytes, *, quoted: bool = False, any_case: bool = False) -> bytes:
    return set_assignments(data, {key: value}, quoted=quoted, any_case=any_case, path="/etc/f")


@given(st.binary())
def test_an_unedited_file_stays_byte_for_byte(data: bytes) -> None:
    """R-TASK-9: any bytes, any line ends."""
    assert Lines(data).data() == data


@given(st.binary())
def test_any_line_is_parsed_or_refused_but_never_changed(line: bytes) -> None:
    """R-TASK-10: parsing ends for any input, and the parts of an assignment are the line."""
    line = line.replace(b"\n", b"")
    try:
        found = parse_assignment(line)
    except ImageError:
        return
    if found is not None:
        assert found.before + found.key + b"=" + found.word + found.after == line


@given(st.binary().filter(lambda value: b"\n" not in value and b"\0" not in value))
def test_a_quoted_value_reads_back(value: bytes) -> None:
    """R-TASK-9: values are written with the quoting of the file's grammar."""
    found = parse_assignment(b"KEY=" + shell_quoted(value) + b" # comment")
    assert found is not None
    assert (found.value, found.after) == (value, b" # comment")


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (b"A=b", b"A", b"b"),
        (b"  \tA_1=b", b"A_1", b"b"),
        (b"export A=b; export B", b"A", b"b"),
        (b"A=", b"A", b""),
        (b'A=\'b c\'"d \\"e"\\ f # g', b"A", b'b cd "e f'),
        (b'A="$(touch /x)`id`"', b"A", b"$(touch /x)`id`"),
        (b'A="a\\nb"', b"A", b"a\\nb"),
    ],
)
def test_values_are_read_as_a_shell_would_but_not_evaluated(line: bytes, key: bytes, value: bytes) -> None:
    """R-TASK-10: quotes are taken off; substitutions stay text."""
    found = parse_assignment(line)
    assert found is not None
    assert (found.key, found.value) == (key, value)


@pytest.mark.parametrize("line", [b"", b"#A=b", b"A b=c", b"1A=b", b"A =b", b"A+=b", b"[section]", b"=b"])
def test_other_lines_assign_nothing(line: bytes) -> None:
    assert parse_assignment(line) is None


@pytest.mark.parametrize("line", [b'A="b', b"A='b", b"A=b\\", b'A="b\\"'])
def test_a_value_that_goes_on_on_the_next_line_is_refused(line: bytes) -> None:
    with pytest.raises(ImageError, match="does not end on its line"):
        parse_assignment(line)
    with pytest.raises(ImageError, match=r"^/etc/f: "):
        set_one(line + b"\n", b"A", b"x")


def test_a_key_is_matched_whole_and_in_its_place() -> None:
    """T-95, R-TASK-9: keys are never matched as substrings."""
    before = b"DHCP_HOSTNAME=old\n#HOSTNAME=old\nHOSTNAMES=old\n  HOSTNAME=old # why\nX=1"
    after = b"DHCP_HOSTNAME=old\n#HOSTNAME=old\nHOSTNAMES=old\n  HOSTNAME=new # why\nX=1"
    assert set_one(before, b"HOSTNAME", b"new") == after


def test_a_missing_key_is_added_after_a_missing_newline() -> None:
    """R-TASK-9: nothing is glued to an unterminated last line."""
    assert set_one(b"A=1", b"B", b"2") == b"A=1\nB=2\n"
    assert set_one(b"", b"B", b"2") == b"B=2\n"


def test_line_ends_are_kept() -> None:
    """R-TASK-9: CRLF in, CRLF out, for the edited and for the added line."""
    assert set_one(b"A=1\r\nC=3", b"A", b"2") == b"A=2\r\nC=3"
    assert set_one(b"A=1\r\nC=3", b"B", b"2") == b"A=1\r\nC=3\r\nB=2\r\n"


def test_of_duplicates_the_last_keeps_its_place() -> None:
    assert set_one(b"A=1\nB=1\nA=2\nC=1\n", b"A", b"3") == b"B=1\nA=3\nC=1\n"


def test_quotes_of_the_file_are_kept_and_needed_ones_added() -> None:
    assert set_one(b'A="1"\n', b"A", b"2") == b'A="2"\n'
    assert set_one(b"A=1\n", b"A", b'a b"$') == b'A="a b\\"\\$"\n'
    assert set_one(b"A=1\n", b"A", b"2", quoted=True) == b'A="2"\n'
    assert set_one(b"A=1\n", b"A", b"") == b'A=""\n'


def test_any_case_keeps_the_spelling_of_the_file() -> None:
    assert set_one(b'HOSTNAME="a"\nhostname="b"\n', b"hostname", b"c", any_case=True) == b'hostname="c"\n'
    assert set_one(b'HOSTNAME="a"\n', b"hostname", b"c", any_case=True) == b'HOSTNAME="c"\n'


def test_reading_keeps_the_last_value() -> None:
    assert assignments(b"A=1\nA='2'\nB=\"open\nC=3\n") == {b"A": b"2", b"C": b"3"}


def test_inserting_and_removing() -> None:
    lines = Lines(b"a\nb")
    lines.insert(1, b"x")
    lines.append(b"y")
    lines.remove(0)
    assert (list(lines), len(lines), lines[0]) == ([b"x", b"b", b"y"], 3, b"x")
    assert lines.data() == b"x\nb\ny\n"


def test_a_line_cannot_smuggle_in_another() -> None:
    """R-TASK-9: text of the host is one line or it is refused."""
    with pytest.raises(ValueError, match="newline"):
        Lines(b"").append(b"a\nb")


def test_fields_leave_comments_out() -> None:
    assert fields(b"127.0.1.1\told  name # why") == [b"127.0.1.1", b"old", b"name"]


def test_a_file_of_too_many_lines_is_refused() -> None:
    """Memory of the helper is bounded whatever the image holds."""
    with pytest.raises(ImageError, match="more than 1000000 lines"):
        Lines(b"\n" * 1_000_000)
    with pytest.raises(ImageError, match=r"^/setup\.cmd: more than 1000000 lines"):
        Lines(b"\n" * 1_000_000, "/setup.cmd")


def test_a_long_hostile_line_takes_no_longer_than_its_length() -> None:
    with pytest.raises(ImageError):
        parse_assignment(b'A="' + b"\\a" * 1_000_000)
