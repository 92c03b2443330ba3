"""`make demo`: a real Debian, deployed, customised, booted and logged into, with the time of each stage."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from snf_image_process import ProcessError, run, start
from snf_image_vmtests import places
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.qemu_command import DiskImage, Hardware
from snf_image_vmtests.vm import Vm, VmError

HOSTNAME: Final = "demo.example.org"
FIXTURE: Final = "debian-bookworm-mbr.raw"
GREETING: Final = "This file was injected while nobody was looking.\n"
_HOUR: Final = 3600.0


class Stages:
    """Names and times of what the demo did."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        print(f"\n==> {name}", flush=True)
        begun = time.monotonic()
        yield
        self.seconds.append((name, time.monotonic() - begun))

    def print_table(self) -> None:
        print(f"\n{'stage':<40} seconds")
        for name, seconds in (*self.seconds, ("total", sum(seconds for _, seconds in self.seconds))):
            print(f"{name:<40} {seconds:7.1f}")


def main() -> int:
    """Exit status: 0, or that of the step that failed."""
    if sys.argv[1:]:
        print("usage: make demo", file=sys.stderr)
        return 2
    stages = Stages()
    directory = os.path.join(places.build_directory(), "demo")
    os.makedirs(directory, exist_ok=True)
    try:
        with stages.stage("helper image"):
            _show(_as_root(os.path.join(places.CHECKOUT, "helper-image/build")))
        with stages.stage("fixture image (a real Debian)"):
            _show(_as_root(os.path.join(places.CHECKOUT, "fixtures/images/build"), "debian-bookworm-mbr"))
        with tempfile.TemporaryDirectory() as private:
            password = secrets.token_urlsafe(9)
            with stages.stage("deployment"):
                disk = _deploy(directory, private, password)
            with stages.stage("boot, login and a look around"):
                _look(disk, password, Evidence(os.path.join(directory, "evidence")))
    except (ProcessError, VmError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stages.print_table()
    return 0


def _as_root(*argv: str) -> list[str]:
    """Building images needs root; deploying onto a file does not."""
    return list(argv) if os.geteuid() == 0 else ["sudo", "--", *argv]


def _show(argv: list[str]) -> None:
    """Run a program whose words are for the user; a failure ends the demo."""
    print(f"$ {' '.join(argv)}", flush=True)
    stdout, stderr = sys.stdout.fileno(), sys.stderr.fileno()
    with start(
        argv, stdout=stdout, stderr=stderr, cwd=places.CHECKOUT, env={"HOME": os.path.expanduser("~")}
    ) as running:
        status = running.wait(_HOUR)
    if status != 0:
        raise ProcessError(argv, f"exit status {status}", status=status)


def _deploy(directory: str, private: str, password: str) -> str:
    """Deploy the fixture onto a new disk of 4 GiB; the path of the disk."""
    disk = os.path.join(directory, "disk.raw")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(disk)
    key = os.path.join(private, "key")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", key], timeout=60)
    files = [
        {
            "path": "/etc/motd",
            "contents": _base64("Nobody mounted this disk.\n"),
            "mode": "0644",
        },
        {"path": "/root/greeting", "contents": _base64(GREETING), "mode": "0600"},
    ]
    personality, secret = os.path.join(private, "files.json"), os.path.join(private, "password")
    _write(personality, json.dumps(files))
    _write(secret, password + "\n")
    _show(
        [
            places.command("snf-image"), "deploy", os.path.join(places.fixture_directory(), FIXTURE), disk,
            "--disk-size", "4G", "--hostname", HOSTNAME, "--password-file", secret,
            "--auth-keys", f"{key}.pub", "--personality", personality, "--property", "SWAP=2:256",
            "--helper-dir", places.helper_directory(), "--report", os.path.join(directory, "receipt.json"),
        ]
    )  # fmt: skip
    return disk


def _look(disk: str, password: str, evidence: Evidence) -> None:
    """Boot the disk and log in on its serial console."""
    hardware = Hardware(memory=768, cpus=2, disks=(DiskImage(path=disk, overlay=True),), screen=False)
    with Vm("debian", hardware, evidence) as vm:
        vm.login("root", password, seconds=180)
        for command in ("hostname", "swapon --show", "df -h /", "cat /root/greeting"):
            print(f"root@{HOSTNAME}# {command}\n{vm.succeed(command)}", flush=True)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
