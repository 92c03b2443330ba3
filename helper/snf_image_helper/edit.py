"""Editing of the guest's text configuration as bytes, line by line (R-TASK-9, R-TASK-10).

Nothing of a file is decoded, evaluated or used as a pattern. Lines that are not edited stay byte for byte
as they are, with their ends (LF or CRLF), their order and their comments.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Final

from snf_image_helper.errors import ImageError

MAX_LINES: Final = 1_000_000
_BLANKS: Final = b" \t"
_NAME_START: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME: Final = _NAME_START | frozenset(b"0123456789")
_NEEDS_NO_QUOTES: Final = _NAME | frozenset(b"./:@%+,-")
_PIECE_OF_A_WORD: Final = re.compile(
    rb"""'([^']*)'|"((?:[^"\\]|\\.)*+)"|\\(.)|([^ \t;&|<>()'"\\]++)""", re.DOTALL
)
_ESCAPE_IN_DOUBLE_QUOTES: Final = re.compile(rb"""\\(["\\$`])""")
_ESCAPED_IN_DOUBLE_QUOTES: Final = frozenset(b'\\"$`')
_BACKSLASH: Final = ord("\\")


class Lines:
    """A text file as a list of lines without their ends; each keeps the end that it had.

    New lines get the end of the file's first line, LF in an empty file. :class:`ImageError` for a file of
    more than :data:`MAX_LINES` lines: it would not fit the helper's memory.
    """

    def __init__(self, data: bytes, path: str = "a file") -> None:
        """``path``: what an error calls the file."""
        if data.count(b"\n") >= MAX_LINES:
            raise ImageError(f"{path}: more than {MAX_LINES} lines")
        # Kept with their ends: one object a line, where a pair would take three times the memory.
        self._lines = [piece + b"\n" for piece in data.split(b"\n")]
        last = self._lines.pop()[:-1]
        if last:
            self._lines.append(last)
        self._end = _end_of(self._lines[0]) if self._lines else b""
        self._end = self._end or b"\n"

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[bytes]:
        return (_without_end(line) for line in self._lines)

    def __getitem__(self, index: int) -> bytes:
        return _without_end(self._lines[index])

    def replace(self, index: int, line: bytes) -> None:
        self._lines[index] = _one_line(line) + _end_of(self._lines[index])

    def insert(self, index: int, line: bytes) -> None:
        """Put ``line`` before the line ``index``; at the end if there is no such line."""
        if index >= len(self._lines) and self._lines and not _end_of(self._lines[-1]):
            self._lines[-1] += self._end
        self._lines.insert(index, _one_line(line) + self._end)

    def append(self, line: bytes) -> None:
        """Add ``line`` at the end, after the newline that the last line may lack."""
        self.insert(len(self._lines), line)

    def remove(self, index: int) -> None:
        del self._lines[index]

    def data(self) -> bytes:
        return b"".join(self._lines)


def _end_of(line: bytes) -> bytes:
    if line.endswith(b"\r\n"):
        return b"\r\n"
    return b"\n" if line.endswith(b"\n") else b""


def _without_end(line: bytes) -> bytes:
    end = len(_end_of(line))
    return line[:-end] if end else line


def _one_line(line: bytes) -> bytes:
    if b"\n" in line or b"\0" in line:
        raise ValueError("a line with a newline or a NUL")
    return line


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """``key=value`` as a shell reads it. The line is ``before + key + "=" + word + after``.

    ``before``: blanks, perhaps with ``export``. ``value``: the word with its quotes taken off, nothing
    expanded. ``after``: blanks, a comment, further commands.
    """

    before: bytes
    key: bytes
    word: bytes
    value: bytes
    after: bytes


def parse_assignment(line: bytes) -> Assignment | None:
    """The assignment that a line of a shell-style file begins with; None if it does not.

    :class:`ImageError` if its quotes do not close on this line.
    """
    start = len(line) - len(line.lstrip(_BLANKS))
    if line[start:].startswith((b"export ", b"export\t")):
        start += len(b"export ")
        start += len(line[start:]) - len(line[start:].lstrip(_BLANKS))
    end = start
    while end < len(line) and line[end] in (_NAME if end > start else _NAME_START):
        end += 1
    if end == start or line[end : end + 1] != b"=":
        return None
    value, after = _shell_word(line, end + 1)
    return Assignment(line[:start], line[start:end], line[end + 1 : after], value, line[after:])


def _shell_word(line: bytes, start: int) -> tuple[bytes, int]:
    """The word that begins at ``start``, quotes taken off, and the index after it."""
    value = bytearray()
    index = start
    while piece := _PIECE_OF_A_WORD.match(line, index):
        single, double, escaped, plain = piece.groups()
        if double is not None:
            value += _ESCAPE_IN_DOUBLE_QUOTES.sub(rb"\1", double)
        else:
            value += single or escaped or plain or b""
        index = piece.end()
    if line[index : index + 1] in (b"'", b'"', b"\\"):
        raise ImageError("a quoted value that does not end on its line")
    return bytes(value), index


def assignments(data: bytes) -> dict[bytes, bytes]:
    """Every ``key=value`` of a shell-style file; the last of several counts. Unreadable ones are left out."""
    found: dict[bytes, bytes] = {}
    for line in Lines(data):
        try:
            assignment = parse_assignment(line)
        except ImageError:
            continue
        if assignment is not None:
            found[assignment.key] = assignment.value
    return found


def shell_quoted(value: bytes, *, always: bool = False) -> bytes:
    """``value`` as one word of a shell-style file: in double quotes if it needs them, or ``always``."""
    if not always and value and all(byte in _NEEDS_NO_QUOTES for byte in value):
        return value
    quoted = bytearray(b'"')
    for byte in value:
        if byte in _ESCAPED_IN_DOUBLE_QUOTES:
            quoted.append(_BACKSLASH)
        quoted.append(byte)
    return bytes(quoted) + b'"'


def set_assignments(
    data: bytes,
    values: Mapping[bytes, bytes],
    *,
    quoted: bool = False,
    any_case: bool = False,
    path: str,
) -> bytes:
    """``data`` with ``key=value`` set for each of ``values``.

    Of several assignments of one key the last, which counts, keeps its place and what follows it on its
    line; the others are removed. A missing key is appended. ``quoted``: values stand in double quotes even
    if they need none. ``any_case``: the file's spelling of a key is kept (Gentoo's HOSTNAME and hostname).
    ``path`` is for error texts.
    """
    lines = Lines(data)
    wanted = {_folded(key, fold=any_case): (key, value) for key, value in values.items()}
    seen: set[bytes] = set()
    for index in range(len(lines) - 1, -1, -1):
        key = key_of(lines[index])
        name = _folded(key, fold=any_case) if key else b""
        if name not in wanted:
            continue
        if name in seen:
            lines.remove(index)
            continue
        seen.add(name)
        assignment = _parse_or_blame(lines[index], path)
        word = shell_quoted(wanted[name][1], always=quoted or assignment.word[:1] in (b'"', b"'"))
        lines.replace(index, assignment.before + assignment.key + b"=" + word + assignment.after)
    for name, (key, value) in wanted.items():
        if name not in seen:
            lines.append(key + b"=" + shell_quoted(value, always=quoted))
    return lines.data()


def _folded(key: bytes, *, fold: bool) -> bytes:
    return key.lower() if fold else key


def key_of(line: bytes) -> bytes:
    """The key that a line assigns, even if its value cannot be read; empty if it assigns none."""
    head = line.lstrip(_BLANKS).removeprefix(b"export ").lstrip(_BLANKS).partition(b"=")
    key = head[0]
    return key if head[1] and key and all(byte in _NAME for byte in key) else b""


def _parse_or_blame(line: bytes, path: str) -> Assignment:
    try:
        assignment = parse_assignment(line)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    if assignment is None:
        raise ImageError(f"{path}: not a line of the form key=value")
    return assignment


def fields(line: bytes) -> list[bytes]:
    """The words of a line of a table such as hosts or login.defs, its comment left out."""
    return line.partition(b"#")[0].split()
