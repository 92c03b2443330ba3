"""What the helper says on its third serial port: one bounded JSON object a line.

A line is ``{"seq": N, "kind": "...", ...}`` in ASCII, at most :data:`MAX_LINE` bytes with its newline.
``seq`` counts from 0 without gaps, so that a lost or repeated line is seen.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal

from snf_image_contract import codec
from snf_image_contract.names import OsFamily, TaskName, is_operator_task

MAX_LINE: Final = 64 * 1024
MAX_TEXT: Final = 4096
"""Longest single text in an event, in characters."""
MAX_STDERR_LINES: Final = 10
SUCCESS: Final = "SUCCESS"
"""The word on the second serial port."""

ChangeKind = Literal[
    "created", "modified", "removed", "renamed", "directory", "link", "attributes",
    "partition", "filesystem", "swap", "mount", "note",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing a task changed. ``path`` is the guest's (or ``disk 0 partition 2``). Never a secret."""

    path: str
    change: ChangeKind
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First event: the helper is up and waits for its disks."""

    KIND: ClassVar = "hello"
    contract_version: int
    build: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Awake:
    """Answer to a byte on the third port: a helper restored from a saved state is alive and waits."""

    KIND: ClassVar = "awake"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobAccepted:
    """The medium was found and the job understood."""

    KIND: ClassVar = "job-accepted"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted:
    KIND: ClassVar = "task-start"
    task: TaskName


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnded:
    """``skipped``: why the task did nothing, if it was excluded or does not apply."""

    KIND: ClassVar = "task-end"
    task: TaskName
    seconds: float
    skipped: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTaskStarted:
    """``task``: the name of a task that the operator added to the helper, without its number."""

    KIND: ClassVar = "operator-task-start"
    task: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTaskEnded:
    """``skipped``: why the task was not run."""

    KIND: ClassVar = "operator-task-end"
    task: str
    seconds: float
    skipped: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    KIND: ClassVar = "warning"
    message: str
    task: TaskName | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a task changed; long lists are split over several events."""

    KIND: ClassVar = "changed"
    task: TaskName
    changes: tuple[Change, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What was found or given: sent once, before the first mounted task."""

    KIND: ClassVar = "detected"
    os_family: OsFamily
    root_partition: int
    distribution: str = ""
    version: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoundPartition:
    """Inspection: one partition. Sizes in 512-byte sectors; ``type`` is 0x83 style or a GPT type GUID."""

    KIND: ClassVar = "found-partition"
    number: int
    start: int
    sectors: int
    type: str
    name: str = ""
    filesystem: str = ""
    label: str = ""
    uuid: str = ""
    role: str = ""
    verdict: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoundSystem:
    """Inspection: what operating system is on the image."""

    KIND: ClassVar = "found-system"
    partition_table: str
    os_family: OsFamily
    root_partition: int
    distribution: str = ""
    version: str = ""
    title: str = ""
    hostname: str = ""
    architecture: str = ""
    network_backend: str = ""
    cloud_init: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoundUsers:
    """Inspection: accounts that can be given a password; ``more``: how many were left out."""

    KIND: ClassVar = "found-users"
    users: tuple[str, ...]
    more: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WouldRun:
    """Inspection: a task that a deployment with the same parameters would run or skip."""

    KIND: ClassVar = "would-run"
    task: TaskName
    skipped: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTaskWouldRun:
    """The same of a task that the operator added to the helper, by its name without the number."""

    KIND: ClassVar = "operator-task-would-run"
    task: str
    skipped: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Terminal. ``blame``: whose fault it is, which decides the exit code of the command.

    request: what was asked cannot be done with this image; image: the image is bad;
    customization: a task failed; helper: a bug in the helper.
    """

    KIND: ClassVar = "failed"
    blame: Literal["request", "image", "customization", "helper"]
    messages: tuple[str, ...]
    task: TaskName | None = None
    stderr: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """Terminal: every task is done and everything is unmounted."""

    KIND: ClassVar = "succeeded"


AnyTaskStarted = TaskStarted | OperatorTaskStarted
AnyTaskEnded = TaskEnded | OperatorTaskEnded
Event = (
    Hello | Awake | JobAccepted | TaskStarted | TaskEnded | OperatorTaskStarted | OperatorTaskEnded
    | Warned | Changed | Detected | FoundPartition | FoundSystem | FoundUsers
    | WouldRun | OperatorTaskWouldRun | Failed | Succeeded
)  # fmt: skip

EVENT_TYPES: Final[dict[str, Any]] = {kind.KIND: kind for kind in Event.__args__}


def is_terminal(event: Event) -> bool:
    """Whether nothing may follow this event."""
    return isinstance(event, Failed | Succeeded)


def encode_event(event: Event, seq: int) -> bytes:
    """The line of an event, newline included; :class:`ContractError` if it is too long."""
    line = json.dumps({"seq": seq} | codec.encode(event), ensure_ascii=True, allow_nan=False) + "\n"
    if len(line) > MAX_LINE:
        raise codec.ContractError(f"event {event.KIND}: line of {len(line)} bytes, at most {MAX_LINE}")
    return line.encode("ascii")


def decode_event(line: bytes, seq: int) -> Event:
    """The event of a line that must be number ``seq``; :class:`ContractError` if it is anything else."""
    plain = codec.loads(line, limit=MAX_LINE, where="event")
    if not isinstance(plain, dict):
        raise codec.ContractError("event: expected object")
    got = plain.pop("seq", None)
    if type(got) is not int or got != seq:
        raise codec.ContractError(f"event: number {seq} was due, got {str(got)[:20]}")
    kind = plain.get("kind")
    if not isinstance(kind, str) or kind not in EVENT_TYPES:
        raise codec.ContractError(f"event: unknown kind {str(kind)[:64]!r}")
    event: Event = codec.decode(EVENT_TYPES[kind], plain, where=kind)
    if isinstance(event, OperatorTaskStarted | OperatorTaskEnded) and not is_operator_task(event.task):
        raise codec.ContractError(f"{kind}.task: must be the name of an operator's task")
    return event


def split_changes(task: TaskName, changes: tuple[Change, ...]) -> Iterator[Changed]:
    """``changes`` as events that each fit a line."""
    part: list[Change] = []
    size = 256
    for change in changes:
        cost = len(codec.dumps(change)) + 2
        if part and size + cost > MAX_LINE:
            yield Changed(task=task, changes=tuple(part))
            part, size = [], 256
        part.append(change)
        size += cost
    if part:
        yield Changed(task=task, changes=tuple(part))
