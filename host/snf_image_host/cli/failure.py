"""The one place that tells a user about an error, and what becomes of a bug (exit codes: D-16)."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterable
from typing import Any, Final

from snf_image_contract.secret import MARKER, Secret
from snf_image_host.cli.interruption import Interrupted
from snf_image_host.cli.output import print_error, print_json
from snf_image_host.cli.parser import version
from snf_image_host.errors import SnfImageError
from snf_image_host.evidence import COMMAND

BUG: Final = 70
_LONGEST_REPORT: Final = 1024 * 1024


def report_error(error: SnfImageError, *, as_json: bool) -> int:
    """Print an expected error: one line that says it all, then causes, details, what to do, what was kept."""
    first, *others = error.messages or (type(error).__name__,)
    print_error(f"snf-image: {first}")
    for message in others:
        print_error(f"  {message}")
    for line in error.details:
        print_error(f"  | {line}")
    if error.hint:
        print_error(f"  hint: {error.hint}")
    if error.kept:
        print_error(f"  kept for a look: {error.kept}")
        print_error(f"  to do it again: sh {shlex.quote(os.path.join(error.kept, COMMAND))}")
    if as_json:
        _print_failure(
            error.exit_code, error.messages, details=error.details, hint=error.hint, kept=error.kept
        )
    return error.exit_code


def report_interruption(interrupted: Interrupted, *, touched: str | None, as_json: bool) -> int:
    """Say that it was interrupted, and of the disk ``touched`` that it is not usable."""
    how = {130: "interrupted", 143: f"ended by {interrupted.signal.name}"}[interrupted.exit_code]
    message = how if touched is None else f"{how}: {touched}"
    print_error(f"snf-image: {message}")
    # What was kept although nothing failed, with --keep.
    notes = tuple(getattr(interrupted, "__notes__", ()))
    for note in notes:
        print_error(f"  {note}")
    if as_json:
        _print_failure(interrupted.exit_code, (message,), details=notes)
    return interrupted.exit_code


def report_bug(error: Exception, *, secrets: Iterable[Secret], as_json: bool) -> int:
    """Write a report about an unexpected exception, without ``secrets``, and say where it is."""
    what = redact(f"{type(error).__name__}: {error}", secrets).splitlines()[0][:200]
    path = write_bug_report(error, secrets=secrets)
    message = f"a bug in snf-image: {what}"
    print_error(f"snf-image: {message}")
    where = f"please send the report {path}" if path else "the report could not be written"
    print_error(f"  hint: {where}")
    notes = tuple(getattr(error, "__notes__", ()))
    for note in notes:
        print_error(f"  {note}")
    if as_json:
        _print_failure(BUG, (message,), details=notes, hint=where, kept=path)
    return BUG


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """``text`` with every secret in it replaced by a marker."""
    # The longest first, or a short secret would leave the rest of a longer one.
    for value in sorted({secret.reveal() for secret in secrets}, key=len, reverse=True):
        for form in (value, json.dumps(value)[1:-1], repr(value)[1:-1]):
            if form:
                text = text.replace(form, MARKER)
    return text


def _print_failure(
    exit_code: int,
    messages: tuple[str, ...],
    *,
    details: tuple[str, ...] = (),
    hint: str = "",
    kept: str | None = None,
) -> None:
    document: dict[str, Any] = {
        "result": "failure",
        "exit_code": exit_code,
        "messages": list(messages),
        "details": list(details),
        "hint": hint,
        "kept": kept,
    }
    print_json(document)


def write_bug_report(error: Exception, *, secrets: Iterable[Secret]) -> str | None:
    """The path of a private file with what is needed to find the bug; None if none can be written."""
    trace = redact("".join(traceback.format_exception(error)), secrets)
    text = "\n".join(
        (
            f"snf-image {version()}",
            f"Python {platform.python_version()} on {platform.platform()}",
            # No secret is ever an argument (D-17).
            f"command: {shlex.join(sys.argv)}",
            "",
            trace[-_LONGEST_REPORT:],
        )
    )
    with contextlib.suppress(OSError):
        directory = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - mkstemp makes a private file
        fd, path = tempfile.mkstemp(prefix="snf-image-bug-", suffix=".txt", dir=directory)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return path
    return None
