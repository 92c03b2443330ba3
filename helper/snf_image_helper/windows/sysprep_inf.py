"""sysprep.inf and CmdLines.txt: INI files of Windows before 6.0 (R-TASK-UNA-11, T-107, T-108, T-129).

They are sloppy files: keys in any letter case, lines of free text, repeated sections, no final newline.
"""

from __future__ import annotations

from typing import Final

from snf_image_helper.edit import Lines
from snf_image_helper.errors import ImageError, RequestError

_BLANKS: Final = b" \t"
_NEEDS_QUOTES: Final = frozenset(b' \t;,="%[]')


class IniFile:
    """An INI file as lines; what is not edited stays byte for byte."""

    def __init__(self, data: bytes, path: str) -> None:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ImageError(f"{path}: is written in UTF-16; only 8-bit files can be changed")
        self.path = path
        self._lines = Lines(data or b"\r\n", path)
        if not data:
            self._lines.remove(0)

    def data(self) -> bytes:
        return self._lines.data()

    def value(self, section: str, key: str) -> bytes | None:
        """The value of a key in its section without its quotes; None if it is absent."""
        index = self._find(section, key)
        if index is None:
            return None
        value = self._lines[index].partition(b"=")[2].strip()
        return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value

    def set_value(self, section: str, key: str, value: str) -> None:
        """Set a key within its section: where it stands, or at the end of the section, or in a new one."""
        line = _line(key, value)
        index = self._find(section, key)
        if index is not None:
            # What follows the value on its line would be part of it for Windows: it goes.
            self._lines.replace(index, line)
            return
        self._insert(section, line)

    def ensure_line(self, section: str, line: bytes) -> None:
        """Have a line in a section, once, whatever the letter case it is written in."""
        if not any(self._lines[at].strip().lower() == line.lower() for at in self._members(section)):
            self._insert(section, line)

    def _insert(self, section: str, line: bytes) -> None:
        members = self._members(section)
        header = self._header(section)
        if header is None:
            self._lines.append(b"[" + section.encode("ascii") + b"]")
            self._lines.append(line)
            return
        last = max((at for at in members if self._lines[at].strip()), default=header)
        self._lines.insert(last + 1, line)

    def _find(self, section: str, key: str) -> int | None:
        """The first line of the section that sets the key: Windows takes the first."""
        for at in self._members(section):
            line = self._lines[at].lstrip(_BLANKS)
            name, equals, _ = line.partition(b"=")
            if equals and not line.startswith(b";") and name.strip().lower() == key.lower().encode("ascii"):
                return at
        return None

    def _members(self, section: str) -> list[int]:
        """The lines of every section of that name, headers left out."""
        found, inside = [], False
        for at, line in enumerate(self._lines):
            name = _section(line)
            if name is not None:
                inside = name == section.lower().encode("ascii")
            elif inside:
                found.append(at)
        return found

    def _header(self, section: str) -> int | None:
        """The last header of that section, after which a new line belongs to it."""
        found = None
        for at, line in enumerate(self._lines):
            if _section(line) == section.lower().encode("ascii"):
                found = at
        return found


def _section(line: bytes) -> bytes | None:
    """The name in a line that begins a section, in lower case; None if the line is none."""
    stripped = line.strip()
    if not stripped.startswith(b"["):
        return None
    name, closing, _ = stripped[1:].partition(b"]")
    return name.strip().lower() if closing else None


def _line(key: str, value: str) -> bytes:
    try:
        encoded = value.encode("ascii")
    except UnicodeEncodeError:
        raise RequestError(f"{key}: sysprep.inf takes ASCII only") from None
    if b'"' in encoded or any(byte < 32 or byte == 127 for byte in encoded):
        raise RequestError(f"{key}: sysprep.inf takes neither quotes nor control characters in a value")
    if not encoded or any(byte in _NEEDS_QUOTES for byte in encoded):
        encoded = b'"' + encoded + b'"'
    return key.encode("ascii") + b"=" + encoded
