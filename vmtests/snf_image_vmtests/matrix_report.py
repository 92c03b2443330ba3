"""The report of a matrix: what each cell's evidence says, as data and as a page."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from typing import Any, Final, Literal

from snf_image_contract import codec
from snf_image_vmtests.evidence import tail
from snf_image_vmtests.fixture_images import Facts
from snf_image_vmtests.matrix import Cell

RECORD: Final = "cell.json"
"""The file in a cell's evidence that makes it one of the report."""
_STEP: Final = re.compile(r" *(\d+\.\d+) s  (\w+) +(.*)")
_LOG_BYTES: Final = 64 * 1024
_MAX_RECORD: Final = 1024 * 1024
Outcome = Literal["passed", "failed", "skipped", "not run"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of a cell. ``message``: the last line of what went wrong, or why it was skipped."""

    cell: Cell
    family: str
    distribution: str
    filesystem: str
    table: str
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""

    def requests(self) -> tuple[str, ...]:
        """The columns of the report that the cell belongs to, in their order."""
        cell = self.cell
        asked = {
            "hostname": cell.hostname is not None,
            "password": cell.credential in ("password", "password+keys"),
            "hash": cell.credential == "hash",
            "keys": cell.gives_keys,
            "swap partition": cell.swap_partition is not None,
            "swap disk": cell.swap is not None and cell.swap_partition is None,
            "DHCP": cell.network == "dhcp",
            "static IPv4": cell.network.startswith("static"),
            "IPv6 SLAAC": cell.network == "static+slaac",
            "files": cell.files,
            "cloud-init": cell.cloud_init,
            "dump": cell.dump,
            "deployed twice": cell.twice,
            "booted": cell.boot,
            "refused": cell.refused is not None,
        }
        return tuple(name for name, wanted in asked.items() if wanted) or ("nothing",)


COLUMNS: Final = (
    "nothing", "hostname", "password", "hash", "keys", "swap partition", "swap disk", "DHCP", "static IPv4",
    "IPv6 SLAAC", "files", "cloud-init", "dump", "deployed twice", "booted", "refused",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a test: how long it took, ``ok`` or ``failed``, and what it was."""

    seconds: float
    verdict: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A cell with its evidence. ``logs``: titles and texts. ``screenshots``: paths of PNG files."""

    record: Record
    directory: str | None = None
    steps: tuple[Step, ...] = ()
    logs: tuple[tuple[str, str], ...] = ()
    screenshots: tuple[str, ...] = ()


def write_record(directory: str, record: Record) -> None:
    """Leave what became of a cell in its evidence."""
    with open(os.path.join(directory, RECORD), "wb") as file:
        file.write(codec.dumps(record, indent=2).encode())


def record_of(cell: Cell, facts: Facts | None, outcome: Outcome, seconds: float, message: str) -> Record:
    """``facts`` None: of an image that is not there."""
    return Record(
        cell=cell,
        family=facts.family if facts else "unknown",
        distribution=facts.distribution if facts else "unknown",
        filesystem=facts.root_filesystem if facts else "unknown",
        table="none (dump)" if cell.dump else facts.table if facts else "unknown",
        outcome=outcome,
        seconds=seconds,
        message=message,
    )


def collect(directory: str, since: float) -> dict[str, Reported]:
    """Cells by id whose record below ``directory`` is not older than ``since`` (seconds since the epoch)."""
    found: dict[str, Reported] = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        path = os.path.join(directory, name)
        record = os.path.join(path, RECORD)
        if os.path.exists(record) and os.stat(record).st_mtime >= since:
            reported = read_evidence(path)
            found[reported.record.cell.id] = reported
    return found


def read_evidence(directory: str) -> Reported:
    """One cell's directory."""
    with open(os.path.join(directory, RECORD), "rb") as file:
        plain = codec.loads(file.read(_MAX_RECORD), limit=_MAX_RECORD, where=directory)
    names = sorted(os.listdir(directory))
    logs = [name for name in names if name.endswith((".log", ".jsonl", ".stderr"))]
    texts = [name for name in ("receipt.json", "changed.txt", "deploy-argv.json") if name in names]
    return Reported(
        record=codec.decode(Record, plain, where=directory),
        directory=directory,
        steps=tuple(_steps(os.path.join(directory, "steps.txt"))),
        logs=tuple(
            (name, tail(os.path.join(directory, name), _LOG_BYTES))
            for name in [*logs, *texts]
            if os.path.getsize(os.path.join(directory, name))
        ),
        screenshots=tuple(os.path.join(directory, name) for name in names if name.endswith(".png")),
    )


def _steps(path: str) -> Iterable[Step]:
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            found = _STEP.match(line)
            if found is not None:
                yield Step(seconds=float(found[1]), verdict=found[2], text=found[3])


def summary(cells: Iterable[Reported]) -> dict[str, int]:
    """How many there are of each outcome."""
    counts = dict.fromkeys(("passed", "failed", "skipped", "not run"), 0)
    for reported in cells:
        counts[reported.record.outcome] += 1
    return counts


def as_json(cells: tuple[Reported, ...]) -> dict[str, Any]:
    """The report for programs; paths of evidence as they are on this machine."""
    return {
        "format": 1,
        "summary": summary(cells),
        "cells": [
            {
                **codec.encode(reported.record),
                "id": reported.record.cell.id,
                "requests": list(reported.record.requests()),
                "evidence": reported.directory,
                "steps": [dataclasses.asdict(step) for step in reported.steps],
            }
            for reported in cells
        ],
    }


def write_json(path: str, cells: tuple[Reported, ...]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(as_json(cells), file, indent=1, ensure_ascii=False)
        file.write("\n")
