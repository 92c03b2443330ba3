"""A disk format that comes as a stream: what is kept of it, how much, and that it is said."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from simulated_source import MIB, copied
from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource, SourceSettings
from snf_image_host.errors import ImageError, NodeError, SnfImageError, UserError
from snf_image_host.reporter import Event, Info

# Enough to be taken for a qcow2, and refused as soon as it is looked into.
IMAGE = b"QFI\xfb".ljust(3 * MIB, b"\0")


class Place:
    """A compressed image, a disk that was used, a directory to keep things in; remembers what it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.image = directory / "image"
        self.image.write_bytes(gzip.compress(IMAGE))
        self.disk = directory / "disk"
        self.disk.write_bytes(b"\xff" * 4 * MIB)
        self.spool = directory / "spool"
        self.spool.mkdir()
        self.told: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Info):
            self.told.append(event.message)

    def close(self) -> None:
        pass

    def refused(self, kind: type[SnfImageError], message: str, *, limit: int) -> None:
        """Why; neither the disk nor the directory has anything of it."""
        settings = SourceSettings(
            containers=frozenset({"gzip", "qcow2"}),
            spool_dir=str(self.spool),
            spool_max=limit,
            runtime_dir=str(self.directory / "run"),
        )
        source = ImageSource(
            path=str(self.image),
            shown="x",
            format=ImageFormat.DISKDUMP,
            container="auto",
            settings=settings,
        )
        with pytest.raises(kind, match=message):
            copied(source, self.disk, sink=self)
        assert self.disk.read_bytes() == b"\xff" * 4 * MIB
        assert not self.spool.exists() or list(self.spool.iterdir()) == []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_operator_limits_what_is_kept(place: Place) -> None:
    """D-3, D-4: SPOOL_MAX_SIZE, of what comes out of a decoder, and before anybody looks into it."""
    place.refused(UserError, "has more than 2 MiB before it is unwrapped", limit=len(IMAGE) - 1)
    place.refused(ImageError, "has version 0", limit=len(IMAGE))


def test_the_user_is_told_that_it_is_kept(place: Place) -> None:
    """D-3: it takes time and room of the node."""
    place.refused(ImageError, "has version 0", limit=len(IMAGE))
    assert place.told == ["the image x is qcow2 and is kept on the node while it is read"]


def test_a_directory_that_is_not_there(place: Place) -> None:
    """D-3, R-BACK-9: is the node's fault, and named."""
    place.spool.rmdir()
    place.refused(NodeError, "SPOOL_DIR .*/spool cannot be used: No such file", limit=len(IMAGE))
