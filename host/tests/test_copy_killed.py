"""A copy that dies at any moment leaves a disk that nobody takes for good: every moment, and random ones."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from snf_image_process import PIPE, Running, start

pytestmark = pytest.mark.slow

MIB: Final = 1 << 20
PAGE: Final = 4096
_NOISE: Final = random.Random(11).randbytes(6 * MIB)  # noqa: S311 - reproducible, not secret
IMAGE: Final = bytes(510) + b"\x55\xaa" + b"EFI PART" + _NOISE + bytes(MIB) + b"EFI PART" + bytes(504)
OLD: Final = bytes(510) + b"\x55\xaa" + b"EFI PART" + b"\xaa" * (11 * MIB) + b"EFI PART" + bytes(504)
SIZE: Final = len(IMAGE) + 2 * MIB

_CHILD: Final = """
import os, signal, sys
from snf_image_contract.names import ImageFormat
from snf_image_host.copying import copy_image, target
from snf_image_host.deployment import ImageSource, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.sources.image import open_image

left = [0]
def dying(call):
    def counted(*arguments):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return counted
os.pwrite, os.fdatasync = dying(os.pwrite), dying(os.fdatasync)
target._fallocate = dying(target._fallocate)

def copy():
    image = ImageSource(path=sys.argv[1], shown="image", format=ImageFormat.DISKDUMP, digest=False)
    with open_disks([TargetDisk(index=0, path=sys.argv[2])]) as disks, open_image(image) as stream:
        copy_image(stream, disks[0])

for line in sys.stdin:
    left[0] = int(line)
    child = os.fork()
    if child == 0:
        copy()
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Copier:
    """Copies in a process of its own, again and again."""

    def __init__(self, running: Running, disk: Path) -> None:
        self._running = running
        self._disk = disk

    def start(self, moment: int) -> int:
        """Onto a disk with an old system. ``moment``: number of the system call that it dies at, 0: none."""
        with self._disk.open("wb") as file:
            file.write(OLD[:SIZE].ljust(SIZE, b"\xaa"))
        assert self._running.stdin is not None
        self._running.stdin.write(f"{moment}\n".encode())
        self._running.stdin.flush()
        return self._line()

    def end(self) -> bool:
        """Whether the copy got to its end. What is on the disk is looked at."""
        ended = self._line() == 0
        got = self._disk.read_bytes()
        assert len(got) == SIZE
        if any(got[:PAGE]):
            # What boots is there: so is all else.
            assert got[: len(IMAGE)] == IMAGE
        assert not (ended and not any(got[:PAGE]))
        return ended

    def has_old_system(self) -> bool:
        with self._disk.open("rb") as file:
            return file.read(PAGE) == OLD[:PAGE]

    def _line(self) -> int:
        assert self._running.stdout is not None
        return int(self._running.stdout.readline())


@pytest.fixture
def copier(tmp_path: Path) -> Iterator[Copier]:
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(IMAGE)
    argv = [sys.executable, "-c", _CHILD, str(image), str(disk)]
    with start(argv, stdin=PIPE, stdout=PIPE) as running:
        yield Copier(running, disk)


def test_at_every_moment(copier: Copier) -> None:
    """D-12, R-SCR-CREATE-3: killed before each call that changes the disk, there is no page that boots.

    The very first call empties it; before that the old system is whole.
    """
    copier.start(2)
    assert not copier.end()
    moment = 3
    while copier.start(moment) and not copier.end():
        moment += 1
    assert moment > 8


def test_at_random_moments(copier: Copier) -> None:
    """D-12: the kernel may be anywhere in a call then."""
    copier.start(0)
    begun = time.monotonic()
    assert copier.end()
    whole = time.monotonic() - begun
    chance = random.SystemRandom()
    for _ in range(12):
        child = copier.start(0)
        # The old system is on the disk until the copy begins; what is tested comes after that.
        while copier.has_old_system():
            time.sleep(0)
        time.sleep(chance.uniform(0, whole))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        copier.end()
