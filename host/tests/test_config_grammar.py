"""The grammar of configuration files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_host.configuration.grammar import parse_assignments


def values(text: str) -> dict[str, str]:
    entries = parse_assignments(text)
    assert all(entry.error is None for entry in entries), entries
    return {entry.name or "": entry.value or "" for entry in entries}


def errors(text: str) -> list[tuple[int, str | None]]:
    return [(entry.line, entry.name) for entry in parse_assignments(text) if entry.error is not None]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("  export  A=b", "b"),
        ("A=", ""),
        ("A= # nothing", ""),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=b\t ", "b"),
        (r"A=a\ b\#c", "a b#c"),
        ("A='a $b `c` \\ \"'", 'a $b `c` \\ "'),
        ("A='two\nlines'", "two\nlines"),
        ('A="two\nlines"', "two\nlines"),
        (
            r'A="\" \\ \$ \` \n \a"',
            r"\" \\ \$ \` \n \a".replace('\\"', '"')
            .replace("\\\\", "\\")
            .replace("\\$", "$")
            .replace("\\`", "`"),
        ),
        ('A="a\\\nb"', "ab"),
        ("A=a\\\nb", "ab"),
        ("A=a'b'\"c\"d", "abcd"),
        ("A=$HOME_X", "x"),
        ("A=${HOME_X}y", "xy"),
        ('A="$HOME_X/y"', "x/y"),
        ("A='$HOME_X'", "$HOME_X"),
        ("A=*?[x]{a,b}", "*?[x]{a,b}"),
        ("A=a~b", "a~b"),
        ("A=b\r", "b"),
    ],
)
def test_values(text: str, value: str) -> None:
    """R-CONF-2, R-CONF-3, R-CONF-4"""
    assert values(f"HOME_X=x\n{text}\n")["A"] == value


@pytest.mark.parametrize(
    "line",
    [
        "A=$(touch /f)",
        "A=`touch /f`",
        'A="$(touch /f)"',
        'A="`touch /f`"',
        "A=${B:-y}",
        "A=${B}",
        "A=$B",
        "A=$1",
        "A=$$",
        "A=$'x'",
        "A=a$",
        "A+=b",
        "A=(b c)",
        "A[0]=b",
        "A =b",
        "A= b",
        "A=b c",
        "A=b; touch /f",
        "A=b&",
        "A=b|c",
        "A=<(x)",
        "A=~/x",
        "A=x:~/y",
        "A='unfinished",
        'A="unfinished',
    ],
)
def test_lines_that_are_refused(line: str) -> None:
    """R-CONF-4, T-5: nothing is executed or guessed; the line is named and the rest is read."""
    text = f"# comment\n\n{line}\nZ=z\n"
    assert errors(text) == [(3, "A")]
    assert [entry.value for entry in parse_assignments(text) if entry.name == "Z"] == ["z"]


@pytest.mark.parametrize(
    "line", ["if [ -f /x ]; then", ". /etc/other", "A", "1A=b", "A-B=c", "export A", "=b", "'A'=b"]
)
def test_lines_that_are_no_assignment(line: str) -> None:
    """R-CONF-4"""
    [entry] = parse_assignments(f"{line}\n")
    assert entry.line == 1
    assert entry.value is None
    assert "not an assignment" in (entry.error or "")


def test_a_back_slash_at_the_end_of_the_file() -> None:
    assert errors("A=b\\") == [(1, "A")]


def test_a_key_is_known_only_after_its_assignment() -> None:
    """R-CONF-4: in the same file, with the value it has there."""
    assert values("A=1\nB=$A\nA=2\nC=$A\n") == {"A": "2", "B": "1", "C": "2"}
    assert errors("B=$A\nA=1\n") == [(1, "B")]


def test_repeated_keys_stay_in_order() -> None:
    """R-CONF-5"""
    assert [entry.value for entry in parse_assignments("A=1\nA=2\n")] == ["1", "2"]


@given(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=60))
def test_a_quoted_text_comes_back(text: str) -> None:
    """R-CONF-3: what is quoted as for a shell is read as it was."""
    single = "'" + text.replace("'", "'\\''") + "'"
    escaped = text
    for character in '\\"$`':
        escaped = escaped.replace(character, "\\" + character)
    assert values(f'A={single}\nB="{escaped}"\n') == {"A": text, "B": text}


@given(st.text(max_size=200))
def test_whatever_is_in_the_file_is_read_to_its_end(text: str) -> None:
    for entry in parse_assignments(text):
        assert (entry.value is None) != (entry.error is None)
        assert entry.line >= 1
