"""What the copy knows of an image, wherever it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from snf_image_host.disks import Disk
from snf_image_host.errors import UserError
from snf_image_host.extents import Extent
from snf_image_host.partition_header import HEADER_SIZE


class ImageStream(Protocol):
    """An image that is read once, from its first byte to its last.

    ``shown``: its name in messages. ``size`` in bytes, None if only its end will tell. ``header``: what is
    written to the disk before it. ``digests``: names of those that :meth:`check_whole` wants of the bytes.
    """

    @property
    def shown(self) -> str: ...

    @property
    def size(self) -> int | None: ...

    @property
    def header(self) -> bytes: ...

    @property
    def digests(self) -> frozenset[str]: ...

    @property
    def source_digests(self) -> Mapping[str, str]:
        """After the last byte: digests of the source as it was published, by name; empty if not computed."""

    def extents(self) -> Iterator[Extent]:
        """Data and holes in order, without gaps; if the size is not known, one extent without an end."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read what follows ``offset`` into ``view``; how many bytes, 0 only at the end of the image.

        Called with rising offsets. :class:`NodeError` if it cannot be read.
        """

    def check_whole(self, length: int, digests: Mapping[str, str]) -> None:
        """After the last byte: :class:`ImageError` if what was read is not all, or not the right image.

        ``length`` and ``digests`` are those of the bytes that were handed out.
        """

    def abandon(self) -> None:
        """The copy is given up: end a read that another thread is in."""


def total_of(image: ImageStream) -> int | None:
    """Bytes that arrive on the disk, the header's too (R-FMT-7); None if they are not known."""
    return None if image.size is None else len(image.header) + image.size


def refuse_too_large(image: ImageStream, disk: Disk, *, at_least: int | None = None) -> None:
    """:class:`UserError` before the first byte if the image does not fit (R-DST-LOCAL-2).

    ``at_least``: bytes that an image of unknown size has turned out to have, the header's included.
    """
    total = total_of(image) if at_least is None else at_least
    if total is not None and total > disk.size:
        with_header = f" (with {HEADER_SIZE} bytes for a partition table)" if image.header else ""
        size = f"{image.size} bytes" if at_least is None else f"more than {disk.size} bytes"
        raise UserError(
            f"the image {image.shown} has {size}{with_header}, the disk {disk.path} has only {disk.size}",
            hint="give it a larger disk",
        )
