"""Where the kernel's first program enters: as :mod:`snf_image_helper.init`, started quickly."""

from __future__ import annotations

import sys

from snf_image_helper import plain_dataclasses


def main() -> None:
    """Never returns; before anything else is imported, classes are made cheap to define."""
    sys.modules["dataclasses"] = plain_dataclasses
    from snf_image_helper import init  # noqa: PLC0415 - what it imports must find the module above

    init.main()
