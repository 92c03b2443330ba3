"""What makes a disk bootable is held back while an image is copied, and written when all else is there."""

from __future__ import annotations

from typing import Final

from snf_image_host.copying.disarming import AnyTarget
from snf_image_host.copying.target import ALIGNMENT, MIB
from snf_image_host.extents import GRANULE

_NOWHERE: Final = 1 << 62
"""Behind every disk."""


class HeldBack:
    """The head of the disk, and the end of the image, where a GPT has its second header (D-12)."""

    def __init__(self, total: int | None) -> None:
        """``total``: bytes of the image on the disk, those of its partition header too; None if not known."""
        self._total = self._tail = _NOWHERE
        if total is not None:
            self.end_at(total)
        self._parts: list[tuple[int, bytes]] = []

    def end_at(self, total: int) -> None:
        """Where the image ends, if that was not known: before its last bytes are given to :meth:`take`."""
        self._total = total
        self._tail = max(GRANULE, (total - 1) // GRANULE * GRANULE)

    def clear(self, target: AnyTarget) -> None:
        """Empty both places, and the disk's own end, whatever an earlier system left there."""
        size = target.disk.size
        last = max(GRANULE, size - MIB)
        target.zero(0, min(GRANULE, size))
        if self._tail < size:
            target.zero(self._tail, self._total - self._tail)
        target.zero(last, size - last)
        target.flush()

    def take(self, view: memoryview, offset: int) -> tuple[memoryview, int]:
        """Keep what of ``view`` belongs to the two places; what is left of it, and its offset."""
        if offset < GRANULE:
            cut = min(len(view), GRANULE - offset)
            self._keep(offset, view[:cut])
            view, offset = view[cut:], offset + cut
        end = offset + len(view)
        if end > self._tail:
            cut = max(0, self._tail - offset)
            self._keep(offset + cut, view[cut:])
            view = view[:cut]
        return view, offset

    def _keep(self, offset: int, view: memoryview) -> None:
        if view:
            self._parts.append((offset, bytes(view)))

    def write(self, target: AnyTarget) -> None:
        """All that was kept; the disk's first page, with its boot sector, after everything else."""
        first = [part for part in self._parts if part[0] == 0]
        for offset, data in self._parts:
            if offset > 0:
                target.write(memoryview(data), offset)
        for offset, data in first:
            target.write(memoryview(data)[ALIGNMENT:], offset + ALIGNMENT)
        target.flush()
        for offset, data in first:
            target.write(memoryview(data)[:ALIGNMENT], offset)
        target.flush()
