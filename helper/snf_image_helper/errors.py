"""Why a task cannot go on, and whose fault it is (the ``blame`` of the terminal event)."""

from __future__ import annotations

from typing import ClassVar, Literal


class TaskError(Exception):
    """A task failed for a reason its user can read. One cause, or several (R-MON-6)."""

    blame: ClassVar[Literal["request", "image", "customization"]] = "customization"

    def __init__(self, *messages: str) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


class RequestError(TaskError):
    """What was asked cannot be done with this image: a missing user, a swap that does not fit."""

    blame = "request"


class ImageError(TaskError):
    """The image is not what it should be: dirty, truncated, hostile, of an unknown kind."""

    blame = "image"
