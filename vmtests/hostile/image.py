"""One row of the corpus: which image, what is done to it, and how its deployment may end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from hostile.region import ImageFile

FINE: Final = frozenset({0})
"""The image is strange, but there is nothing wrong with it."""
REFUSED: Final = frozenset({3, 4})
"""The image is at fault, or the helper VM died of it."""
UNFIT: Final = frozenset({2})
"""Not the image but the request is at fault: the image cannot be had like this."""
EITHER: Final = FINE | REFUSED
"""It may be noticed or not, so long as nothing breaks."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostileImage:
    """One image. ``id`` is stable; ``base`` names a fixture image.

    ``structure``: what is damaged, one of :data:`hostile.structures.STRUCTURES`.
    ``damage`` changes a copy of the base. ``ends``: exit codes that are right. ``words``: of the error.
    ``options``: more of the command's options. ``sampled``: one of those that run each time.
    """

    id: str
    base: str
    structure: str
    damage: Callable[[ImageFile], None]
    ends: frozenset[int] = REFUSED
    words: str = ""
    options: tuple[str, ...] = ()
    sampled: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Makes the rows of one kind: ``kind`` begins their ids and structures, ``base`` is the usual image."""

    kind: str
    base: str

    def __call__(
        self,
        name: str,
        what: str,
        damage: Callable[[ImageFile], None],
        *,
        base: str | None = None,
        ends: frozenset[int] = REFUSED,
        words: str = "",
        sampled: bool = False,
    ) -> HostileImage:
        return HostileImage(
            id=f"{self.kind}-{name}",
            base=base or self.base,
            structure=f"{self.kind}: {what}",
            damage=damage,
            ends=ends,
            words=words,
            sampled=sampled,
        )
