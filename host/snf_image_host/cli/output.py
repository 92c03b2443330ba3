"""Printing: results on standard output, everything else on standard error; a reader that left is no error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any, TextIO

from snf_image_host.inert import inert


def prepare_streams() -> None:
    """Let text that cannot be encoded be printed as escapes: names of files can hold any byte."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_result(text: str) -> None:
    """A line or more on standard output; parts of it may come from an image."""
    _write(sys.stdout, "\n".join(map(_inert, text.split("\n"))) + "\n")


def print_error(text: str) -> None:
    """A line on standard error; characters that could steer a terminal are escaped."""
    _write(sys.stderr, _inert(text) + "\n")


def print_json(document: Any) -> None:
    """A JSON document on standard output."""
    _write(sys.stdout, json.dumps(document, indent=2, ensure_ascii=True) + "\n")


def flush() -> None:
    """Write out what argparse and others have printed."""
    _write(sys.stdout, "")


def _inert(line: str) -> str:
    return "\t".join(map(inert, line.split("\t")))


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # The interpreter would try to flush it once more at its end, and complain.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
