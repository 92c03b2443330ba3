"""Bytes of an image, to be damaged: the whole file, or a part whose places count from its beginning."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import struct
import tempfile
from collections.abc import Iterator
from typing import Final, Self

from snf_image_process import run
from snf_image_vmtests.ext_image import ExtImage
from snf_image_vmtests.fixture_images import FixtureImage

MIB: Final = 1024 * 1024
SECTOR: Final = 512
_SECONDS: Final = 120.0


class Region:
    """``size`` bytes at ``start`` of the open file ``fd``; all places are relative to ``start``."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self.fd, self.start, self.size = fd, start, size

    def part(self, start: int, size: int) -> Region:
        return Region(self.fd, self.start + start, size)

    def read(self, at: int, length: int) -> bytes:
        data = os.pread(self.fd, length, self.start + at)
        assert len(data) == length, f"the image ends before byte {at + length}"
        return data

    def write(self, at: int, data: bytes) -> None:
        os.pwrite(self.fd, data, self.start + at)

    def number(self, at: int, form: str) -> int:
        """One number; ``form`` as in :mod:`struct`, byte order first: ``<I``."""
        return int(struct.unpack(form, self.read(at, struct.calcsize(form)))[0])

    def put(self, at: int, form: str, *values: int) -> None:
        self.write(at, struct.pack(form, *values))

    def fill(self, at: int, length: int, byte: int) -> None:
        self.write(at, bytes([byte]) * length)

    def flip(self, at: int, length: int, *, bits: int = 16, seed: int = 1) -> None:
        """Invert ``bits`` different bits between ``at`` and ``at + length``: the same ones each time."""
        data = bytearray(self.read(at, length))
        # Not for secrets: the corpus must be the same every time.
        for bit in random.Random(seed).sample(range(8 * length), bits):  # noqa: S311
            data[bit // 8] ^= 1 << bit % 8
        self.write(at, bytes(data))

    @contextlib.contextmanager
    def extracted(self) -> Iterator[str]:
        """These bytes as a file of their own, for tools that know no offset; written back in the end."""
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(self.size)
            _copy(self.fd, self.start, file.fileno(), 0, self.size)
            yield file.name
            with open(file.name, "rb") as changed:
                assert os.fstat(changed.fileno()).st_size == self.size, "a tool changed the size"
                _copy(changed.fileno(), 0, self.fd, self.start, self.size)


class ImageFile(Region):
    """A copy of a fixture image. ``root``: its root file system; ``slot``: where that partition begins."""

    def __init__(self, fixture: FixtureImage, path: str, fd: int) -> None:
        super().__init__(fd, 0, os.fstat(fd).st_size)
        self.fixture, self.path = fixture, path
        number = fixture.facts.root_partition
        first = next(part for part in fixture.partitions if part.number == number)
        self.root = self.part(first.start_sector * SECTOR, first.sector_count * SECTOR)

    @classmethod
    @contextlib.contextmanager
    def copy_of(cls, fixture: FixtureImage, path: str) -> Iterator[Self]:
        run(["cp", "--sparse=always", fixture.path, path], timeout=_SECONDS)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield cls(fixture, path, fd)
        finally:
            os.close(fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)
        self.size = size

    @property
    def ext(self) -> ExtImage:
        """Its root file system through debugfs, if that is an ext."""
        return ExtImage.on(self.path, self.fixture)


def extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, as places and lengths of at most a mebibyte; what is between are zeros."""
    at = start
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        stop = min(os.lseek(fd, at, os.SEEK_HOLE), end)
        while at < stop:
            length = min(MIB, stop - at)
            yield at, length
            at += length


def digest(path: str) -> str:
    """SHA-256 of a file's size, and of its data with their places: holes of images are large."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        fd, size = file.fileno(), os.fstat(file.fileno()).st_size
        found.update(b"%d" % size)
        for at, length in extents(fd, 0, size):
            found.update(b"%d:%d" % (at, length))
            found.update(os.pread(fd, length, at))
    return found.hexdigest()


def _copy(source: int, source_at: int, target: int, target_at: int, size: int) -> None:
    """Copy bytes to where they are zeros or the same but for what is copied."""
    for at, length in extents(source, source_at, source_at + size):
        data = os.pread(source, length, at)
        place = target_at + at - source_at
        if data != os.pread(target, length, place):
            os.pwrite(target, data, place)
