"""The last lines of a script's log: Ganeti shows its user the last twenty and nothing else.

They stand by themselves, and are ASCII: Ganeti shows other characters as escapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from snf_image_host.errors import HelperError, ImageError, NodeError, SnfImageError, UserError
from snf_image_host.inert import inert

MAX_LINES: Final = 18
_MAX_CAUSES: Final = 9
_MAX_DETAILS: Final = 3
_MAX_LINE: Final = 300
_CLASSES: Final[dict[type[SnfImageError], str]] = {
    UserError: "the request is wrong",
    ImageError: "the image is bad",
    HelperError: "the customisation failed",
    NodeError: "the node is at fault",
}
_REPLACED: Final = {"\u2026": "...", "\u2013": "-"}


def class_of(error: SnfImageError) -> str:
    """Whose fault an error is, in words (D-16)."""
    return _CLASSES.get(type(error), "failed")


def plain(text: str) -> str:
    """``text`` as one line of ASCII that cannot steer a terminal."""
    for character, instead in _REPLACED.items():
        text = text.replace(character, instead)
    line = inert(text).encode("ascii", "backslashreplace").decode("ascii")
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 3] + "..."


def failure_lines(
    script: str,
    kind: str,
    causes: Sequence[str],
    *,
    instance: str | None = None,
    stays: bool = False,
    details: Sequence[str] = (),
    hint: str = "",
    kept: str | None = None,
    receipt: str | None = None,
) -> list[str]:
    """At most :data:`MAX_LINES`. ``stays``: the instance is still there, and what can be done with it."""
    of = f" of {instance}" if instance else ""
    lines = [f"snf-image: {script}{of} failed: {kind}"]
    lines += [f"  - {cause}" for cause in causes[:_MAX_CAUSES]]
    if len(causes) > _MAX_CAUSES:
        lines.append(f"  - and {len(causes) - _MAX_CAUSES} more, see above")
    lines += [f"  | {detail}" for detail in details[-_MAX_DETAILS:]]
    if hint:
        lines.append(f"  hint: {hint}")
    if stays and instance:
        lines.append("  The instance and its disks are still there. When the cause is mended:")
        lines.append(f"    gnt-instance reinstall {instance}    or    gnt-instance remove {instance}")
    if kept:
        lines.append(f"  evidence on the node: {kept}")
    if receipt:
        lines.append(f"  receipt on the node: {receipt}")
    return [plain(line) for line in lines]
