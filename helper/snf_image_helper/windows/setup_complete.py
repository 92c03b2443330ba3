r"""The script that Windows runs once, when its setup is done: it removes every secret that we left.

Our lines stand between two marks in ``\Windows\Setup\Scripts\SetupComplete.cmd``, so that a second deployment
onto the same disk finds and replaces them (R-TASK-UNA-9).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from snf_image_helper.edit import Lines
from snf_image_helper.guest import Guest
from snf_image_helper.windows.layout import (
    ACCOUNTS_COMMAND,
    ACCOUNTS_SCRIPT,
    EXTEND,
    PRIVATE,
    PRIVATE_DIRECTORY,
    SCRIPTS,
    SETUP_COMPLETE,
    lines,
    windows_path,
)

_BEGIN: Final = b"@rem snf-image: begin"
_END: Final = b"@rem snf-image: end"
_RESTORE: Final = b"@rem snf-image: remote desktop as it was"
# What may end a script before its last line, so that ours would never be reached.
_ENDS: Final = re.compile(rb"(^|[^a-z0-9_])(exit|goto)([^a-z0-9_]|$)", re.IGNORECASE)
_OTHER_SCRIPT: Final = re.compile(rb"\.(cmd|bat)(\W|$)", re.IGNORECASE)
_CALLED: Final = re.compile(rb"^[@\s(]*(call|start|rem|echo|cmd)\b|^\s*::", re.IGNORECASE)


def install(guest: Guest, answer_files: Sequence[str]) -> None:
    """Have our files removed at the end of setup, the answer files by their names; the script is made or
    extended. What is still to be restored of remote desktop stays in it."""
    old = guest.root.read_optional(SETUP_COMPLETE) or b""
    # The script has run already where it has removed our directory: this is an image of an instance that was
    # deployed before, and what it restored then is long done.
    restore = restoring_lines(old) if guest.root.is_dir(SCRIPTS) else []
    block = _removal(answer_files)
    _write(guest, old, [*block, *restore])


def is_installed(guest: Guest) -> bool:
    """Whether the end of setup removes our files already."""
    old = guest.root.read_optional(SETUP_COMPLETE) or b""
    return any(windows_path(ACCOUNTS_SCRIPT).encode() in line for line in _ours(old))


def set_restoring_lines(guest: Guest, *commands: str, anew: bool) -> None:
    """Have ``commands`` run at the end of setup, besides what is there.

    If such were set before, they stay, or with ``anew`` give way.
    """
    old = guest.root.read_optional(SETUP_COMPLETE) or b""
    before = restoring_lines(old)
    if anew or not before:
        block = [line for line in _ours(old) if line not in (_BEGIN, _END, *before)]
        _write(guest, old, [*block, _RESTORE, *(command.encode("ascii") for command in commands)])


def restoring_lines(script: bytes) -> list[bytes]:
    """What the script restores of remote desktop by our doing, the line that marks it first."""
    ours = [line for line in _ours(script) if line not in (_BEGIN, _END)]
    return ours[ours.index(_RESTORE) :] if _RESTORE in ours else []


def _removal(answer_files: Sequence[str]) -> list[bytes]:
    password = windows_path(ACCOUNTS_SCRIPT)
    command = windows_path(ACCOUNTS_COMMAND)
    texts = [
        # Accounts that the answer file makes are there only now.
        f'@if exist "{password}" call "{command}" >nul 2>&1',
        f'@del /f /q "{windows_path(EXTEND)}" >nul 2>&1',
    ]
    for path in (command, password):
        wipe = 'fsutil file setzerodata offset=0 length=%%~zF "%%~F"'
        texts += [
            f'@if exist "{path}" for %%F in ("{path}") do @{wipe} >nul 2>&1',
            f'@del /f /q "{path}" >nul 2>&1',
        ]
    texts.append(f'@rd /s /q "{windows_path(SCRIPTS)}" >nul 2>&1')
    texts += [f'@del /f /q "{windows_path(path)}" >nul 2>&1' for path in answer_files]
    return lines(*texts).split(b"\r\n")[:-1]


def _ours(script: bytes) -> list[bytes]:
    """Our lines in a script, the marks included; empty if there are none."""
    everything = list(Lines(script, SETUP_COMPLETE))
    if _BEGIN not in everything:
        return []
    start = everything.index(_BEGIN)
    end = everything.index(_END, start) if _END in everything[start:] else len(everything) - 1
    return everything[start : end + 1]


def _write(guest: Guest, old: bytes, block: Sequence[bytes]) -> None:
    ours = b"".join(line + b"\r\n" for line in (_BEGIN, *block, _END))
    theirs = _theirs(old)
    if theirs and not theirs.endswith(b"\n"):
        theirs += b"\r\n"
    # Ours come first where theirs might end the script, for example by `exit`.
    data = ours + theirs if _may_end_early(theirs) else theirs + ours
    guest.root.mkdir("/Windows/Setup/Scripts")
    guest.root.write(SETUP_COMPLETE, data, detail="removes what the deployment left, when setup is done")


def _theirs(script: bytes) -> bytes:
    """The script without our lines."""
    kept = Lines(script, SETUP_COMPLETE)
    mine = _ours(script)
    if mine:
        start = list(kept).index(_BEGIN)
        for _ in mine:
            kept.remove(start)
    return kept.data()


def _may_end_early(script: bytes) -> bool:
    """Whether the script may leave before its end: `exit`, `goto`, or another script that is not called."""
    return any(
        _ENDS.search(line) or (_OTHER_SCRIPT.search(line) and not _CALLED.match(line))
        for line in Lines(script, SETUP_COMPLETE)
    )


def install_placeholders(guest: Guest) -> None:
    """The two files that answer files name: a command that does nothing, a diskpart script that ends."""
    root = guest.root
    root.mkdir(SCRIPTS, mode=PRIVATE_DIRECTORY)
    root.write(EXTEND, lines("exit"), mode=PRIVATE)
    root.write(ACCOUNTS_COMMAND, lines("@exit /b 0"), mode=PRIVATE)
    root.remove(ACCOUNTS_SCRIPT)
