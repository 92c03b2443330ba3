"""The helper as an enemy: it prints garbage, floods, hangs, dies, lies. No qemu: a script plays it."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_image_contract.events import Failed, Succeeded, TaskEnded, TaskStarted, Warned
from snf_image_contract.job import Job
from snf_image_host.errors import HelperError, ImageError, NodeError, SnfImageError, UserError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.vm.conftest import Disk, Recorder, StartVm


def test_a_good_helper_succeeds(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder, tmp_path: Path
) -> None:
    """R-HLP-9: everything that success takes is there."""
    vm = start_vm("good")
    hello = vm.wait_ready()
    assert hello is not None
    assert hello.build == "build-1"
    outcome = vm.run_job(job, disks)
    assert isinstance(outcome.events[-1], Succeeded)
    assert outcome.events == tuple(recorder.said)
    assert outcome.start_seconds is not None
    assert 0 <= outcome.start_seconds <= outcome.total_seconds
    assert "HELPER: Linux version 6" in recorder.console
    assert recorder.infos == ["helper VM started (tcg)", "helper VM ended, status 0"]
    evidence = tmp_path / "evidence"
    assert sorted(os.listdir(evidence)) == [
        "console.log",
        "events.jsonl",
        "qemu.argv",
        "qemu.log",
        "result.log",
    ]
    assert all(os.stat(evidence / name).st_mode & 0o777 == 0o600 for name in os.listdir(evidence))
    assert json.loads((evidence / "events.jsonl").read_text().splitlines()[0])["kind"] == "hello"


def test_the_first_disk_and_the_job_are_given_before_the_other_disks(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder
) -> None:
    """R-HLP-4, R-HLP-16, D-19: the first disk is found first; serials, exact modes; a clock of now."""
    start_vm("good").run_job(job, disks)
    plugged = [json.loads(line.split("PLUGGED ")[1]) for line in recorder.console if "PLUGGED" in line]
    assert [disk["serial"] for disk in plugged] == ["snf-disk-0", "snf-params", "snf-disk-1"]
    assert [int(disk["addr"], 16) for disk in plugged] == [4, 31, 5]
    assert [disk["mode"] for disk in plugged] == ["rw", "ro", "ro"]
    assert [disk["read-only"] for disk in plugged] == [False, True, True]
    assert [disk["discard"] for disk in plugged] == ["unmap", "ignore", "ignore"]
    assert {disk["driver"] for disk in plugged} == {"file"}
    assert all(disk["direct"] == disk["o_direct"] for disk in plugged)
    assert not plugged[1]["direct"]
    # The job was made with a clock of 0 (R-HLP-16).
    [clock] = [float(line.split("CLOCK ")[1]) for line in recorder.console if "CLOCK" in line]
    assert abs(clock - time.time()) < 60
    # Nothing of qemu's can grow beyond the largest disk.
    limit = next(line for line in recorder.console if "Max file size" in line)
    assert re.search(r"Max file size +1048576 +1048576", limit)


@pytest.mark.parametrize(
    ("blame", "error"),
    [("request", UserError), ("image", ImageError), ("customization", HelperError), ("helper", HelperError)],
)
def test_a_failure_is_told_by_whose_fault_it_is(
    *,
    blame: str,
    error: type[SnfImageError],
    start_vm: StartVm,
    job: Job,
    disks: tuple[Disk, ...],
    tmp_path: Path,
) -> None:
    """R-MON-6: the helper's own account reaches the user, cause by cause, with its standard error."""
    with pytest.raises(SnfImageError) as failure:
        start_vm(f"fails-{blame}").run_job(job, disks)
    assert type(failure.value) is error
    assert failure.value.messages == ("AddSwap: it went wrong", "for two reasons")
    assert failure.value.details == ("line",)
    assert failure.value.kept == str(tmp_path / "evidence")


FAULTS = {
    # Garbage and disorder (D-6).
    "garbage": (HelperError, "not valid JSON"),
    "half-line": (HelperError, "not a whole line"),
    "long-line": (HelperError, "longer than 65536 bytes"),
    "repeats-a-number": (HelperError, "number 2 was due, got 1"),
    "skips-a-number": (HelperError, "number 2 was due, got 3"),
    "hello-twice": (HelperError, "a second hello"),
    "never-accepts": (HelperError, "before the job was accepted"),
    "ends-another-task": (HelperError, "AssignHostname ends but does not run"),
    "succeeds-within-a-task": (HelperError, "success while task AddSwap runs"),
    "goes-on": (HelperError, "event warning after the final one"),
    "succeeds-twice": (HelperError, "event succeeded after the final one"),
    # Floods (R-MON-9).
    "flood": (HelperError, "bytes of events"),
    "flood-of-changes": (HelperError, "bytes of events"),
    "flood-of-tasks": (HelperError, "more than 36 events task-start"),
    "flood-of-result": (HelperError, "without saying SUCCESS"),
    # Death (R-HLP-9, R-HLP-10, R-HLP-12, T-45).
    "dies": (HelperError, "exit status 3"),
    "killed": (HelperError, "killed by signal 9"),
    "panics": (HelperError, "Kernel panic - not syncing: Attempted to kill init!"),
    "signalled": (HelperError, "ended the helper VM with a signal"),
    "dies-after-success": (HelperError, "exit status 1"),
    "early-success": (HelperError, "no final event"),
    "no-success": (HelperError, "without saying SUCCESS"),
    "lower-case-success": (HelperError, "without saying SUCCESS"),
    "second-line-success": (HelperError, "without saying SUCCESS"),
    "error-only": (HelperError, r"out of luck \x1b[31m"),
    # The start.
    "garbage-at-boot": (HelperError, "not valid JSON"),
    "dies-at-boot": (NodeError, "did not start: the helper VM ended without powering itself off"),
    "fails-at-boot": (HelperError, "no memory"),
    "accepts-too-early": (HelperError, "without a job"),
    "dies-waiting": (HelperError, "exit status 5"),
    "other-version": (NodeError, "speaks contract version 99"),
    # The node and qemu.
    "disk-fault": (NodeError, "disk 0: read failed on the node: Input/output error"),
    "full-disk": (NodeError, "no space left where the disk is stored"),
    "qmp-refuses": (NodeError, "disk 0 could not be added"),
    "qmp-garbage": (NodeError, "disk 0 could not be added"),
    "qmp-wrong-id": (NodeError, "disk 0 could not be added"),
    "qmp-flood": (NodeError, "disk 0 could not be added"),
    "qmp-long-line": (NodeError, "disk 0 could not be added"),
}


@pytest.mark.parametrize("play", FAULTS)
def test_a_fault_ends_the_deployment_with_its_cause(
    play: str, start_vm: StartVm, job: Job, disks: tuple[Disk, ...], tmp_path: Path
) -> None:
    """R-HLP-9, R-HLP-10, R-HLP-12, R-MON-9, T-45, D-6: see the table; and nothing is left running."""
    kind, text = FAULTS[play]
    vm = start_vm(play)
    pid = vm.qemu.running.pid
    with pytest.raises(SnfImageError) as failure:
        vm.run_job(job, disks)
    assert type(failure.value) is kind
    assert text in str(failure.value)
    shown = (str(failure.value), failure.value.hint, *failure.value.details)
    assert all(line.isprintable() for line in shown)
    vm.close()
    assert not os.path.exists(f"/proc/{pid}")


def test_a_vm_that_cannot_start_says_what_qemu_said(start_vm: StartVm, tmp_path: Path) -> None:
    """R-HLP-10: could not start, with the end of qemu's own output, which is also kept."""
    with pytest.raises(NodeError, match=r"could not start: fake_qemu\.py: exit status 1") as failure:
        start_vm("no-start")
    assert failure.value.details == ("qemu-system-x86_64: could not load kernel",)
    assert failure.value.kept == str(tmp_path / "evidence")
    assert "could not load kernel" in (tmp_path / "evidence" / "qemu.log").read_text()


def test_a_missing_qemu_is_named(start_vm: StartVm) -> None:
    """R-HLP-10: the program that is not there is told, not a stack of errors."""
    with pytest.raises(NodeError, match="could not start: no-such-qemu") as failure:
        start_vm("good", qemu="no-such-qemu")
    assert "no-such-qemu" in " ".join(failure.value.details)


def test_a_helper_that_never_says_hello(
    start_vm: StartVm, recorder: Recorder, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """D-2: start-up has a limit of its own; the console's last line is in the error."""
    vm = start_vm("hangs-at-boot", start_timeout=0.3)
    eventually(lambda: recorder.console != [])
    with pytest.raises(NodeError, match=r"did not start within 0\.3 s") as failure:
        vm.wait_ready()
    assert failure.value.details == ("last line of the console: Booting...",)


def test_the_soft_limit_ends_a_hanging_helper_by_sigterm(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...]
) -> None:
    """R-HLP-10: SIGTERM at HELPER_SOFT_TIMEOUT; the error says so, and what was going on."""
    vm = start_vm("hangs", soft_timeout=1.0)
    with pytest.raises(
        HelperError, match=r"within 1 s \(task AddSwap was running\); it was ended by SIGTERM"
    ):
        vm.run_job(job, disks)


def test_the_hard_limit_kills(start_vm: StartVm, job: Job, disks: tuple[Disk, ...]) -> None:
    """R-HLP-10: SIGKILL after HELPER_HARD_TIMEOUT more, told apart from SIGTERM."""
    vm = start_vm("ignores-sigterm", soft_timeout=0.3, hard_timeout=0.2)
    with pytest.raises(HelperError, match=r"did not end within 0\.2 s after SIGTERM and was killed"):
        vm.run_job(job, disks)


def test_success_that_does_not_power_off_is_no_success(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...]
) -> None:
    """R-HLP-9, T-45: SUCCESS on both ports without a clean end before the deadline."""
    vm = start_vm("hangs-after-success", soft_timeout=1.0)
    with pytest.raises(HelperError, match=r"did not power itself off within 1 s"):
        vm.run_job(job, disks)


def test_limits_are_longer_in_emulation(start_vm: StartVm, job: Job, disks: tuple[Disk, ...]) -> None:
    """R-HLP-10: the soft limit is scaled by HELPER_TCG_TIMEOUT_FACTOR."""
    vm = start_vm("hangs", soft_timeout=0.1, tcg_factor=4.0)
    begun = time.monotonic()
    with pytest.raises(HelperError, match=r"within 0\.4 s"):
        vm.run_job(job, disks)
    assert time.monotonic() - begun >= 0.4


def test_a_failed_helper_gets_little_time_to_power_off(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause is known: a VM that then hangs does not use up the whole limit, nor change the cause."""
    monkeypatch.setattr("snf_image_host.vm.machine.FAILED_GRACE", 0.2)
    begun = time.monotonic()
    with pytest.raises(ImageError, match="bad image"):
        start_vm("fails-and-hangs").run_job(job, disks)
    assert time.monotonic() - begun < 10


def test_more_than_a_hundred_warnings_end_nothing(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder
) -> None:
    """T-35, R-MON-9: 150 warnings of 600 bytes; those beyond MONITOR_MAX_MESSAGES are counted in one."""
    outcome = start_vm("many-warnings", max_messages=120).run_job(job, disks)
    assert sum(isinstance(event, Warned) for event in outcome.events) == 120
    assert outcome.warnings_left_out == 30
    assert recorder.warnings == ["30 more warnings of the helper are left out"]


def test_escape_sequences_are_inert(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder, tmp_path: Path
) -> None:
    """T-34, R-HLP-8: on the console, in events, and in everything that is kept."""
    start_vm("escapes").run_job(job, disks)
    assert recorder.console[:2] == [
        r"HELPER: \x1b]0;owned\x07\x1b[2Jclear",
        r"HELPER: snf-image: all is well\x9b31m\xff",
    ]
    warned = next(event for event in recorder.said if isinstance(event, Warned))
    assert warned.message == r"red \x1b[31m text\nHELPER: forged \u202e line \x85"
    for name in os.listdir(tmp_path / "evidence"):
        kept = (tmp_path / "evidence" / name).read_bytes()
        assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in kept), name
    assert all(
        line.startswith("HELPER: ")
        for line in (tmp_path / "evidence" / "console.log").read_text().splitlines()
    )


def test_a_flood_on_the_console_is_cut(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder, tmp_path: Path
) -> None:
    """R-HLP-8: lines are capped at 4096 bytes, the total with a note; the deployment is not harmed."""
    start_vm("flood-of-console").run_job(job, disks)
    assert max(len(line) for line in recorder.console) == 4096
    assert recorder.console[0].endswith(" [cut]")
    assert re.fullmatch(r"HELPER: \[\d+ more bytes of the console are not shown\]", recorder.console[-1])
    assert os.path.getsize(tmp_path / "evidence" / "console.log") < 5 * 1024 * 1024


def test_the_vm_may_die_while_the_image_is_copied(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """R-HLP-10: a VM that is gone before it gets the job is told as such, not as a fault of the disk."""
    vm = start_vm("dies-waiting")
    vm.wait_ready()
    eventually(lambda: vm.qemu.running.poll() is not None)
    with pytest.raises(HelperError, match="the helper VM died: qemu: exit status 5"):
        vm.run_job(job, disks)


def test_closing_twice_leaves_nothing(start_vm: StartVm, tmp_path: Path) -> None:
    """R-HLP-13, R-HLP-14: no process, no socket, no descriptor, no thread, however often it is closed."""
    threads = set(threading.enumerate())
    before = set(os.listdir("/proc/self/fd"))
    vm = start_vm("hangs")
    pid = vm.qemu.running.pid
    vm.close()
    vm.close()
    assert not os.path.exists(f"/proc/{pid}")
    assert set(os.listdir("/proc/self/fd")) == before
    assert set(threading.enumerate()) == threads
    assert not [path for path in tmp_path.rglob("*") if path.is_socket()]


def test_an_interruption_leaves_nothing(
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-13: Ctrl-C while the helper works."""
    vm = start_vm("hangs")
    pid = vm.qemu.running.pid

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("snf_image_host.vm.watch.Watch.follow", interrupted)
    with pytest.raises(KeyboardInterrupt), vm:
        vm.run_job(job, disks)
    assert not os.path.exists(f"/proc/{pid}")


def test_the_debug_shell_is_announced(start_vm: StartVm, recorder: Recorder) -> None:
    """R-HLP-7: a fourth port only if it is asked for; its terminal is told."""
    vm = start_vm("hangs", debug=True)
    assert "the helper's debug shell will be on /dev/pts/7 if a task fails" in recorder.infos
    assert "chardev:debug" in vm.qemu.running.argv
    assert "snf_image_debug_helper" in " ".join(vm.qemu.running.argv)


def test_a_floppy_is_refused_for_the_shipped_helper(start_vm: StartVm) -> None:
    """R-HLP-5: a real floppy controller is for foreign helpers; T-42: nobody else needs one."""
    with pytest.raises(UserError, match="PARAM_MEDIUM=floppy is for foreign helpers"):
        start_vm("good", param_medium="floppy")


class TestForeignHelpers:
    """HELPER_PROTOCOL=text: the older lines, with tolerance (R-MON-8, R-MON-9, D-6)."""

    def test_success_needs_no_event(
        self, start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder
    ) -> None:
        """R-MON-8, T-36: lines become events, an unknown line is counted and ends nothing."""
        vm = start_vm("text", protocol="text")
        assert vm.wait_ready() is None
        outcome = vm.run_job(job, disks)
        assert outcome.hello is None
        kinds = [type(event) for event in outcome.events]
        assert kinds == [TaskStarted, Warned, TaskEnded]
        assert recorder.warnings == ["2 lines of the helper's events were not understood"]
        shown = next(line for line in recorder.console if "CMDLINE" in line)
        assert "snf_image_activate_helper rules_dev=/dev/vdc" in shown
        assert shown.index("snf-disk-0") < shown.index("snf-disk-1") < shown.index("snf-params")

    def test_a_flood_ends_nothing(
        self, start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder
    ) -> None:
        """R-MON-9, T-35, T-36: neither amount nor form ends a deployment; events of tasks are bounded."""
        outcome = start_vm("text-flood", protocol="text", max_messages=10).run_job(job, disks)
        assert outcome.warnings_left_out == 1190
        assert sum(isinstance(event, TaskStarted) for event in outcome.events) == 36
        assert len(outcome.events) < 100
        assert max(len(event.message) for event in outcome.events if isinstance(event, Warned)) <= 4096

    def test_errors_are_collected(self, start_vm: StartVm, job: Job, disks: tuple[Disk, ...]) -> None:
        """R-MON-8, T-25: each ERROR a cause of its own, STDERR with as many lines as it announces."""
        with pytest.raises(HelperError) as failure:
            start_vm("text-error", protocol="text").run_job(job, disks)
        assert failure.value.messages == ("AddSwap: no room", "none at all")
        assert failure.value.details == ("mkswap: bad", "mkswap: worse")

    def test_an_error_is_not_undone_by_success(
        self, start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder
    ) -> None:
        """R-HLP-12: what failed stays failed."""
        with pytest.raises(HelperError, match="no room"):
            start_vm("text-error-then-success", protocol="text").run_job(job, disks)
        assert isinstance(recorder.said[-1], Failed)

    def test_silence_is_no_success(self, start_vm: StartVm, job: Job, disks: tuple[Disk, ...]) -> None:
        """R-HLP-12, T-45: a clean exit without the word."""
        with pytest.raises(HelperError, match="without saying SUCCESS"):
            start_vm("text-silent", protocol="text").run_job(job, disks)

    def test_a_floppy_is_a_floppy(
        self, start_vm: StartVm, job: Job, disks: tuple[Disk, ...], recorder: Recorder
    ) -> None:
        """R-HLP-5: PARAM_MEDIUM=floppy, on the first drive."""
        start_vm("text", protocol="text", param_medium="floppy").run_job(job, disks)
        shown = next(line for line in recorder.console if "CMDLINE" in line)
        assert "rules_dev=/dev/fd0" in shown
        assert '"driver": "floppy"' in shown
        assert "snf-params" not in shown
