"""What the operator's pages show, so that tests run the very lines."""

from __future__ import annotations

import os
import re

from snf_image_vmtests import places


def shell_lines(page: str, section: str) -> tuple[str, ...]:
    """Lines of the blocks of shell code in one section (its heading) of a page of ``docs``."""
    with open(os.path.join(places.CHECKOUT, "docs", page), encoding="utf-8") as file:
        sections = re.split(r"^## ", file.read(), flags=re.MULTILINE)
    (text,) = (part for part in sections if part.startswith(f"{section}\n"))
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = tuple(line for block in blocks for line in block.splitlines() if line)
    assert lines, f"{page} has no commands below {section}"
    return lines
