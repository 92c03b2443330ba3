"""`make bench`: measures the copy, the helper and whole deployments; prints a table, writes JSON.

    .venv/bin/python bench/run.py [--quick] [--only copy|helper] [--without-guestfs] [--output FILE]

Nothing is asserted: a machine may be busy. What is missed is marked in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

import copy_bench
from helper_bench import measure_helper
from measurement import Measurement

from snf_image_process import ProcessError, run

CHECKOUT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2
_NEEDED: Final = 7 << 30
_FIXTURE: Final = "debian-bookworm-mbr.raw"


class BenchError(Exception):
    """Something is missing; the text says what, and what to do."""


def main() -> int:
    """Exit status: 0 when all was measured, whatever came out."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    build = os.path.join(CHECKOUT, "build")
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    try:
        measured = [*_measure(build, arguments.only, rounds, guestfs=not arguments.without_guestfs)]
        _write(arguments.output, measured)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was left behind", file=sys.stderr)
        return 130
    except (BenchError, ProcessError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nwritten to {os.path.relpath(arguments.output)}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the copy, the helper and whole deployments.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    parser.add_argument("--only", choices=("copy", "helper"), help="measure this alone")
    parser.add_argument(
        "--without-guestfs", action="store_true", help="leave out virt-customize and virt-resize, the slowest"
    )
    parser.add_argument(
        "--output", default=os.path.join(CHECKOUT, "build", "bench.json"), help="where the JSON goes"
    )
    return parser.parse_args()


def _measure(build: str, only: str | None, rounds: int, *, guestfs: bool) -> Iterator[Measurement]:
    """One measurement after the other, each told as soon as it is there."""
    os.makedirs(build, exist_ok=True)
    free = shutil.disk_usage(build).free
    if free < _NEEDED:
        raise BenchError(f"only {free >> 20} MiB are free in {build}, {_NEEDED >> 20} MiB are needed")
    if only in (None, "copy"):
        left_out = _install("libnbd-bin")
        with _directory(build) as directory:
            measured = copy_bench.measure(directory, rounds=rounds)
            remarks = () if left_out is None else (f"nbdcopy left out: {left_out}",)
            yield _told(dataclasses.replace(measured, remarks=remarks))
    if only in (None, "helper"):
        image, helper = os.path.join(build, "fixtures", _FIXTURE), os.path.join(build, "helper")
        for path in (image, os.path.join(helper, "manifest.json")):
            if not os.path.exists(path):
                raise BenchError(f"{path} is missing: `make helper-image fixtures` builds it")
        left_out = _install("guestfs-tools", "linux-image-cloud-amd64") if guestfs else "--without-guestfs"
        with _directory(build) as directory:
            yield _told(measure_helper(directory, image, helper, rounds, with_guestfs=left_out))


@contextlib.contextmanager
def _directory(build: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as directory:
        yield directory


def _told(measurement: Measurement) -> Measurement:
    print("\n" + "\n".join(measurement.table()), flush=True)
    return measurement


def _install(*packages: str) -> str | None:
    """Install Debian packages with what is measured beside ours; None, or why they are not there."""
    missing = [name for name in packages if _version_of(name) is None]
    if not missing:
        return None
    if os.geteuid() != 0:
        return f"not installed: {' '.join(missing)} (run as root, they are installed then)"
    print(f"installing Debian packages: {' '.join(missing)}", flush=True)
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600"]
    try:
        run([*apt, "update"], timeout=600)
        install = [*apt, "install", "-y", "--no-install-recommends", *missing]
        run(install, timeout=1800, env={"DEBIAN_FRONTEND": "noninteractive"})
    except ProcessError as error:
        return f"{' '.join(missing)} cannot be installed: {str(error).splitlines()[-1].strip()}"
    return None


def _version_of(package: str) -> str | None:
    """The version of an installed Debian package."""
    asked = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package]
    status, _, version = run(asked, timeout=60, accept=(0, 1)).text.partition(" ")
    return version if status == "installed" else None


def _write(path: str, measured: list[Measurement]) -> None:
    packages = (
        "qemu-system-x86", "qemu-utils", "coreutils", "zstd", "libnbd-bin", "guestfs-tools",
        "linux-image-cloud-amd64",
    )  # fmt: skip
    document = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cpu": _field("/proc/cpuinfo", "model name"),
            "cpus": len(os.sched_getaffinity(0)),
            "memory": _field("/proc/meminfo", "MemTotal"),
            "kernel": platform.release(),
            "load": os.getloadavg(),
        },
        "versions": {
            "snf-image": importlib.metadata.version("snf-image"),
            "python": platform.python_version(),
            **{name: _version_of(name) for name in packages},
        },
        "measurements": [measurement.as_json() for measurement in measured],
    }
    with open(path, "w", encoding="ascii") as file:
        json.dump(document, file, indent=2)
        file.write("\n")


def _field(path: str, name: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = (line.partition(":") for line in file)
        return next((value.strip() for key, _, value in lines if key.strip() == name), "unknown")


if __name__ == "__main__":
    sys.exit(main())
