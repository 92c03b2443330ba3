"""How fast images are copied, against ``dd`` and ``sha256sum`` on the same files in the same minute.

    .venv/bin/python bench/copy_bench.py IMAGE DISK [--digest]

is one copy in a process of its own, as the command is one; it prints its seconds and its peak of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable
from typing import Final

from measurement import Goal, Measurement, in_turns, ratio

from snf_image_contract.names import ImageFormat
from snf_image_host import deploy  # noqa: F401 - the peak of memory is that of the whole command
from snf_image_host.copying import copy_image
from snf_image_host.deployment import ImageSource, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.source import open_image
from snf_image_process import run

MIB: Final = 1024 * 1024
SIZE: Final = 1024 * MIB
_PERIOD: Final = 64 * MIB
_DATA: Final = 16 * MIB
"""Of the image with holes: so much data at the start of each period, 75 % holes."""
_TIMEOUT: Final = 600.0


class _Bench:
    """The files of a measurement, and one run of each command."""

    def __init__(self, directory: str) -> None:
        self.dense = os.path.join(directory, "dense.raw")
        self.holes = os.path.join(directory, "holes.raw")
        self._disk = os.path.join(directory, "disk.raw")
        self.commands: dict[str, str] = {}
        self.peak_mib = 0.0

    def make_images(self) -> None:
        """Random bytes: nothing on the way can make them smaller."""
        for path, step in ((self.dense, _DATA), (self.holes, _PERIOD)):
            with open(path, "wb") as file:
                for offset in range(0, SIZE, step):
                    file.seek(offset)
                    file.write(os.urandom(_DATA))
                file.truncate(SIZE)
                os.fsync(file.fileno())

    def dd(self, image: str) -> Callable[[], float]:
        words = ["dd", f"if={image}", f"of={self._disk}", "bs=4M", "oflag=direct", "conv=notrunc"]
        return lambda: self._timed(f"dd {os.path.basename(image)}", words, image)

    def sha256sum(self, image: str) -> Callable[[], float]:
        return lambda: self._timed(f"sha256sum {os.path.basename(image)}", ["sha256sum", image], image)

    def copy(self, image: str, *, digest: bool) -> Callable[[], float]:
        """What counts is the copy, not Python's start."""
        words = [sys.executable, os.path.abspath(__file__), image, self._disk]
        words += ["--digest"] if digest else []
        name = f"copy {os.path.basename(image)}{' with digest' if digest else ''}"

        def once() -> float:
            self._prepare(image)
            self.commands[name] = shlex.join(words)
            said = json.loads(run(words, timeout=_TIMEOUT).stdout)
            self.peak_mib = max(self.peak_mib, said["peak_mib"])
            return float(said["seconds"])

        return once

    def _timed(self, name: str, words: list[str], image: str) -> float:
        self._prepare(image)
        self.commands[name] = shlex.join(words)
        return run(words, timeout=_TIMEOUT).seconds

    def _prepare(self, image: str) -> None:
        """A new, sparse disk; nothing left to be written by the kernel; the image in its cache."""
        if os.path.exists(self._disk):
            os.unlink(self._disk)
        with open(self._disk, "wb") as file:
            file.truncate(SIZE)
        os.sync()
        with open(image, "rb", buffering=0) as file:
            while file.read(4 * MIB):
                pass


def measure_copy(directory: str, rounds: int) -> Measurement:
    """Make two images of 1 GiB in ``directory`` and time everything ``rounds`` times."""
    bench = _Bench(directory)
    bench.make_images()
    times = in_turns(
        {
            "dd, dense": bench.dd(bench.dense),
            "copy, dense, no digest": bench.copy(bench.dense, digest=False),
            "copy, 75 % holes, no digest": bench.copy(bench.holes, digest=False),
            "sha256sum, dense": bench.sha256sum(bench.dense),
            "copy, dense, digest": bench.copy(bench.dense, digest=True),
            "dd, 75 % holes": bench.dd(bench.holes),
            "copy, 75 % holes, digest": bench.copy(bench.holes, digest=True),
        },
        rounds,
    )
    dd, digest = "dd, dense", "copy, dense, digest"
    return Measurement(
        title="copy of a 1 GiB raw image onto a new file, image in the page cache",
        rounds=times,
        commands=bench.commands,
        goals=(
            Goal(name="dense / dd", value=ratio(times, "copy, dense, no digest", dd), limit=1.1),
            Goal(name="75 % holes / dd", value=ratio(times, "copy, 75 % holes, no digest", dd), limit=0.4),
            Goal(
                name="digest / slower of dd and sha256sum",
                value=ratio(times, digest, dd, "sha256sum, dense"),
                limit=1.15,
            ),
            Goal(name="peak memory of the copying process", value=bench.peak_mib, limit=100, unit="MiB"),
        ),
    )


def _copy(image: str, disk: str, *, digest: bool) -> dict[str, float]:
    """One copy in this process."""
    source = ImageSource(path=image, shown=os.path.basename(image), format=ImageFormat.DISKDUMP)
    with open_disks([TargetDisk(index=0, path=disk)]) as disks, open_image(source) as stream:
        begun = time.monotonic()
        copy_image(stream, disks[0], digest=digest)
        seconds = time.monotonic() - begun
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description="One timed copy.")
    parser.add_argument("image")
    parser.add_argument("disk")
    parser.add_argument("--digest", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(_copy(arguments.image, arguments.disk, digest=arguments.digest)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
