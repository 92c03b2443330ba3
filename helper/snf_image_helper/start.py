"""Where the kernel's first program enters: as :mod:`snf_image_helper.init`, started quickly."""

from __future__ import annotations

import sys
from typing import Any

from snf_image_helper import plain_dataclasses


def main() -> None:
    """Never returns; before anything else is imported, classes are made cheap to define."""
    modules: dict[str, Any] = sys.modules
    modules["dataclasses"] = plain_dataclasses
    # None makes hashlib do without OpenSSL, which takes a fifth of a second to load for the few digests here.
    modules["_hashlib"] = None
    from snf_image_helper import init  # noqa: PLC0415 - what it imports must find the module above

    init.main()
