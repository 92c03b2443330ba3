"""The grammar of configuration files: assignments as in a shell, never executed (R-CONF-2 to R-CONF-4).

``[export ]NAME=VALUE [# comment]``, with single and double quotes, back-slash escapes and ``$NAME`` or
``${NAME}`` of a name assigned earlier in the same file. Everything else a shell can do is an error.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from snf_image_host.parameters.problems import shown

_ASSIGNMENT: Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=")
_LOOKS_LIKE: Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)(?:\+=|\[|[ \t]+=)")
_BLANK: Final = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_VARIABLE: Final = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_OPERATORS: Final = frozenset(";&|<>()")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One assignment, or what is wrong with a line. ``name`` is there if the line is about a key."""

    line: int
    name: str | None = None
    value: str | None = None
    error: str | None = None


class _GrammarError(Exception):
    """The text is not of the grammar."""


def parse_assignments(text: str) -> list[Entry]:
    """Every assignment and every mistake of a file, in order. Reading goes on after a mistake."""
    return _Parser(text.replace("\r\n", "\n")).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._known: dict[str, str] = {}

    def parse(self) -> list[Entry]:
        entries: list[Entry] = []
        while self._at < len(self._text):
            blank = _BLANK.match(self._text, self._at)
            if blank:
                self._at = blank.end()
            else:
                entries.append(self._entry())
        return entries

    def _entry(self) -> Entry:
        begun = self._at
        line = self._text.count("\n", 0, begun) + 1
        match = _ASSIGNMENT.match(self._text, begun)
        if match is None:
            self._at = self._next_line(begun)
            return self._no_assignment(begun, line)
        try:
            self._at = match.end()
            value = self._value()
            self._end_of_line()
        except _GrammarError as error:
            # A quote that never ends must not swallow the rest of the file.
            self._at = self._next_line(begun)
            return Entry(line=line, name=match[1], error=str(error))
        self._known[match[1]] = value
        return Entry(line=line, name=match[1], value=value)

    def _next_line(self, at: int) -> int:
        found = self._text.find("\n", at)
        return len(self._text) if found < 0 else found + 1

    def _no_assignment(self, begun: int, line: int) -> Entry:
        match = _LOOKS_LIKE.match(self._text, begun)
        if match:
            error = "only NAME=VALUE is allowed, without blanks around '=', '+=' and arrays"
            return Entry(line=line, name=match[1], error=error)
        text = self._text[begun : self._next_line(begun)].strip()
        return Entry(line=line, error=f"not an assignment: {shown(text)}; this file is parsed, not executed")

    def _value(self) -> str:
        parts: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in " \t\n":
                break
            if character == "'":
                parts.append(self._single_quoted())
            elif character == '"':
                parts.append(self._double_quoted())
            elif character == "\\":
                parts.append(self._escaped())
            elif character == "$":
                parts.append(self._expansion())
            elif character == "~" and (not parts or parts[-1].endswith(":")):
                raise _GrammarError("an unquoted ~ is not expanded; write the path")
            elif character == "`" or character in _OPERATORS:
                raise _GrammarError(f"{character} must be quoted; nothing is executed")
            else:
                parts.append(character)
                self._at += 1
        return "".join(parts)

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise _GrammarError("the single quote has no end")
        text = self._text[self._at + 1 : end]
        self._at = end + 1
        return text

    def _double_quoted(self) -> str:
        parts: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            character = self._text[self._at]
            following = self._text[self._at + 1 : self._at + 2]
            if character == '"':
                self._at += 1
                return "".join(parts)
            if character == "\\" and following and following in '"\\$`\n':
                parts.append("" if following == "\n" else following)
                self._at += 2
            elif character == "$":
                parts.append(self._expansion())
            elif character == "`":
                raise _GrammarError("` must be quoted; nothing is executed")
            else:
                parts.append(character)
                self._at += 1
        raise _GrammarError("the double quote has no end")

    def _escaped(self) -> str:
        following = self._text[self._at + 1 : self._at + 2]
        if not following:
            raise _GrammarError("nothing follows the last back-slash")
        self._at += 2
        return "" if following == "\n" else following

    def _expansion(self) -> str:
        match = _VARIABLE.match(self._text, self._at)
        if not match:
            raise _GrammarError("of expansions only $NAME and ${NAME} are allowed; quote a plain $")
        name: str = match[1] or match[2]
        if name not in self._known:
            raise _GrammarError(f"{name} is not assigned earlier in this file")
        self._at = match.end()
        return self._known[name]

    def _end_of_line(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        if not blank:
            raise _GrammarError("text follows the value; quote a value that holds blanks")
        self._at = blank.end()
