"""How fast images are copied, against ``dd`` and ``sha256sum`` on the same files in the same minute.

    .venv/bin/python bench/copy_bench.py [--directory build/bench] [--rounds 5] [--size-mib 1024] [--cold]

Each round measures every command once, one after the other, so that a busy moment of the machine meets all
of them; the median of the rounds counts. Every disk is a new, sparse file. :func:`measure` is the same for
other programs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A measured ratio and what it may be at most."""

    name: str
    ratio: float
    limit: float

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.limit


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians in seconds by name, all rounds, goals, and the commands that were run.

    ``processor``: user and system seconds of each of our copies, with the start of Python and of decoders.
    """

    medians: dict[str, float]
    rounds: dict[str, list[float]]
    goals: tuple[Goal, ...]
    commands: dict[str, str]
    peak_mib: float
    processor: dict[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {
            "goals": [dataclasses.asdict(goal) | {"met": goal.is_met} for goal in self.goals]
        }


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

    def dd(self, image: str) -> Callable[[], float]:
        words = ["dd", f"if={image}", f"of={self._disk}", "bs=4M", "oflag=direct", "conv=notrunc"]
        return lambda: self._timed(f"dd {os.path.basename(image)}", words, image)

    def sha256sum(self, image: str) -> Callable[[], float]:
        return lambda: self._timed(f"sha256sum {os.path.basename(image)}", ["sha256sum", image], image)

    def zstd_dc(self) -> Callable[[], float]:
        words = ["sh", "-c", 'exec zstd -dcq "$1" >/dev/null', "sh", self.zstd]
        return lambda: self._timed("zstd -dc zeros.raw.zst", words, self.zstd)

    def copy(self, image: str, *, digest: bool) -> Callable[[], float]:
        """A process of its own, as the command is one; what counts is the copy, not Python's start."""
        words = [sys.executable, os.path.abspath(__file__), "--copy", image, self._disk]
        words += ["--digest"] if digest else []
        name = f"copy {os.path.basename(image)}{' with digest' if digest else ''}"

        def once() -> float:
            self._prepare(image)
            self.commands[name] = shlex.join(words)
            said = json.loads(run(words, timeout=_TIMEOUT).stdout)
            self.processor.setdefault(name, []).append((said["user"], said["system"]))
            self.peak_mib = max(self.peak_mib, said["peak_mib"])
            return float(said["seconds"])

        return once

    def _timed(self, name: str, words: list[str], image: str) -> float:
        self._prepare(image)
        self.commands[name] = shlex.join(words)
        return run(words, timeout=_TIMEOUT).seconds

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


def measure(directory: str, *, rounds: int = 5, size: int = 1024 * MIB, cold: bool = False) -> Result:
    """Make two images of ``size`` bytes in ``directory``, time everything ``rounds`` times, remove them."""
    directory = os.path.abspath(directory)
    os.makedirs(directory, exist_ok=True)
    bench = _Bench(directory, size, cold=cold)
    try:
        bench.make_images()
        runs = {
            "dd dense": bench.dd(bench.dense),
            "copy dense": bench.copy(bench.dense, digest=False),
            "dd holes": bench.dd(bench.holes),
            "copy holes": bench.copy(bench.holes, digest=False),
            "sha256sum dense": bench.sha256sum(bench.dense),
            "copy dense, digest": bench.copy(bench.dense, digest=True),
            "dd zeros": bench.dd(bench.zeros),
            "copy zeros": bench.copy(bench.zeros, digest=False),
            "sha256sum zeros": bench.sha256sum(bench.zeros),
            "zstd -dc": bench.zstd_dc(),
            "copy zstd, digest": bench.copy(bench.zstd, digest=True),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, once in runs.items():
                times[name].append(round(once(), 4))
    finally:
        bench.remove()
    median = {name: round(statistics.median(values), 4) for name, values in times.items()}
    slower = max(median["dd dense"], median["sha256sum dense"])
    goals = (
        Goal(name="dense / dd", ratio=median["copy dense"] / median["dd dense"], limit=1.05),
        Goal(name="75 % holes / dd", ratio=median["copy holes"] / median["dd holes"], limit=0.4),
        Goal(name="digest / slower of dd, sha256sum", ratio=median["copy dense, digest"] / slower, limit=1.1),
        Goal(
            name="75 % zeros written as data / dd",
            ratio=median["copy zeros"] / median["dd zeros"],
            limit=0.35,
        ),
        Goal(
            name="zstd, digest / slowest of dd, sha256sum, zstd",
            ratio=median["copy zstd, digest"]
            / max(median["dd zeros"], median["sha256sum zeros"], median["zstd -dc"]),
            limit=1.1,
        ),
        Goal(name="peak memory / 100 MiB", ratio=bench.peak_mib / 100, limit=1.0),
    )
    return Result(
        medians=median,
        rounds=times,
        goals=goals,
        commands=bench.commands,
        peak_mib=bench.peak_mib,
        processor={name: _median_pair(pairs) for name, pairs in bench.processor.items()},
    )


def _median_pair(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    user, system = zip(*pairs, strict=True)
    return round(statistics.median(user), 3), round(statistics.median(system), 3)


def table(result: Result) -> Iterator[str]:
    """The result for people, line by line."""
    yield from (f"$ {command}" for command in result.commands.values())
    yield ""
    for name, seconds in result.medians.items():
        spread = f"{min(result.rounds[name]):.2f} to {max(result.rounds[name]):.2f}"
        yield f"{name:<34} {seconds:6.3f} s   ({spread})"
    yield ""
    for name, (user, system) in result.processor.items():
        yield f"{name:<34} user {user:6.3f} s, system {system:6.3f} s"
    yield ""
    for goal in result.goals:
        verdict = "met" if goal.is_met else "MISSED"
        yield f"{goal.name:<34} {goal.ratio:6.3f}     at most {goal.limit:g}: {verdict}"


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
    with open_disks([TargetDisk(index=0, path=disk)]) as disks, open_image(source) as stream:
        begun = time.monotonic()
        copy_image(stream, disks[0], digest=digest)
        seconds = time.monotonic() - begun
    spent = os.times()
    return {
        "seconds": seconds,
        "user": spent.user + spent.children_user,
        "system": spent.system + spent.children_system,
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
    print("\n".join(table(result)))
    if arguments.json:
        with open(arguments.json, "w", encoding="ascii") as file:
            json.dump(result.as_json(), file, indent=2)
            file.write("\n")
    return 0 if all(goal.is_met for goal in result.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
