"""How fast images are copied, against other programs on the same files in the same minute.

    .venv/bin/python bench/copy_bench.py [--directory build/bench] [--rounds 5] [--size-mib 1024] [--cold]

Each round measures every command once, one after the other, so that a busy moment of the machine meets all
of them; the median of the rounds counts. Every disk is a new, sparse file. :func:`measure` is the same for
other programs.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

from measurement import Goal, Measurement, in_turns, ratio

from snf_image_contract.names import ImageFormat
from snf_image_host import deploy  # noqa: F401 - the peak of memory is that of the whole command
from snf_image_host.copying import copy_image
from snf_image_host.deployment import ImageSource, SourceSettings, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.sources.image import open_image
from snf_image_process import run

MIB: Final = 1024 * 1024
_PERIOD: Final = 64 * MIB
_DATA: Final = 16 * MIB
"""Of the image with holes: so much data at the start of each period, 75 % holes."""
_TIMEOUT: Final = 600.0


class _Bench:
    """The files of a measurement, and one run of each command."""

    def __init__(self, directory: str, size: int, *, cold: bool) -> None:
        self.dense = os.path.join(directory, "dense.raw")
        self.holes = os.path.join(directory, "holes.raw")
        self.zeros = os.path.join(directory, "zeros.raw")
        self.zstd = os.path.join(directory, "zeros.raw.zst")
        self._disk = os.path.join(directory, "disk.raw")
        self._size = size
        self._cold = cold
        self.commands: dict[str, str] = {}
        self.peak_mib = 0.0
        self.processor: dict[str, list[tuple[float, float]]] = {}

    def make_images(self) -> None:
        """Random bytes: nothing on the way can make them smaller."""
        for path, step in ((self.dense, _DATA), (self.holes, _PERIOD)):
            with open(path, "wb") as file:
                for offset in range(0, self._size, step):
                    file.seek(offset)
                    file.write(os.urandom(min(_DATA, self._size - offset)))
                file.truncate(self._size)
                os.fsync(file.fileno())
        # The same bytes, with the zeros written as data: nothing but looking at them tells.
        run(["cp", "--sparse=never", self.holes, self.zeros], timeout=_TIMEOUT)
        run(["zstd", "-qf", "-1", self.zeros, "-o", self.zstd], timeout=_TIMEOUT)

    def remove(self) -> None:
        for path in (self.dense, self.holes, self.zeros, self.zstd, self._disk):
            if os.path.exists(path):
                os.unlink(path)

    def program(self, image: str, *words: str) -> Callable[[str], float]:
        """One that is not ours; how long it takes as a whole."""

        def once(name: str) -> float:
            self._prepare(image)
            self.commands[name] = shlex.join(words)
            before = os.times()
            seconds = run(words, timeout=_TIMEOUT).seconds
            after = os.times()
            spent = (
                after.children_user - before.children_user,
                after.children_system - before.children_system,
            )
            self.processor.setdefault(name, []).append(spent)
            return seconds

        return once

    def copy(self, image: str, *, digest: bool) -> Callable[[str], float]:
        """A process of its own, as the command is one; what counts is the copy, not Python's start."""
        words = [sys.executable, os.path.abspath(__file__), "--copy", image, self._disk]
        words += ["--digest"] if digest else []

        def once(name: str) -> float:
            self._prepare(image)
            self.commands[name] = shlex.join(words)
            said = json.loads(run(words, timeout=_TIMEOUT).stdout)
            self.processor.setdefault(name, []).append((said["user"], said["system"]))
            self.peak_mib = max(self.peak_mib, said["peak_mib"])
            return float(said["seconds"])

        return once

    def runs(self) -> dict[str, Callable[[str], float]]:
        """All rows of the table, by name; ``nbdcopy`` only where it is installed."""
        rows: dict[str, Callable[[str], float]] = {}
        for kind, image in (("dense", self.dense), ("holes", self.holes), ("zeros", self.zeros)):
            dd = ("dd", f"if={image}", f"of={self._disk}", "bs=4M", "oflag=direct", "conv=notrunc")
            convert = (
                "qemu-img", "convert", "-n", "--target-is-zero", "-t", "none", "-f", "raw", "-O", "raw",
            )  # fmt: skip
            rows[f"dd {kind}"] = self.program(image, *dd)
            rows[f"copy {kind}"] = self.copy(image, digest=False)
            rows[f"qemu-img convert {kind}"] = self.program(image, *convert, image, self._disk)
            if shutil.which("nbdcopy") is not None:
                copied = ("nbdcopy", "--flush", "--destination-is-zero", image, self._disk)
                rows[f"nbdcopy {kind}"] = self.program(image, *copied)
        rows["sha256sum dense"] = self.program(self.dense, "sha256sum", self.dense)
        rows["copy dense, digest"] = self.copy(self.dense, digest=True)
        rows["sha256sum zeros"] = self.program(self.zeros, "sha256sum", self.zeros)
        decoding = ("sh", "-c", 'exec zstd -dcq "$1" >/dev/null', "sh", self.zstd)
        rows["zstd -dc"] = self.program(self.zstd, *decoding)
        rows["copy zstd, digest"] = self.copy(self.zstd, digest=True)
        return rows

    def _prepare(self, image: str) -> None:
        """A new disk, nothing left to be written by the kernel, the image in its cache or not at all."""
        if os.path.exists(self._disk):
            os.unlink(self._disk)
        with open(self._disk, "wb") as file:
            file.truncate(self._size)
        os.sync()
        with open(image, "rb", buffering=0) as file:
            if self._cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(4 * MIB):
                    pass


def measure(directory: str, *, rounds: int = 5, size: int = 1024 * MIB, cold: bool = False) -> Measurement:
    """Make images of ``size`` bytes in ``directory``, time everything ``rounds`` times, remove them."""
    directory = os.path.abspath(directory)
    os.makedirs(directory, exist_ok=True)
    bench = _Bench(directory, size, cold=cold)
    try:
        bench.make_images()
        runs = {name: functools.partial(once, name) for name, once in bench.runs().items()}
        times = in_turns(runs, rounds)
    finally:
        bench.remove()
    goals = [
        Goal(name="dense / dd", value=ratio(times, "copy dense", "dd dense"), limit=1.05),
        Goal(name="75 % holes / dd", value=ratio(times, "copy holes", "dd holes"), limit=0.4),
        Goal(name="75 % zeros as data / dd", value=ratio(times, "copy zeros", "dd zeros"), limit=0.35),
        Goal(
            name="digest / slower of dd, sha256sum",
            value=ratio(times, "copy dense, digest", "dd dense", "sha256sum dense"),
            limit=1.1,
        ),
        Goal(
            name="zstd, digest / slowest of dd, sha256sum, zstd",
            value=ratio(times, "copy zstd, digest", "dd zeros", "sha256sum zeros", "zstd -dc"),
            limit=1.1,
        ),
        Goal(name="peak memory of a copy", value=bench.peak_mib, limit=100, unit="MiB"),
    ]
    kept = "read from the disk" if cold else "in the page cache"
    return Measurement(
        title=f"copy of a raw image of {size >> 20} MiB onto a new file, the image {kept}",
        rounds=times,
        commands=bench.commands,
        goals=tuple(goals),
        processor={name: _median_pair(pairs) for name, pairs in bench.processor.items()},
    )


def _median_pair(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    user, system = zip(*pairs, strict=True)
    return round(statistics.median(user), 3), round(statistics.median(system), 3)


def _copy(image: str, disk: str, *, digest: bool) -> dict[str, float]:
    """One copy in this process."""
    packed = image.endswith(".zst")
    source = ImageSource(
        path=image,
        shown=os.path.basename(image),
        format=ImageFormat.DISKDUMP,
        digest=digest,
        container="zstd" if packed else "raw",
        settings=SourceSettings(containers=frozenset({"raw", "zstd"})),
    )
    before = os.times()
    with open_disks([TargetDisk(index=0, path=disk)]) as disks, open_image(source) as stream:
        begun = time.monotonic()
        copy_image(stream, disks[0], digest=digest)
        seconds = time.monotonic() - begun
    spent = os.times()
    return {
        "seconds": seconds,
        "user": spent.user + spent.children_user - before.user,
        "system": spent.system + spent.children_system - before.system,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the copy against dd and sha256sum.")
    parser.add_argument("--directory", default="build/bench", help="where the images are made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--cold", action="store_true", help="take the image from the disk, not from memory")
    parser.add_argument("--json", metavar="FILE", help="write the result there too")
    parser.add_argument("--copy", nargs=2, metavar=("IMAGE", "DISK"), help=argparse.SUPPRESS)
    parser.add_argument("--digest", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.copy:
        print(json.dumps(_copy(*arguments.copy, digest=arguments.digest)))
        return 0
    result = measure(
        arguments.directory, rounds=arguments.rounds, size=arguments.size_mib * MIB, cold=arguments.cold
    )
    print("\n".join(result.table()))
    if arguments.json:
        with open(arguments.json, "w", encoding="ascii") as file:
            json.dump(result.as_json(), file, indent=2)
            file.write("\n")
    return 0 if all(goal.is_met for goal in result.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
