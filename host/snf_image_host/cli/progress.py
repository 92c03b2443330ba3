"""Which sinks show a deployment: ``--progress`` and ``--verbose``."""

from __future__ import annotations

import argparse
import sys

from snf_image_host.reporter import Sink
from snf_image_host.sinks import JsonLines, Lines, Terminal


def make_sinks(arguments: argparse.Namespace) -> tuple[Sink, ...]:
    """The sinks of a command line; all of them write to standard error."""
    stream, verbose = sys.stderr, arguments.verbose
    match arguments.progress:
        case "bar":
            return (Terminal(stream, verbose=verbose),)
        case "json":
            return (JsonLines(stream, verbose=verbose),)
        case "none":
            return ()
    # A bar needs a terminal that understands its control characters.
    return (Terminal(stream, verbose=verbose) if stream.isatty() else Lines(stream, verbose=verbose),)
