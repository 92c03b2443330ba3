"""The parameter medium: read back by e2fsprogs, never mounted."""

from __future__ import annotations

import dataclasses
import fcntl
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_contract.job import AssignHostname, ChangePassword, Job, JobDisk, Variable, load_job
from snf_image_contract.secret import Secret
from snf_image_host.errors import UserError
from snf_image_host.vm.medium import FLOPPY_BYTES, MediumFile, build_medium, job_files, shell_rules
from snf_image_process import Completed, clean_environment, run

pytestmark = pytest.mark.requires("e2fsprogs")


@contextmanager
def medium(*files: MediumFile, floppy: bool = False) -> Iterator[int]:
    fd = build_medium(files, floppy=floppy)
    try:
        yield fd
    finally:
        os.close(fd)


def debugfs(fd: int, command: str) -> bytes:
    return run(
        ["debugfs", "-R", command, f"/proc/self/fd/{fd}"], timeout=30, pass_fds=(fd,), output_limit=1 << 26
    ).stdout


def check(fd: int) -> None:
    run(["e2fsck", "-fn", f"/proc/self/fd/{fd}"], timeout=60, pass_fds=(fd,))


def test_the_job_comes_back(job: Job) -> None:
    """R-HLP-5, D-21: job.json is the contract's job, root's, mode 0400, on a sound ext2."""
    job = dataclasses.replace(job, change_password=ChangePassword(password=Secret("p \u00fc '\"$(x)")))
    with medium(*job_files(job, rules=False)) as fd:
        check(fd)
        assert load_job(debugfs(fd, "cat job.json")) == job
        listed = debugfs(fd, "ls -l /").decode()
        assert " 100400 (1)      0      0 " in listed
        assert "rules" not in listed
        assert b"snf-params" in debugfs(fd, "stats")


def test_nothing_but_a_sealed_private_read_only_descriptor_is_left(job: Job) -> None:
    """R-SEC-3, R-HLP-13: no file, no other descriptor; nobody can change what was handed over."""
    before = set(os.listdir("/proc/self/fd"))
    with medium(*job_files(job, rules=False)) as fd:
        assert set(os.listdir("/proc/self/fd")) - before == {str(fd)}
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_WRITE
        assert "memfd" in os.readlink(f"/proc/self/fd/{fd}")
        assert not os.get_inheritable(fd)


def loop_devices_over_memory() -> list[str]:
    """Where a medium would have to be before it could be mounted; other tests mount files meanwhile."""
    found = []
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        with suppress(OSError), open(path, encoding="utf-8") as file:
            found += [path] if "memfd:" in file.read() else []
    return found


def test_nothing_is_mounted(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-43: no program that mounts or sets up a loop device is run, and none is there afterwards."""
    programs: list[str] = []

    def noted(argv: Sequence[str], **options: Any) -> Completed:
        programs.append(argv[0])
        return run(argv, **options)

    monkeypatch.setattr("snf_image_host.vm.medium.run", noted)
    with medium(*job_files(job, rules=False)):
        assert loop_devices_over_memory() == []
    assert set(programs) == {"mke2fs", "debugfs"}


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 300_000, 5 * 1024 * 1024, 20_000_000])
def test_any_size_fits(size: int) -> None:
    """T-41: personality and user data of 5 MB, and more."""
    content = os.urandom(size)
    with medium(MediumFile(name="job.json", content=content)) as fd:
        check(fd)
        assert debugfs(fd, "cat job.json") == content


def test_a_floppy_has_the_size_of_a_floppy(job: Job) -> None:
    """R-HLP-5: 1440 KiB exactly, and an error that says what to do beyond."""
    with medium(*job_files(job, rules=True), floppy=True) as fd:
        assert os.fstat(fd).st_size == FLOPPY_BYTES == 1474560
        check(fd)
    with pytest.raises(UserError, match="do not fit on a floppy") as failure:
        build_medium([MediumFile(name="rules", content=os.urandom(FLOPPY_BYTES))], floppy=True)
    assert "PARAM_MEDIUM=virtio" in failure.value.hint


def test_two_media_of_one_job_need_no_common_name(job: Job) -> None:
    """R-HLP-14."""
    with medium(*job_files(job, rules=False)) as one, medium(*job_files(job, rules=False)) as other:
        assert os.fstat(one).st_ino != os.fstat(other).st_ino


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=100))
def test_no_value_breaks_the_quoting(value: str) -> None:
    """R-HLP-6: a shell that reads the rules gets the value, and runs nothing."""
    rules = shell_rules(_job_with("HOSTNAME", value))
    script = rules + b'printf %s "$SNF_IMAGE_HOSTNAME"\n'
    done = run(["sh", "-s"], timeout=10, stdin=script)
    assert done.stdout == value.encode()
    assert done.stderr == b""
    assert "SNF_IMAGE_HOSTNAME" not in clean_environment()


def test_what_foreign_helpers_are_told(job: Job) -> None:
    """R-HLP-6, T-39: type and disks; a variable that the job has is not given twice."""
    rules = shell_rules(job).decode().splitlines()
    assert "export SNF_IMAGE_DEV='/dev/vda'" in rules
    assert "export SNF_IMAGE_DEV_COUNT='2'" in rules
    assert "export SNF_IMAGE_TYPE='diskdump'" in rules
    given_twice = shell_rules(_job_with("HOSTNAME", "it's"))
    assert given_twice.count(b"SNF_IMAGE_HOSTNAME=") == 1
    assert b"export SNF_IMAGE_HOSTNAME='it'\\''s'\n" in given_twice


@pytest.mark.parametrize(
    ("name", "value"), [("A B", "x"), ("A=", "x"), ("", "x"), ("A;reboot", "x"), ("A", "\0")]
)
def test_names_and_values_that_cannot_be(name: str, value: str) -> None:
    """R-HLP-6: refused, without the value in the message."""
    with pytest.raises(UserError):
        shell_rules(_job_with(name, value))


def _job_with(name: str, value: str) -> Job:
    return Job(
        instance="web1",
        clock=0.0,
        disks=(JobDisk(index=0),),
        assign_hostname=AssignHostname(name="web1"),
        environment=(Variable(name=name, value=Secret(value)),),
    )
