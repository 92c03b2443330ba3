"""What programs of the operator the helper can run: those of its interpreters (R-TASK-CUS-1)."""

from __future__ import annotations

from typing import IO, Final

_INTERPRETERS: Final = {"/bin/sh": "sh", "/bin/bash": "bash", "/usr/bin/python3": "python3"}
_ELF: Final = b"\x7fELF"
_MAX_FIRST_LINE: Final = 4096
_ALIASES: Final = {"/usr/bin/sh": "/bin/sh", "/usr/bin/bash": "/bin/bash", "/bin/python3": "/usr/bin/python3"}


def words_before(file: IO[bytes]) -> list[str]:
    """What an executable file needs before its own name; nothing for one that the kernel runs by itself.

    ``file``: at its beginning. Errors as :func:`interpreter`, and OSError.
    """
    begin = file.read(_MAX_FIRST_LINE)
    return [] if begin.startswith(_ELF) else interpreter(begin)


def interpreter(program: bytes) -> list[str]:
    """The words of the ``#!`` line; the kernel's rule: an interpreter and at most one argument.

    ``program``: at least its first line. :class:`ValueError` says what is wrong with that line.
    """
    line = program.partition(b"\n")[0].decode("utf-8", "replace")
    if not line.startswith("#!"):
        raise ValueError("the first line must begin with #! and an interpreter")
    words = line[2:].strip().split(None, 1)
    if words and words[0] == "/usr/bin/env":
        by_name = {name: path for path, name in _INTERPRETERS.items()}
        words = [by_name.get(word, word) for word in words[1:]]
    if words:
        words[0] = _ALIASES.get(words[0], words[0])
    if not words or words[0] not in _INTERPRETERS:
        known = ", ".join(_INTERPRETERS)
        raise ValueError(f"interpreter {' '.join(words[:1])!r} is none of {known}")
    return [word.strip() for word in words]
