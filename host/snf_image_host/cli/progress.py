"""Which sinks show a deployment: ``--progress``, ``--json``, ``--verbose``."""

from __future__ import annotations

import argparse

from snf_image_host.reporter import Sink


def make_sinks(arguments: argparse.Namespace) -> tuple[Sink, ...]:
    """The sinks of a command line; all of them write to standard error."""
    return ()
