"""How long the helper takes, under TCG: to its first task, for all default tasks, for a whole deployment.

``virt-customize`` sets the same hostname and password on the same image, for the ratio.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from measurement import Goal, Measurement, in_turns, ratio

from snf_image_process import PIPE, ProcessError, run, start

DISK_SIZE: Final = "4G"
_TIMEOUT: Final = 900.0
_LOOK: Final = 0.02
FIRST_TASK, TASKS, CUSTOMIZE = "VM start to first task", "VM start to exit", "snf-image customize"
DEPLOY, VIRT_CUSTOMIZE = "snf-image deploy, whole command", "virt-customize, whole command"


class _Bench:
    """A private directory with an image, a disk and a password; one run of each command."""

    def __init__(self, directory: str, image: str, helper: str) -> None:
        self._directory = directory
        self._image = image
        self._helper = helper
        self._disk = os.path.join(directory, "disk.raw")
        self._report = os.path.join(directory, "receipt.json")
        self._password = os.path.join(directory, "password")
        with open(os.open(self._password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(12) + "\n")
        self.commands: dict[str, str] = {}
        self.inside: dict[str, list[float]] = {FIRST_TASK: [], TASKS: []}
        self.stages: dict[str, list[float]] = {}
        self.build = ""
        self.peak_mib = 0.0

    def customize(self) -> float:
        """All default tasks on a disk that holds the image already."""
        self._copy_image()
        words = [self._program(), "customize", self._disk, *self._asked()]
        seconds, said = self._ours(CUSTOMIZE, words)
        begun = next(event["time"] for event in said if "VM started" in event.get("message", ""))
        first = next(event["time"] for event in said if event.get("helper", {}).get("kind") == "task-start")
        self.inside[FIRST_TASK].append(round(first - begun, 3))
        self.inside[TASKS].append(self._receipt()["helper"]["total_seconds"])
        return seconds

    def deploy(self) -> float:
        """The whole command: new disk, copy with digest, all default tasks, receipt."""
        if os.path.exists(self._disk):
            os.unlink(self._disk)
        words = [self._program(), "deploy", self._image, self._disk, "--disk-size", DISK_SIZE, *self._asked()]
        seconds, _ = self._ours(DEPLOY, words)
        receipt = self._receipt()
        self.build = receipt["helper"]["build"]
        for stage, value in receipt["seconds"].items():
            self.stages.setdefault(stage, []).append(value)
        return seconds

    def virt_customize(self, *, is_counted: bool = True) -> float:
        """The first run of a machine makes the appliance and is not counted."""
        self._copy_image()
        words = ["virt-customize", "--no-network", "-a", self._disk, "--hostname", "bench.example.org"]
        words += ["--root-password", f"file:{self._password}"]
        environment = {
            "HOME": self._directory,
            "LIBGUESTFS_BACKEND": "direct",
            "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
            "LIBGUESTFS_CACHEDIR": self._directory,
            "TMPDIR": self._directory,
        }
        if is_counted:
            settings = [f"{name}={value}" for name, value in environment.items() if "BACKEND" in name]
            self.commands[VIRT_CUSTOMIZE] = shlex.join([*settings, *words])
        return run(words, timeout=_TIMEOUT, env=environment).seconds

    def _program(self) -> str:
        return os.path.join(os.path.dirname(sys.executable), "snf-image")

    def _asked(self) -> list[str]:
        return [
            "--hostname", "bench.example.org", "--password-file", self._password, "--accel", "tcg",
            "--helper-dir", self._helper, "--progress", "json", "--report", self._report,
        ]  # fmt: skip

    def _ours(self, name: str, words: list[str]) -> tuple[float, list[dict[str, Any]]]:
        """Seconds, and the events that came as JSON lines; notes the peak of memory of the host process."""
        self.commands[name] = shlex.join(words)
        log = os.path.join(self._directory, "events.jsonl")
        begun = time.monotonic()
        with open(log, "wb") as file, start(words, stdout=PIPE, stderr=file.fileno()) as running:
            while (status := running.poll()) is None:
                self.peak_mib = max(self.peak_mib, _peak_mib(running.pid))
                if time.monotonic() - begun > _TIMEOUT:
                    raise ProcessError(words, f"not finished within {_TIMEOUT:g} s")
                time.sleep(_LOOK)
            seconds = time.monotonic() - begun
        with open(log, "rb") as told:
            said = told.read()
        if status != 0:
            raise ProcessError(words, f"exit status {status}", status=status, stderr=said)
        return seconds, [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]

    def _receipt(self) -> dict[str, Any]:
        with open(self._report, encoding="ascii") as file:
            receipt: dict[str, Any] = json.load(file)
        return receipt

    def _copy_image(self) -> None:
        run(["cp", "--sparse=always", self._image, self._disk], timeout=_TIMEOUT)
        os.truncate(self._disk, 4 << 30)


def measure_helper(
    directory: str, image: str, helper: str, rounds: int, *, with_guestfs: str | None
) -> Measurement:
    """Time customize, deploy and virt-customize; ``with_guestfs``: why the last is left out, None if not."""
    bench = _Bench(directory, image, helper)
    runs: dict[str, Callable[[], float]] = {CUSTOMIZE: bench.customize, DEPLOY: bench.deploy}
    if with_guestfs is None:
        bench.virt_customize(is_counted=False)
        runs[VIRT_CUSTOMIZE] = bench.virt_customize
    times = in_turns(runs, rounds)
    times |= {name: tuple(values) for name, values in bench.inside.items()}
    times |= {f"stage of deploy: {name}": tuple(values) for name, values in bench.stages.items()}
    goals = [
        Goal(name=FIRST_TASK, value=statistics.median(times[FIRST_TASK]), limit=6, unit="s"),
        Goal(name=f"{TASKS}, all default tasks", value=statistics.median(times[TASKS]), limit=10, unit="s"),
        Goal(name="peak memory of the host process, deploy", value=bench.peak_mib, limit=100, unit="MiB"),
    ]
    remarks = [f"helper build {bench.build}"]
    if with_guestfs is None:
        value = ratio(times, VIRT_CUSTOMIZE, CUSTOMIZE)
        goals.append(Goal(name="virt-customize / snf-image customize", value=value))
    else:
        remarks.append(f"virt-customize left out: {with_guestfs}")
    return Measurement(
        title=f"helper under TCG, {os.path.basename(image)}",
        rounds=times,
        commands=bench.commands,
        goals=tuple(goals),
        remarks=tuple(remarks),
    )


def _peak_mib(pid: int) -> float:
    """The most memory that a process had resident so far; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
