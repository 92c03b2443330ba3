"""Errors for somebody: what failed, on which input, what to do about it.

Raised anywhere, printed in exactly one place (:mod:`snf_image_host.cli`). Anything else that reaches that
place is a bug of ours and ends with status 70.
"""

from __future__ import annotations

from typing import ClassVar


class SnfImageError(Exception):
    """Something the user can read and act on.

    ``messages``: one line per cause, the first says it all. ``hint``: what to do. ``details``: further
    lines, such as the end of a program's error output. ``kept``: directory with the evidence.
    """

    exit_code: ClassVar[int]

    def __init__(
        self, *messages: str, hint: str = "", details: tuple[str, ...] = (), kept: str | None = None
    ) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages
        self.hint = hint
        self.details = details
        self.kept = kept


class UserError(SnfImageError):
    """The request is wrong."""

    exit_code = 2


class ImageError(SnfImageError):
    """The image is bad."""

    exit_code = 3


class VerificationError(ImageError):
    """The image is not the one that was promised; nothing of it may be used."""


class HelperError(SnfImageError):
    """The customisation failed."""

    exit_code = 4


class NodeError(SnfImageError):
    """The node is at fault: a missing program, no space, a disk that fails."""

    exit_code = 5
