"""Files to inject."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from snf_image_contract.job import PersonalityFile
from snf_image_contract.names import OsFamily
from snf_image_host.parameters.personality import parse_array, parse_personality
from snf_image_host.parameters.problems import ParseError, Problems

HELLO = base64.b64encode(b"hello\n").decode()


def parse(
    *entries: Any, family: OsFamily | None = OsFamily.LINUX, max_files: int = 256, max_bytes: int = 1 << 24
) -> tuple[tuple[PersonalityFile, ...], Problems]:
    problems = Problems()
    array = parse_array(json.dumps(entries))
    return parse_personality(
        array, problems, family=family, max_files=max_files, max_bytes=max_bytes
    ), problems


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "/etc/motd", "contents": HELLO} | changes


def one(**changes: Any) -> PersonalityFile:
    files, problems = parse(entry(**changes))
    assert not problems.errors
    return files[0]


def wrong(family: OsFamily | None = OsFamily.LINUX, **changes: Any) -> str:
    _, problems = parse(entry(**changes), family=family)
    assert len(problems.errors) == 1
    assert problems.errors[0].isprintable()
    return problems.errors[0]


def test_a_file_and_its_defaults() -> None:
    """R-PERS-5: what is not given stays open for the helper, which takes 0, 0 and 0440."""
    file = one()
    assert (file.path, file.contents.reveal()) == ("/etc/motd", HELLO)
    assert (file.owner, file.group, file.mode) == (None, None, None)


@pytest.mark.parametrize("text", ["{}", '"x"', "[", "null", "[1"])
def test_only_an_array_will_do(text: str) -> None:
    """R-PERS-1, T-16"""
    with pytest.raises(ParseError):
        parse_array(text)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([3], "img_personality[0]: must be an object"),
        ([entry(), {"contents": HELLO}], "img_personality[1]: path is missing"),
        ([{"path": "/x"}], "img_personality[0]: contents is missing"),
        ([entry(path=3)], "img_personality[0].path: must be text"),
        ([entry(contents=None)], "img_personality[0].contents: must be text"),
        ([entry(owner=0)], "img_personality[0].owner: must be text"),
        ([entry(group=None)], "img_personality[0].group: must be text"),
        ([entry(mode=None)], "img_personality[0].mode: must be a number or octal text"),
        ([entry(mode=True)], "img_personality[0].mode: must be a number or octal text"),
    ],
)
def test_wrong_shapes_name_the_index(entries: list[Any], message: str) -> None:
    """R-PERS-1"""
    _, problems = parse(*entries)
    assert problems.errors == [message]


def test_an_unknown_key() -> None:
    """R-PERS-1, D-31: an error that names the known one it resembles."""
    assert wrong(owmer="root") == "img_personality[0]: key 'owmer' is not known, did you mean owner?"


@pytest.mark.parametrize(
    "path", ["etc/motd", "", "/etc/", "/", "/etc/../shadow", "/..", "/etc/.", "/" + "x" * 4095]
)
def test_paths_that_are_refused(path: str) -> None:
    """R-PERS-2"""
    assert wrong(path=path).startswith("img_personality[0].path: ")


def test_a_path_with_nul() -> None:
    """R-PERS-2"""
    with pytest.raises(ParseError, match="NUL"):
        parse(entry(path="/etc/a\0b"))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("C:\\Windows\\x.txt", "/Windows/x.txt"),
        ("c:/Windows/x.txt", "/Windows/x.txt"),
        ("\\x", "/x"),
        ("/Temp\\x", "/Temp/x"),
        ("Temp/x", "/Temp/x"),
    ],
)
def test_windows_paths(given: str, taken: str) -> None:
    """R-PERS-2: both separators, the drive is left out."""
    files, problems = parse(entry(path=given), family=OsFamily.WINDOWS)
    assert not problems.errors
    assert files[0].path == taken


@pytest.mark.parametrize("path", ["D:\\x", "C:\\a\\..\\b", "/a<b", "/a?", "/a:stream", "C:\\dir\\", '/"'])
def test_windows_paths_that_are_refused(path: str) -> None:
    """R-PERS-2"""
    assert wrong(family=OsFamily.WINDOWS, path=path).startswith("img_personality[0].path: ")


def test_before_detection_both_manners_are_let_through() -> None:
    """R-PERS-2: the family decides, and only the helper may know it."""
    files, problems = parse(entry(path="/etc/motd"), entry(path="C:\\x"), family=None)
    assert not problems.errors
    assert [file.path for file in files] == ["/etc/motd", "C:\\x"]
    assert "absolute" in wrong(family=None, path="etc/motd")


@pytest.mark.parametrize("contents", ["!", "aGVsbG8", "aGVsbG8=x"])
def test_contents_must_be_base64(contents: str) -> None:
    """R-PERS-3; R-SEC-1: they are not shown."""
    assert wrong(contents=contents) == "img_personality[0].contents: not valid base64"


def test_contents_may_hold_white_space() -> None:
    """R-PERS-3"""
    assert one(contents=f" {HELLO[:3]}\n{HELLO[3:]}\n").contents.reveal() == HELLO


@pytest.mark.parametrize(
    ("mode", "bits"),
    [
        (288, 0o440),
        (420, 0o644),
        (0, 0),
        (4095, 0o7777),
        ("0644", 0o644),
        ("644", 0o644),
        ("0o755", 0o755),
        ("0", 0),
    ],
)
def test_modes(mode: int | str, bits: int) -> None:
    """R-PERS-4, T-122: a number is the value of the bits, text is octal, 0 is 0."""
    file = one(mode=mode)
    assert file.mode == bits
    assert file.mode is not None


@pytest.mark.parametrize("mode", [4096, -1, 1.5, 1e3, "", "8", "10000", "0x1ff", "rw-r--r--", " 644"])
def test_modes_that_are_refused(mode: Any) -> None:
    """R-PERS-4"""
    assert wrong(mode=mode).startswith("img_personality[0].mode: ")


@pytest.mark.parametrize("mode", [644, 755, 600, 440, 777, 400, 700, 1777, 750])
def test_numbers_that_were_meant_in_octal(mode: int) -> None:
    """R-PERS-4: legal, with a warning that states the bits."""
    files, problems = parse(entry(mode=mode))
    assert files[0].mode == mode
    assert len(problems.warnings) == 1
    assert f"means octal {mode:04o}" in problems.warnings[0]


@pytest.mark.parametrize("mode", [420, 288, 384, 256, 493, 511, 416, 436, 504, 0, 360])
def test_numbers_that_were_meant_in_decimal(mode: int) -> None:
    """R-PERS-4"""
    _, problems = parse(entry(mode=mode))
    assert not problems.warnings


def test_accounts() -> None:
    """R-PERS-6, T-122: owner "0" is a number, not "nothing"."""
    file = one(owner="0", group="www-data")
    assert (file.owner, file.group) == ("0", "www-data")
    for name in ("", "a:b", "a\nb", "a b", "../x"):
        assert wrong(owner=name).startswith("img_personality[0].owner: ")


@pytest.mark.parametrize("second", ["/etc/motd", "/etc//motd", "//etc/./motd"])
def test_one_path_twice(second: str) -> None:
    """R-PERS-7: however it is spelt."""
    _, problems = parse(entry(), entry(path=second))
    assert len(problems.errors) == 1
    assert "occurs twice" in problems.errors[0]


def test_one_path_twice_on_windows() -> None:
    """R-PERS-7: letter case does not count there."""
    _, problems = parse(entry(path="C:\\Temp\\X"), entry(path="/temp/x"), family=OsFamily.WINDOWS)
    assert "occurs twice" in problems.errors[0]
    _, problems = parse(entry(path="/Temp/X"), entry(path="/temp/x"))
    assert not problems.errors


def test_bounds() -> None:
    """R-PERS-7"""
    _, problems = parse(entry(path="/a"), entry(path="/b"), max_files=1)
    assert problems.errors == ["img_personality: 2 files, at most 1 are allowed"]
    _, problems = parse(entry(path="/a"), entry(path="/b"), max_bytes=11)
    assert problems.errors == ["img_personality: 12 bytes, at most 11 are allowed"]
    _, problems = parse(entry(path="/a"), entry(path="/b"), max_files=2, max_bytes=12)
    assert not problems.errors


def test_five_megabytes() -> None:
    """T-41"""
    contents = base64.b64encode(b"x" * 5_000_000).decode()
    files, problems = parse(entry(contents=contents))
    assert not problems.errors
    assert len(files[0].contents.reveal()) == len(contents)


def test_nothing_shows_the_contents() -> None:
    """R-SEC-1"""
    assert HELLO not in repr(one())
