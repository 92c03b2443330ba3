"""How long the helper takes, under TCG: to its first task, for all default tasks, for a whole deployment.

Cold: it boots. Warm: it continues from its saved state. ``virt-customize`` sets the same hostname and
password on the same image, ``virt-resize`` with ``virt-customize`` does a whole deployment, for the ratios.
"""

from __future__ import annotations

import contextlib
import functools
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
_TIMES_FASTER: Final = 25.0
_KEY: Final = "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
COLD, WARM = "cold", "warm"
FIRST_TASK, TASKS = "VM start to first task, {}", "VM start to exit, {}"
CUSTOMIZE, DEPLOY = "snf-image customize, {}", "snf-image deploy, {}"
IN_A_ROW, AT_ONCE = "4 snf-image deploy in a row, warm", "4 snf-image deploy at once, warm"
VIRT_CUSTOMIZE, VIRT_RESIZE = "virt-customize", "virt-resize and virt-customize"


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
        self._keys = _written(directory, "keys", f"ssh-ed25519 {_KEY} bench\n")
        files = [{"path": f"/root/{name}", "contents": "YmVuY2gK"} for name in ("one", "two")]
        self._personality = _written(directory, "personality.json", json.dumps(files))
        self.commands: dict[str, str] = {}
        self.inside: dict[str, list[float]] = {
            kind.format(start): [] for kind in (FIRST_TASK, TASKS) for start in (COLD, WARM)
        }
        self.stages: dict[str, list[float]] = {}
        self.build = ""
        self.peak_mib = 0.0

    def warm_up(self) -> None:
        """Save the state that warm starts continue from."""
        words = [self._program(), "helper", "warm", "--helper-dir", self._helper, "--accel", "tcg"]
        run([*words, "--progress", "none"], timeout=_TIMEOUT)

    def customize(self, start: str) -> float:
        """All default tasks on a disk that holds the image already."""
        self._copy_image()
        words = [self._program(), "customize", self._disk, *self._asked(start)]
        seconds, said = self._ours(CUSTOMIZE.format(start), words)
        begun = next(event["time"] for event in said if event.get("message", "").startswith("helper VM "))
        first = next(event["time"] for event in said if event.get("helper", {}).get("kind") == "task-start")
        self.inside[FIRST_TASK.format(start)].append(round(first - begun, 3))
        self.inside[TASKS.format(start)].append(self._receipt()["helper"]["total_seconds"])
        return seconds

    def deploy(self, start: str) -> float:
        """The whole command: new disk, copy with digest, swap, password, key, two files, receipt."""
        seconds, _ = self._ours(DEPLOY.format(start), self._deploy_words(self._disk, start))
        receipt = self._receipt()
        self.build = receipt["helper"]["build"]
        for stage, value in receipt["seconds"].items():
            self.stages.setdefault(f"{stage}, {start}", []).append(value)
        return seconds

    def deploy_in_a_row(self) -> float:
        disks = self._disks()
        self.commands[IN_A_ROW] = " && ".join(shlex.join(self._quiet_words(disk)) for disk in disks)
        begun = time.monotonic()
        for disk in disks:
            run(self._quiet_words(disk), timeout=_TIMEOUT)
        return time.monotonic() - begun

    def deploy_at_once(self) -> float:
        disks = self._disks()
        self.commands[AT_ONCE] = " & ".join(shlex.join(self._quiet_words(disk)) for disk in disks)
        begun = time.monotonic()
        with contextlib.ExitStack() as alive:
            running = [alive.enter_context(start(self._quiet_words(disk))) for disk in disks]
            for one in running:
                if (status := one.wait(_TIMEOUT)) != 0:
                    raise ProcessError(self._quiet_words("disk"), f"exit status {status}")
        return time.monotonic() - begun

    def _disks(self) -> list[str]:
        disks = [os.path.join(self._directory, f"disk{number}.raw") for number in range(4)]
        for disk in disks:
            _remove(disk)
        return disks

    def _quiet_words(self, disk: str) -> list[str]:
        words = self._deploy_words(disk, WARM)
        return words[: words.index("--report")]

    def _deploy_words(self, disk: str, start: str) -> list[str]:
        _remove(disk)
        return [
            self._program(), "deploy", self._image, disk, "--disk-size", DISK_SIZE, "--swap", "2:256",
            "--auth-keys", self._keys, "--personality", self._personality, *self._asked(start),
        ]  # fmt: skip

    def virt_customize(self, *, is_counted: bool = True) -> float:
        """The first run of a machine makes the appliance and is not counted."""
        self._copy_image()
        words = ["virt-customize", "--no-network", "-a", self._disk, "--hostname", "bench.example.org"]
        words += ["--root-password", f"file:{self._password}"]
        environment = self._guestfs()
        if is_counted:
            settings = [f"{name}={value}" for name, value in environment.items() if "BACKEND" in name]
            self.commands[VIRT_CUSTOMIZE] = shlex.join([*settings, *words])
        return run(words, timeout=_TIMEOUT, env=environment).seconds

    def virt_resize(self) -> float:
        """The same job as :meth:`deploy` by libguestfs: enlarge onto a new disk, then change it there."""
        _remove(self._disk)
        with open(self._disk, "wb") as file:
            file.truncate(4 << 30)
        resize = [
            "virt-resize",
            "--quiet",
            "--expand",
            "/dev/sda1",
            "--format",
            "raw",
            "--output-format",
            "raw",
        ]
        resize += [self._image, self._disk]
        change = ["virt-customize", "--no-network", "-a", self._disk, "--hostname", "bench.example.org"]
        change += ["--root-password", f"file:{self._password}", "--ssh-inject", f"root:file:{self._keys}"]
        change += ["--upload", f"{self._password}:/root/one", "--upload", f"{self._password}:/root/two"]
        self.commands[VIRT_RESIZE] = f"{shlex.join(resize)} && {shlex.join(change)}"
        seconds = 0.0
        for words in (resize, change):
            seconds += run(words, timeout=_TIMEOUT, env=self._guestfs()).seconds
        return seconds

    def _guestfs(self) -> dict[str, str]:
        return {
            "HOME": self._directory,
            "LIBGUESTFS_BACKEND": "direct",
            "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
            "LIBGUESTFS_CACHEDIR": self._directory,
            "TMPDIR": self._directory,
        }

    def _program(self) -> str:
        return os.path.join(os.path.dirname(sys.executable), "snf-image")

    def _asked(self, start: str) -> list[str]:
        return [
            "--hostname", "bench.example.org", "--password-file", self._password, "--accel", "tcg",
            "--helper-dir", self._helper, *(["--cold"] if start == COLD else []),
            "--report", self._report, "--progress", "json",
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
        os.sync()  # or the start would be measured together with writing this out


def measure_helper(
    directory: str, image: str, helper: str, rounds: int, *, with_guestfs: str | None
) -> Measurement:
    """Time customize, deploy and virt-customize; ``with_guestfs``: why the last is left out, None if not."""
    bench = _Bench(directory, image, helper)
    bench.warm_up()
    runs: dict[str, Callable[[], float]] = {IN_A_ROW: bench.deploy_in_a_row, AT_ONCE: bench.deploy_at_once}
    for begin in (COLD, WARM):
        runs[CUSTOMIZE.format(begin)] = functools.partial(bench.customize, begin)
        runs[DEPLOY.format(begin)] = functools.partial(bench.deploy, begin)
    if with_guestfs is None:
        bench.virt_customize(is_counted=False)
        runs |= {VIRT_CUSTOMIZE: bench.virt_customize, VIRT_RESIZE: bench.virt_resize}
    times = in_turns(runs, rounds)
    times |= {name: tuple(values) for name, values in bench.inside.items()}
    times |= {f"stage of deploy: {name}": tuple(values) for name, values in bench.stages.items()}
    limits = {
        FIRST_TASK.format(COLD): 6.0, TASKS.format(COLD): 10.0, FIRST_TASK.format(WARM): 0.8,
        TASKS.format(WARM): 3.0, DEPLOY.format(WARM): 4.5,
    }  # fmt: skip
    goals = [
        Goal(name=name, value=statistics.median(times[name]), limit=limit, unit="s")
        for name, limit in limits.items()
    ]
    goals.append(Goal(name="peak memory of the host process", value=bench.peak_mib, limit=100, unit="MiB"))
    goals.append(Goal(name="4 at once / 4 in a row", value=ratio(times, AT_ONCE, IN_A_ROW)))
    remarks = [f"helper build {bench.build}"]
    if with_guestfs is None:
        for theirs, ours in ((VIRT_CUSTOMIZE, CUSTOMIZE), (VIRT_RESIZE, DEPLOY)):
            for begin in (COLD, WARM):
                name = f"{theirs} / {ours.format(begin)}"
                limit = _TIMES_FASTER if (theirs, begin) == (VIRT_RESIZE, WARM) else None
                goals.append(
                    Goal(
                        name=name, value=ratio(times, theirs, ours.format(begin)), limit=limit, at_least=True
                    )
                )
        remarks.append(f"{VIRT_RESIZE}: the same job but for the swap partition, which they do not make")
    else:
        remarks.append(f"virt-customize left out: {with_guestfs}")
    return Measurement(
        title=f"helper under TCG, {os.path.basename(image)}",
        rounds=times,
        commands=bench.commands,
        goals=tuple(goals),
        remarks=tuple(remarks),
    )


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _written(directory: str, name: str, text: str) -> str:
    path = os.path.join(directory, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


def _peak_mib(pid: int) -> float:
    """The most memory that a process had resident so far; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
