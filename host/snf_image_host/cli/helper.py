"""The commands ``helper build``, ``helper info`` and ``helper verify``."""

from __future__ import annotations

import argparse

from snf_image_host.cli.session import Session
from snf_image_host.errors import NodeError


def run_helper(arguments: argparse.Namespace, session: Session) -> int:
    raise NodeError("the helper commands are not there yet")
