"""Where the kernel's first program enters: as :mod:`snf_image_helper.init`, started quickly."""

from __future__ import annotations

import sys
import types
from typing import Any

from snf_image_helper import plain_dataclasses


def main() -> None:
    """Never returns; before anything else is imported, what is slow to import is replaced."""
    replace_slow_modules()
    from snf_image_helper import init  # noqa: PLC0415 - what it imports must find the modules above

    init.main()


def replace_slow_modules() -> None:
    """Put less in the place of modules of the standard library of which the helper uses little."""
    modules: dict[str, Any] = sys.modules
    modules["dataclasses"] = plain_dataclasses
    # None makes hashlib do without OpenSSL, which takes a fifth of a second to load for the few digests here.
    modules["_hashlib"] = None
    # Module subprocess asks for it, for text that nobody has it read.
    modules["locale"] = types.SimpleNamespace(getencoding=lambda: "utf-8")
