"""Where things are: the checkout, what is built, the commands under test."""

from __future__ import annotations

import os
import sys
from typing import Final

CHECKOUT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD_VARIABLE: Final = "SNF_IMAGE_BUILD"
"""Names another directory than ``build`` in the checkout."""


def build_directory() -> str:
    """Where ``make`` puts what it builds."""
    return os.environ.get(BUILD_VARIABLE) or os.path.join(CHECKOUT, "build")


def fixture_directory() -> str:
    return os.path.join(build_directory(), "fixtures")


def helper_directory() -> str:
    """The helper image under test."""
    return os.path.join(build_directory(), "helper")


def command(name: str) -> str:
    """The path of an installed command: the one beside the interpreter that runs the tests."""
    return os.path.join(os.path.dirname(sys.executable), name)
