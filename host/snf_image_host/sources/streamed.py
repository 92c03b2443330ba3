"""An image that comes as a stream: decoded, fetched, or written by another program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from snf_image_host.errors import ImageError
from snf_image_host.extents import Extent
from snf_image_host.sources.reading import ByteSource

_ENDLESS: Final = 1 << 62


class StreamedImage:
    """``source`` as the image. ``needed``: bytes that it must have at least, or it is cut off.

    ``at_end`` is called with the digests of what was handed out, after the last byte; what it returns are
    the digests of the source as it was published.
    """

    def __init__(
        self,
        source: ByteSource,
        *,
        shown: str,
        header: bytes,
        needed: int,
        digests: frozenset[str],
        at_end: Callable[[Mapping[str, str]], Mapping[str, str]],
    ) -> None:
        self.shown = shown
        self.size = source.size
        self.header = header
        self.digests = digests
        self.source_digests: Mapping[str, str] = {}
        self._source = source
        self._needed = needed
        self._at_end = at_end
        self._has_ended = False

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, _ENDLESS if self.size is None else self.size, is_hole=False)
        # Here, in the thread that read all else: programs end with the thread that started them, and one
        # that resumed a transfer may have been started by it.
        if not self._has_ended:
            self._expect_end()

    def read_into(self, view: memoryview, offset: int) -> int:  # noqa: ARG002 - a stream has one place
        count = self._source.read_into(view)
        self._has_ended = count == 0
        return count

    def _expect_end(self) -> None:
        """Also where the size is known, only the end shows that nothing else follows."""
        if self.read_into(memoryview(bytearray(1)), 0):
            raise ImageError(f"the image {self.shown} has more than the {self.size} bytes it is said to have")

    def check_whole(self, length: int, digests: Mapping[str, str]) -> None:
        if length == 0:
            raise ImageError(f"the image {self.shown} is empty")
        if length < self._needed:
            raise ImageError(
                f"the image {self.shown} is cut off: what is on it ends at byte {self._needed}, "
                f"it has {length} bytes"
            )
        self.source_digests = self._at_end(digests)

    def abandon(self) -> None:
        self._source.abandon()
