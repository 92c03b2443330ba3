"""The real helper, saved once and restored often: alike in nothing that must differ."""

from __future__ import annotations

import base64
import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_image_contract.events import Changed
from snf_image_contract.job import (
    AddSwap,
    ChangeMachineId,
    ChangePassword,
    DeleteSSHKeys,
    FixPartitionTable,
    HostKey,
    Job,
    RunCustomTask,
    SkippedTask,
    SwapPartition,
)
from snf_image_contract.names import TaskName
from snf_image_contract.secret import Secret
from snf_image_host import helper_image
from snf_image_host.deployment import HelperSettings
from snf_image_host.helper_image import HelperImage
from snf_image_host.reporter import Reporter
from snf_image_host.vm import HelperVm, commandline, start_helper
from snf_image_host.vm.saved_state import store_of
from snf_image_host.vm.warm import make_state
from snf_image_process import run
from snf_image_vmtests.places import fixture_directory, helper_directory

if TYPE_CHECKING:
    from tests.vm.conftest import Recorder

pytestmark = [
    pytest.mark.requires("qemu", "helper-image", "fixtures", "e2fsprogs"),
    pytest.mark.timeout(1800, method="signal"),
]

RESTORES = 100
ALL_KEYS_IN_THE_HELPER = 2
"""Restores in which it makes the RSA key as well, which takes it five seconds and more."""
TOGETHER = 2
MUCH_MEMORY = 1024
MIB = 1024 * 1024
FIXTURE = os.path.join(fixture_directory(), "ubuntu-mbr-home-ext4.raw")
"""Its server's keys are made when it is deployed."""
DRAWS_NOTHING = (
    TaskName.FILESYSTEM_RESIZE_UNMOUNTED,
    TaskName.FILESYSTEM_RESIZE_MOUNTED,
    TaskName.FILESYSTEM_RESIZE_AFTER_UMOUNT,
)
GENERATORS = """\
import sys
# A generator of Python's that was seeded, and not drawn from since: 624 words to come, of which one is fixed.
SEEDED = (624).to_bytes(4, "little") + (1 << 31).to_bytes(4, "little")
with open(f"/proc/{sys.argv[1]}/maps") as maps, open(f"/proc/{sys.argv[1]}/mem", "rb", 0) as memory:
    for line in maps:
        words = line.split()
        if words[1] == "rw-p" and (len(words) == 5 or words[5] == "[heap]"):
            start, end = (int(number, 16) for number in words[0].split("-"))
            memory.seek(start)
            data = memory.read(end - start)
            at = data.find(SEEDED)
            while at >= 0:
                print("FRESH python=" + data[at + 8 : at + 40].hex())
                at = data.find(SEEDED, at + 1)
"""
SCRIPT = f"""\
#!/bin/sh
echo "CLOCK $(date +%s.%N)"
echo "FRESH uuid=$(cat /proc/sys/kernel/random/uuid)"
echo "FRESH bytes=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')"
echo "FRESH name=$0"
python3 -I -S - $PPID <<'END'
{GENERATORS}
END
"""
"""Runs in the helper, after tasks that made keys, a swap identifier and a salt.

Python's generator is looked at where it matters: in the worker that was saved, whose child this is.
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HelperSettings]:
    directory = tmp_path_factory.mktemp("node")
    with pytest.MonkeyPatch.context() as patch:
        # With the processor's own random numbers nothing would be proved.
        patch.setitem(commandline._CPU, "tcg", f"{commandline._CPU['tcg']},rdrand=off,rdseed=off")
        # The state lies in a directory of these tests', not beside the helper image.
        yield HelperSettings(
            directory=str(directory),
            accelerator="tcg",
            tcg_factor=2.0,
            qemu="qemu-system-x86_64",
            soft_timeout=60.0,
            hard_timeout=5.0,
            start_timeout=120.0,
            state_dir=str(directory / "state"),
            runtime_dir=str(directory / "run"),
            warm=True,
        )


@pytest.fixture(scope="module")
def image() -> HelperImage:
    return helper_image.load(helper_directory())


def state_of(settings: HelperSettings, image: HelperImage) -> str:
    path = make_state(settings, image, Reporter())
    assert path is not None
    return path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileDisk:
    fd: int
    size: int
    index: int = 0
    read_only: bool = False
    is_block: bool = False


@contextlib.contextmanager
def deployed(path: Path) -> Iterator[FileDisk]:
    """A disk with a small system on it."""
    run(["cp", "--sparse=always", FIXTURE, str(path)], timeout=30)
    size = path.stat().st_size + 64 * MIB
    os.truncate(path, size)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield FileDisk(fd=fd, size=size)
    finally:
        os.close(fd)
        path.unlink()


def read(disk: FileDisk, path: str) -> str:
    where = f"/proc/self/fd/{disk.fd}?offset={MIB}"
    return run(["debugfs", "-R", f"cat {path}", where], timeout=30, pass_fds=(disk.fd,)).stdout.decode()


def everything_random(job: Job) -> Job:
    """A job that makes keys, a machine-id, a salt, a swap identifier, and shows what else is drawn."""
    swap = SwapPartition(number=3, megabytes=16)
    return dataclasses.replace(
        job,
        disks=job.disks[:1],
        fix_partition_table=FixPartitionTable(swap=swap),
        add_swap=AddSwap(swap=swap),
        change_machine_id=ChangeMachineId(mode="random"),
        change_password=ChangePassword(users=("root",), password=Secret("the same each time"), method="md5"),
        delete_ssh_keys=DeleteSSHKeys(host_keys_follow=True),
        run_custom_task=RunCustomTask(program=Secret(base64.b64encode(SCRIPT.encode()).decode())),
        skipped=tuple(SkippedTask(task=task, reason="draws nothing") for task in DRAWS_NOTHING),
    )


@dataclasses.dataclass(kw_only=True)
class Restored:
    """A helper that was restored, does its job, and what it drew meanwhile."""

    vm: HelperVm
    disk: FileDisk
    lines: Recorder
    all_keys: bool
    drawn: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def work(self, job: Job) -> None:
        self.vm.wait_ready()
        # The RSA key that most have from the host is always the same, and no key.
        rsa = HostKey(type="rsa", private=Secret("not a key"), public="ssh-rsa AAAA host")
        self.vm.send_host_keys(() if self.all_keys else (rsa,))
        begun = time.time()
        outcome = self.vm.run_job(everything_random(job), [self.disk])
        assert outcome.warm, self.lines.warnings
        text = "\n".join(self.lines.console)
        [clock] = re.findall(r"^HELPER: CLOCK (.*)", text, re.MULTILINE)
        assert begun - 2 < float(clock) < time.time() + 2
        self.drawn += re.findall(r"^HELPER: FRESH (\w+)=(.*)", text, re.MULTILINE)
        self.drawn.append(("machine-id", read(self.disk, "/etc/machine-id")))
        self.drawn.append(("salt", read(self.disk, "/etc/shadow").split("$")[2]))
        for kind in ("rsa", "ecdsa", "ed25519"):
            public = read(self.disk, f"/etc/ssh/ssh_host_{kind}_key.pub")
            if public != f"{rsa.public}\n":
                self.drawn.append((kind, public.split()[1]))
        changes = [event.changes for event in self.lines.said if isinstance(event, Changed)]
        self.drawn += [("swap", c.detail) for c in itertools.chain(*changes) if c.change == "swap"]


def test_no_two_restored_helpers_make_the_same(
    *, real: HelperSettings, image: HelperImage, job: Job, recorder: Recorder, tmp_path: Path
) -> None:
    """R-HLP-16: each is seeded anew, before anything random is made, on a processor without such numbers.

    And each has the time of now, not of when it was saved.
    """
    state_of(real, image)
    seen: dict[str, list[str]] = collections.defaultdict(list)

    def restored(number: int, alive: contextlib.ExitStack) -> Restored:
        lines = type(recorder)()
        disk = alive.enter_context(deployed(tmp_path / f"disk-{number}"))
        evidence = str(tmp_path / f"evidence-{number}")
        vm = alive.enter_context(start_helper(real, image, Reporter(lines), evidence))
        return Restored(vm=vm, disk=disk, lines=lines, all_keys=number < ALL_KEYS_IN_THE_HELPER)

    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        for first in range(0, RESTORES, TOGETHER):
            with contextlib.ExitStack() as alive:
                helpers = [restored(number, alive) for number in range(first, first + TOGETHER)]
                list(pool.map(lambda helper: helper.work(job), helpers))
            for name, value in (drawn for helper in helpers for drawn in helper.drawn):
                seen[name].append(value)
    drawn_by_each = ("uuid", "bytes", "python", "name", "ed25519", "ecdsa", "machine-id", "salt", "swap")
    counts = dict.fromkeys(drawn_by_each, RESTORES) | {"rsa": ALL_KEYS_IN_THE_HELPER}
    assert {name: len(values) for name, values in seen.items()} == counts
    assert {name: len(set(values)) for name, values in seen.items()} == counts


def deploy_once(
    settings: HelperSettings, image: HelperImage, job: Job, lines: Recorder, directory: Path
) -> tuple[bool, str]:
    """Whether the helper was restored, and the name that the system has then."""
    with deployed(directory / "disk") as disk:
        with start_helper(settings, image, Reporter(lines), str(directory / "evidence")) as vm:
            outcome = vm.run_job(dataclasses.replace(job, disks=job.disks[:1]), [disk])
        return outcome.warm, read(disk, "/etc/hostname").strip()


def test_a_helper_with_much_memory_is_saved_and_restored_too(
    *, real: HelperSettings, image: HelperImage, job: Job, recorder: Recorder, tmp_path: Path
) -> None:
    """R-HLP-14: from 512 MiB on the kernel keeps tens of mebibytes for itself, which are not to be taken."""
    much = dataclasses.replace(real, memory=MUCH_MEMORY)
    assert os.path.getsize(state_of(much, image)) < 128 * MIB
    program = b"#!/bin/sh\ngrep -E '^(pgsteal|oom_kill|allocstall)' /proc/vmstat\n"
    custom = RunCustomTask(program=Secret(base64.b64encode(program).decode()))
    asked = dataclasses.replace(job, run_custom_task=custom)
    assert deploy_once(much, image, asked, recorder, tmp_path) == (True, "web1")
    text = "\n".join(recorder.console)
    counts = re.findall(r"^HELPER: (pgsteal|oom_kill|allocstall)\w* (\d+)$", text, re.MULTILINE)
    assert set(counts) == {("pgsteal", "0"), ("oom_kill", "0"), ("allocstall", "0")}


def of_other_memory(real: HelperSettings, image: HelperImage, directory: Path) -> str:
    return state_of(dataclasses.replace(real, memory=MUCH_MEMORY), image)


def of_other_build(real: HelperSettings, image: HelperImage, directory: Path) -> str:
    """The state of a helper that differs in nothing but its build, and says so."""
    for name in ("kernel", "initrd"):
        os.symlink(image.path(name), directory / name)
    root = Path(image.root).read_bytes()
    assert root.count(image.build.encode()) == 1
    (directory / "root.img").write_bytes(root.replace(image.build.encode(), b"0" * len(image.build)))
    other = dataclasses.replace(image, directory=str(directory), build="0" * len(image.build))
    return state_of(real, other)


@pytest.mark.parametrize(
    ("another", "why"),
    [(of_other_memory, "it does not answer"), (of_other_build, "it is of another helper")],
)
def test_a_state_of_another_helper_is_given_up_with_one_warning(
    *, another: Callable[[HelperSettings, HelperImage, Path], str], why: str, real: HelperSettings,
    image: HelperImage, job: Job, recorder: Recorder, tmp_path: Path,
) -> None:  # fmt: skip
    """D-8: whole, under the name of the right one, with its own digest. The deployment succeeds."""
    (tmp_path / "helper").mkdir()
    state = another(real, image, tmp_path / "helper")
    right = store_of(real, image, "tcg")
    assert state != right.path
    for ending in (".state", ".json"):
        shutil.copy(state.removesuffix(".state") + ending, right.path.removesuffix(".state") + ending)
    assert deploy_once(real, image, job, recorder, tmp_path) == (False, "web1")
    assert recorder.warnings == [f"the helper starts anew, its saved state cannot be used: {why}"]
    assert not right.exists()
