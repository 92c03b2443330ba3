"""What was measured: times of repeated commands, ratios of their medians, and goals for these."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A measured value and what it may be at most, or ``at_least``; ``limit`` None: only told."""

    name: str
    value: float
    limit: float | None = None
    unit: str = ""
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"value": round(self.value, 4), "met": self.is_met}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One subject: seconds of every round by name, the commands that were timed, goals, remarks.

    ``processor``: user and system seconds by name, medians, with those of children.
    """

    title: str
    rounds: Mapping[str, tuple[float, ...]]
    commands: Mapping[str, str]
    goals: tuple[Goal, ...] = ()
    remarks: tuple[str, ...] = ()
    processor: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "commands": dict(self.commands),
            "seconds": {
                name: {"median": round(statistics.median(values), 4), "rounds": list(values)}
                for name, values in self.rounds.items()
            },
            "processor": {
                name: {"user": user, "system": system} for name, (user, system) in self.processor.items()
            },
            "goals": [goal.as_json() for goal in self.goals],
            "remarks": list(self.remarks),
        }

    def table(self) -> Iterator[str]:
        """The same for people, line by line."""
        yield self.title
        for name, values in self.rounds.items():
            spread = f"{min(values):.2f} to {max(values):.2f}, {len(values)} rounds"
            if name in self.processor:
                user, system = self.processor[name]
                spread += f"; user {user:.2f}, system {system:.2f}"
            yield f"  {name:<44} {statistics.median(values):8.3f} s   ({spread})"
        for goal in self.goals:
            verdict = ""
            if goal.limit is not None:
                how = "least" if goal.at_least else "most"
                verdict = f"   at {how} {goal.limit:g}: {'met' if goal.is_met else 'MISSED'}"
            yield f"  {goal.name:<44} {goal.value:8.3f} {goal.unit:<3}{verdict}"
        for remark in self.remarks:
            yield f"  {remark}"


def in_turns(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Each run once a round, one after the other, so that a busy moment of the machine meets all of them.

    What one has left to be written out is written before the next begins.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, once in runs.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr, flush=True)
            os.sync()
            times[name].append(round(once(), 4))
    return {name: tuple(values) for name, values in times.items()}


def ratio(times: Mapping[str, tuple[float, ...]], name: str, *others: str) -> float:
    """The median of one, in terms of the slowest of the others."""
    slowest = max(statistics.median(times[other]) for other in others)
    return statistics.median(times[name]) / slowest
