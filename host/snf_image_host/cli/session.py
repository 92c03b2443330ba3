"""What is known about a running command when it ends in an unforeseen way."""

from __future__ import annotations

import dataclasses

from snf_image_contract.secret import Secret


@dataclasses.dataclass(slots=True, kw_only=True)
class Session:
    """``secrets``: not to be in a report. ``spoiled``: what to say of the disk after an interruption."""

    as_json: bool = False
    secrets: tuple[Secret, ...] = ()
    spoiled: str | None = None
