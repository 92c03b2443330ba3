"""Pairwise covering: a few rows in which each two values that can go together do so at least once.

The same parameters give the same rows each time. A row is made greedily around a pair that none has yet; what
cannot go together is said by the caller, for two values at a time.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

_NOTHING_USED: Final[Mapping[tuple[str, str], int]] = {}
Row = dict[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two parameters, in the order in which they were given, each with a value."""
Excludes = Callable[[str, str, str, str], bool]
"""Of parameter, value, other parameter, other value: whether the two cannot go together."""


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """Every pair of a row's values."""
    return set(itertools.combinations(row.items(), 2))


class Parameters:
    """Named values, and which of them exclude each other.

    ``rare``: parameters with a value that is chosen only where that covers something.
    """

    def __init__(
        self, values: Mapping[str, Sequence[str]], excludes: Excludes, rare: Mapping[str, str] | None = None
    ) -> None:
        self._rare = rare or {}
        self.values = dict(values)
        self._order = {name: place for place, name in enumerate(values)}
        self._excludes = excludes

    def goes(self, row: Mapping[str, str], name: str, value: str) -> bool:
        """Whether a value goes together with all those of a row."""
        return not any(
            self._excludes(name, value, other, chosen) or self._excludes(other, chosen, name, value)
            for other, chosen in row.items()
        )

    def possible_pairs(self) -> set[Pair]:
        """The pairs that are in any row at all."""
        found: set[Pair] = set()
        for one, other in itertools.combinations(self.values, 2):
            for value, second in itertools.product(self.values[one], self.values[other]):
                row = {one: value}
                if self.goes(row, other, second) and self.completed(row | {other: second}) is not None:
                    found.add(((one, value), (other, second)))
        return found

    def completed(
        self, row: Row, uncovered: Collection[Pair] = (), used: Mapping[tuple[str, str], int] = _NOTHING_USED
    ) -> Row | None:
        """The row with a value of each parameter.

        Values that cover most are tried first, and of those the ones that are ``used`` least.
        """
        missing = [name for name in self.values if name not in row]
        if not missing:
            return {name: row[name] for name in self.values}
        name = missing[0]
        fitting = [value for value in self.values[name] if self.goes(row, name, value)]

        def worth(value: str) -> tuple[int, bool, int]:
            gain = sum(self._pair(name, value, other, chosen) in uncovered for other, chosen in row.items())
            return -gain, self._rare.get(name) == value, used.get((name, value), 0)

        fitting.sort(key=worth)
        for value in fitting:
            whole = self.completed(row | {name: value}, uncovered, used)
            if whole is not None:
                return whole
        return None

    def _pair(self, name: str, value: str, other: str, chosen: str) -> Pair:
        if self._order[name] < self._order[other]:
            return (name, value), (other, chosen)
        return (other, chosen), (name, value)

    def _ordered(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """In the order in which parameters and values were given."""

        def place(pair: Pair) -> list[int]:
            return [n for name, value in pair for n in (self._order[name], self.values[name].index(value))]

        return iter(sorted(pairs, key=place))

    def covering(self) -> list[Row]:
        """Rows with every possible pair."""
        uncovered = dict.fromkeys(self._ordered(self.possible_pairs()), 0)
        used: collections.Counter[tuple[str, str]] = collections.Counter()
        rows = []
        while uncovered:
            row = self.completed(dict(next(iter(uncovered))), uncovered, used)
            if row is None:  # it is possible, as possible_pairs found out
                raise ValueError("a pair that cannot be completed")
            rows.append(row)
            used.update(row.items())
            for pair in pairs_of(row):
                uncovered.pop(pair, None)
        return rows
