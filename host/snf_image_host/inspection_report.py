"""What an inspection found, collected from the helper's events, for people and for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from snf_image_contract.events import (
    FoundPartition,
    FoundSystem,
    FoundUsers,
    OperatorTaskWouldRun,
    Warned,
    WouldRun,
)
from snf_image_host.inert import inert
from snf_image_host.reporter import Event, HelperSaid

_COLUMNS = ("nr", "start", "size", "type", "file system", "label", "name", "role", "remark")
_USERS_SHOWN = 20


class InspectionReport:
    """A sink. What it shows comes from an untrusted image: control characters are escaped."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._system: FoundSystem | None = None
        self._partitions: list[FoundPartition] = []
        self._users: list[str] = []
        self._more_users = 0
        self._tasks: list[WouldRun | OperatorTaskWouldRun] = []
        self._warnings: list[str] = []

    def handle(self, event: Event) -> None:
        if not isinstance(event, HelperSaid):
            return
        match event.event:
            case FoundSystem() as system:
                self._system = system
            case FoundPartition() as partition:
                self._partitions.append(partition)
            case FoundUsers() as users:
                self._users.extend(users.users)
                self._more_users += users.more
            case WouldRun() | OperatorTaskWouldRun() as task:
                self._tasks.append(task)
            case Warned() as warning:
                self._warnings.append(warning.message)
            case _:
                pass

    def close(self) -> None:
        pass

    def as_json(self) -> dict[str, Any]:
        """A document: system (null if none was found), partitions, users, tasks, warnings."""
        return {
            "image": self._image,
            "system": dataclasses.asdict(self._system) if self._system else None,
            "partitions": [dataclasses.asdict(partition) for partition in self._partitions],
            "users": self._users,
            "more_users": self._more_users,
            "tasks": [{"task": task.task, "skipped": task.skipped} for task in self._tasks],
            "warnings": self._warnings,
        }

    def as_text(self) -> str:
        """Several lines for a terminal. Warnings are not among them: they were shown when they came."""
        lines = [f"image             {inert(self._image)}"]
        lines += self._system_lines()
        if self._partitions:
            rows = [_row(partition) for partition in self._partitions]
            lines += ["", "partitions", *_table(_COLUMNS, rows)]
        if self._tasks:
            lines += ["", "a deployment with these options would"]
            lines += [f"  {_task_line(task)}" for task in self._tasks]
        return "\n".join(lines)

    def _system_lines(self) -> list[str]:
        system = self._system
        if system is None:
            return ["system            none was recognised"]
        distribution = " ".join(word for word in (system.distribution, system.version) if word)
        facts = (
            ("system", system.title or distribution or system.os_family),
            ("family", f"{system.os_family}{f' ({distribution})' if distribution else ''}"),
            ("architecture", system.architecture),
            ("hostname", system.hostname),
            ("partition table", system.partition_table),
            ("root partition", str(system.root_partition)),
            ("network by", system.network_backend),
            ("cloud-init", system.cloud_init),
            ("users", self._users_text()),
        )
        return [f"{name:<17} {inert(value)}" for name, value in facts if value]

    def _users_text(self) -> str:
        shown = ", ".join(self._users[:_USERS_SHOWN])
        more = self._more_users + max(0, len(self._users) - _USERS_SHOWN)
        return f"{shown} and {more} more" if more else shown


def _task_line(task: WouldRun | OperatorTaskWouldRun) -> str:
    return f"skip  {inert(task.task)}: {inert(task.skipped)}" if task.skipped else f"run   {inert(task.task)}"


def _row(partition: FoundPartition) -> tuple[str, ...]:
    return (
        str(partition.number),
        str(partition.start),
        _size(partition.sectors * 512),
        partition.type,
        partition.filesystem or "-",
        partition.label or "-",
        partition.name or "-",
        partition.role or "-",
        partition.verdict,
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    cells = [header, *(tuple(inert(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _size(size: int) -> str:
    """Bytes in the largest unit that leaves at least one."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"
