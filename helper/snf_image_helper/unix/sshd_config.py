"""The configuration of the guest's sshd, as sshd itself would read it (R-TASK-KEY-1, R-TASK-SSH-1).

Parsed, never evaluated: ``$(...)`` in a value is text.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Final

from snf_image_helper import edit
from snf_image_helper.root import Root

CONFIG: Final = "/etc/ssh/sshd_config"
VENDOR_CONFIG: Final = "/usr/etc/ssh/sshd_config"
_DIRECTORY: Final = "/etc/ssh"
_MAX_DEPTH: Final = 16  # sshd's own limit
_MAX_FILES: Final = 64
_MAX_SIZE: Final = 1 << 20
_KEYWORD: Final = re.compile(rb"[ \t]*([A-Za-z][A-Za-z0-9]*)(?:[ \t]*=[ \t]*|[ \t]+)")
_WORD: Final = re.compile(
    rb"""[ \t]*(?:"((?:[^"\\]|\\.)*+)"|'((?:[^'\\]|\\.)*+)'|([^ \t"'][^ \t]*+))(?=[ \t]|\Z)""", re.DOTALL
)
_ESCAPE: Final = re.compile(rb"""\\(["'\\ ])""")
_WILDCARDS: Final = frozenset("*?[")


@dataclasses.dataclass(frozen=True, slots=True)
class Directive:
    """A keyword in lower case and its arguments, quotes taken off."""

    keyword: str
    arguments: tuple[str, ...]


def parse_line(line: bytes) -> Directive | None:
    """The directive of one line; None for a blank line, a comment, or what sshd would not read either."""
    keyword = _KEYWORD.match(line)
    if keyword is None:
        return None
    arguments = []
    rest = line.rstrip(b" \t\r\f")
    index = keyword.end()
    while index < len(rest):
        word = _WORD.match(rest, index)
        if word is None:
            return None
        double, single, plain = word.groups()
        if plain is not None and plain.startswith(b"#"):
            break
        value = plain if plain is not None else double if double is not None else single
        arguments.append(_ESCAPE.sub(rb"\1", value).decode("utf-8", "surrogateescape"))
        index = word.end()
    return Directive(keyword[1].decode("ascii").lower(), tuple(arguments)) if arguments else None


def directives(root: Root, warn: Callable[[str], None]) -> tuple[Directive, ...] | None:
    """Every directive outside ``Match`` blocks, those of included files where they are included.

    None if the image has no configuration of sshd. ``warn`` hears of what is left out.
    """
    for path in (CONFIG, VENDOR_CONFIG):
        if root.exists(path):
            reader = _Reader(root, warn)
            return tuple(reader.read(path, depth=0))
    return None


class _Reader:
    def __init__(self, root: Root, warn: Callable[[str], None]) -> None:
        self._root = root
        self._warn = warn
        self._files = 0
        self._told = False

    def read(self, path: str, *, depth: int) -> Iterator[Directive]:
        self._files += 1
        if depth > _MAX_DEPTH or self._files > _MAX_FILES:
            if not self._told:
                self._warn(f"{path}: too many included files, or nested too deeply; left out")
            self._told = True
            return
        matching = False
        for line in edit.Lines(self._root.read(path, _MAX_SIZE), path):
            found = parse_line(line)
            if found is None:
                continue
            if found.keyword == "match":
                # A block lasts to the next one or to the end of its own file.
                matching = True
            elif matching:
                continue
            elif found.keyword == "include":
                for pattern in found.arguments:
                    for included in expand(self._root, posixpath.join(_DIRECTORY, pattern)):
                        yield from self.read(included, depth=depth + 1)
            else:
                yield found


def expand(root: Root, pattern: str) -> list[str]:
    """The files that a pattern of glob(7) names, in byte order; wildcards match no leading dot."""
    paths = ["/"]
    for component in pattern.strip("/").split("/"):
        paths = [path for directory in paths for path in _step(root, directory, component)][:_MAX_FILES]
    return [path for path in paths if root.is_file(path)]


def _step(root: Root, directory: str, component: str) -> list[str]:
    if not _WILDCARDS & set(component):
        return [posixpath.join(directory, component)]
    names = root.list(directory) if root.is_dir(directory) else []
    return [
        posixpath.join(directory, name)
        for name in names
        if fnmatch.fnmatchcase(name, component) and (component.startswith(".") or not name.startswith("."))
    ]


def first_value(found: tuple[Directive, ...], keyword: str) -> tuple[str, ...] | None:
    """The arguments of the first directive of that name, which is the one that counts."""
    return next((directive.arguments for directive in found if directive.keyword == keyword.lower()), None)


def all_values(found: tuple[Directive, ...], keyword: str) -> tuple[str, ...]:
    """The first argument of every directive of that name."""
    return tuple(directive.arguments[0] for directive in found if directive.keyword == keyword.lower())
