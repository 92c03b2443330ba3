"""Makes what the helper says, and names that strangers chose, harmless to terminals and logs (R-HLP-8, T-34).

Control characters, and characters that reorder or hide text, are shown as escapes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, TypeVar

T = TypeVar("T")

CUT: Final = " [cut]"


def inert(text: str) -> str:
    """``text`` in printable characters only, and so in one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def inert_text(text: str, limit: int) -> str:
    """The same, at most ``limit`` characters."""
    if not text.isprintable():
        text = inert(text[: limit + 1])
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


def inert_bytes(data: bytes, limit: int) -> str:
    """``data`` in printable ASCII only: everything else as ``\\xNN``, at most ``limit`` characters."""
    shown = "".join(map(_BYTES.__getitem__, data[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - len(CUT)] + CUT


def inert_event(event: T, limit: int) -> T:
    """A dataclass of the contract with every text in it made inert."""
    if not dataclasses.is_dataclass(event) or isinstance(event, type):
        return event
    changed = {}
    for field in dataclasses.fields(event):
        before = getattr(event, field.name)
        after = _inert_value(before, limit)
        if after is not before:
            changed[field.name] = after
    return dataclasses.replace(event, **changed) if changed else event


def _inert_value(value: Any, limit: int) -> Any:
    if type(value) is str:
        return value if len(value) <= limit and value.isprintable() else inert_text(value, limit)
    if isinstance(value, tuple):
        items = tuple(_inert_value(item, limit) for item in value)
        unchanged = all(new is old for new, old in zip(items, value, strict=True))
        return value if unchanged else items
    return inert_event(value, limit)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


_BYTES: Final = tuple(
    chr(byte) if 0x20 <= byte < 0x7F else {0x09: "\\t", 0x0D: "\\r"}.get(byte, f"\\x{byte:02x}")
    for byte in range(256)
)
