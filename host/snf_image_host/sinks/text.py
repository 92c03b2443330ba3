"""The words in which people are told; shared by the terminal and by plain lines."""

from __future__ import annotations

from typing import Final

from snf_image_contract.events import AnyTaskEnded, AnyTaskStarted, Detected, Failed, Hello, Warned
from snf_image_host.reporter import (
    ConsoleLine,
    CopyProgress,
    Debug,
    Event,
    HelperSaid,
    Info,
    StageEnded,
    StageStarted,
    Warning,
)

_STAGES: Final = {
    "copy": "copying the image",
    "helper-start": "starting the helper",
    "customize": "customising the disk",
    "digest": "completing the digest of the image",
    "inspect": "inspecting the image",
}
_MIB: Final = 1024 * 1024


def stage_name(stage: str) -> str:
    return _STAGES.get(stage, stage)


def size_text(count: float) -> str:
    """Bytes for people, in the units that disks are asked for in."""
    return f"{count / 1024 / _MIB:.1f} GiB" if count >= 1024 * _MIB else f"{count / _MIB:.0f} MiB"


def line_of(event: Event, *, verbose: bool) -> str | None:
    """What a log says of an event; None: nothing. Progress of the copy is each sink's own business."""
    if isinstance(event, HelperSaid):
        return _helper_line(event, verbose=verbose)
    if isinstance(event, Info | Warning):
        kind = "warning: " if isinstance(event, Warning) else ""
        details = f" ({event.details})" if event.details else ""
        return f"{kind}{event.message}{details}"
    if isinstance(event, StageStarted):
        return f"{stage_name(event.stage)} …" if verbose else None
    if isinstance(event, StageEnded):
        return f"{stage_name(event.stage)}: {event.seconds:.1f} s"
    if verbose and isinstance(event, Debug):
        return event.message
    if verbose and isinstance(event, ConsoleLine):
        return event.text
    return None


def _helper_line(said: HelperSaid, *, verbose: bool) -> str | None:
    event = said.event
    if isinstance(event, Warned):
        task = f"{event.task}: " if event.task else ""
        return f"warning: {task}{event.message}"
    if isinstance(event, Detected):
        words = (event.distribution, event.version, f"({event.os_family})")
        return f"found {' '.join(word for word in words if word)} on partition {event.root_partition}"
    if isinstance(event, AnyTaskEnded):
        skipped = f", skipped: {event.skipped}" if event.skipped else ""
        return f"{event.task}: {event.seconds:.2f} s{skipped}" if verbose else None
    if verbose and isinstance(event, Hello):
        return f"helper {event.build[:12]} is up"
    if verbose and isinstance(event, AnyTaskStarted):
        return f"{event.task} …"
    if verbose and isinstance(event, Failed):
        return f"the helper failed: {'; '.join(event.messages)}"
    return None


def percent(progress: CopyProgress) -> float:
    """0 to 100; 0 while the size is unknown."""
    if progress.final:
        return 100.0
    return min(100.0, 100.0 * progress.position / progress.total) if progress.total else 0.0
