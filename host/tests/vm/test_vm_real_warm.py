"""The real helper, saved once and restored often: alike in nothing that must differ."""

from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_image_contract.events import Changed
from snf_image_contract.job import (
    AddSwap,
    ChangeMachineId,
    ChangePassword,
    FixPartitionTable,
    Job,
    RunCustomTask,
    SwapPartition,
)
from snf_image_contract.secret import Secret
from snf_image_host import helper_image
from snf_image_host.deployment import HelperSettings
from snf_image_host.helper_image import HelperImage
from snf_image_host.reporter import Reporter
from snf_image_host.vm import commandline, start_helper
from snf_image_host.vm.warm import make_state
from snf_image_process import run
from snf_image_vmtests.places import fixture_directory, helper_directory

if TYPE_CHECKING:
    from tests.vm.conftest import Recorder

pytestmark = [pytest.mark.requires("qemu", "helper-image"), pytest.mark.timeout(1800, method="signal")]

RESTORES = 100
MIB = 1024 * 1024
FIXTURE = os.path.join(fixture_directory(), "alpine-mbr-ext4.raw")
SCRIPT = """\
#!/bin/sh
echo "FRESH uuid=$(cat /proc/sys/kernel/random/uuid)"
echo "FRESH bytes=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')"
echo "FRESH python=$(python3 -c 'import random; print(random.random())')"
echo "FRESH name=$0"
ssh-keygen -q -t ed25519 -N '' -f /tmp/key && echo "FRESH key=$(cut -d' ' -f2 /tmp/key.pub)"
"""
"""Runs in the helper, after tasks that made a swap identifier and a salt."""


@pytest.fixture
def real(settings: HelperSettings, monkeypatch: pytest.MonkeyPatch) -> HelperSettings:
    # With the processor's own random numbers nothing would be proved.
    cpu = f"{commandline._CPU['tcg']},rdrand=off,rdseed=off"
    monkeypatch.setitem(commandline._CPU, "tcg", cpu)
    # The state lies in a directory of this test's, not beside the helper image.
    return dataclasses.replace(
        settings, qemu="qemu-system-x86_64", start_timeout=120.0, soft_timeout=60.0, tcg_factor=2.0, warm=True
    )


@pytest.fixture(scope="module")
def image() -> HelperImage:
    return helper_image.load(helper_directory())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileDisk:
    fd: int
    size: int
    index: int = 0
    read_only: bool = False
    is_block: bool = False


@contextlib.contextmanager
def deployed(directory: Path, number: int) -> Iterator[FileDisk]:
    """A disk with a small system on it."""
    path = directory / f"disk-{number}"
    shutil.copyfile(FIXTURE, path)
    size = path.stat().st_size + 64 * MIB
    os.truncate(path, size)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield FileDisk(fd=fd, size=size)
    finally:
        os.close(fd)
        path.unlink()


def everything_random(job: Job) -> Job:
    """A job that makes a machine-id, a salt, a swap identifier, and shows what else is drawn."""
    swap = SwapPartition(number=2, megabytes=16)
    return dataclasses.replace(
        job,
        disks=job.disks[:1],
        fix_partition_table=FixPartitionTable(swap=swap),
        add_swap=AddSwap(swap=swap),
        change_machine_id=ChangeMachineId(mode="random"),
        change_password=ChangePassword(users=("root",), password=Secret("the same each time"), method="md5"),
        run_custom_task=RunCustomTask(program=Secret(base64.b64encode(SCRIPT.encode()).decode())),
    )


def read(disk: FileDisk, path: str) -> str:
    where = f"/proc/self/fd/{disk.fd}?offset={MIB}"
    return run(["debugfs", "-R", f"cat {path}", where], timeout=30, pass_fds=(disk.fd,)).stdout.decode()


@pytest.mark.requires("fixtures", "e2fsprogs")
def test_no_two_restored_helpers_make_the_same(
    *, real: HelperSettings, image: HelperImage, job: Job, recorder: Recorder, tmp_path: Path
) -> None:
    """R-HLP-16: each is seeded anew, before anything random is made, on a processor without such numbers."""
    (tmp_path / "run").mkdir()
    seen: dict[str, set[str]] = collections.defaultdict(set)
    reporter = Reporter()
    assert make_state(real, image, reporter) is not None
    for number in range(RESTORES):
        lines = type(recorder)()
        reporter = Reporter(lines)
        evidence = str(tmp_path / "evidence")
        with deployed(tmp_path, number) as disk, start_helper(real, image, reporter, evidence) as vm:
            outcome = vm.run_job(everything_random(job), [disk])
            assert outcome.warm, lines.warnings
            for line in lines.console:
                if match := re.match(r"HELPER: FRESH (\w+)=(.*)", line):
                    seen[match[1]].add(match[2])
            seen["machine-id"].add(read(disk, "/etc/machine-id"))
            seen["salt"].add(read(disk, "/etc/shadow").split("$")[2])
            swap = [
                c.detail
                for e in lines.said
                if isinstance(e, Changed)
                for c in e.changes
                if c.change == "swap"
            ]
            seen["swap"].update(swap)
    assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(
        ("uuid", "bytes", "python", "name", "key", "machine-id", "salt", "swap"), RESTORES
    )
