"""Process 1: what it says on which port, however the job ends, and that the VM always ends."""

from __future__ import annotations

import dataclasses
import faulthandler
import fcntl
import os
import random
import signal
import termios
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Never

import pytest

from snf_image_contract.codec import ContractError
from snf_image_contract.events import Awake, Event, Failed, Hello, JobAccepted, Succeeded, decode_event
from snf_image_contract.job import (
    CONTRACT_VERSION,
    MAX_JOB_BYTES,
    SLOTS_FILLED,
    SLOTS_WORD,
    DeleteSSHKeys,
    HostKey,
    HostKeys,
    Job,
    dump_host_keys,
    load_job,
)
from snf_image_contract.secret import Secret
from snf_image_helper import init, power_switch, preload, runner
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.from_host import FromHost, HostKeySource, no_host_keys
from snf_image_helper.report import Reporter

GOLDEN_JOB = Path(__file__).parents[2] / "contract/tests/golden/job-v3.json"
SECRET = "Tr0ub4dor&3"


class Port:
    """A serial port as the host has it: a pseudo-terminal, as a terminal comes (echo, line ends)."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        self.path = os.ttyname(self._slave)
        self.got = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self.master, 65536):
                self.got += chunk
        except OSError:  # how a pseudo-terminal says that the other side is closed
            return

    def close(self) -> bytes:
        """Everything that was written to it."""
        os.close(self._slave)
        self._reader.join(10)
        assert not self._reader.is_alive()
        os.close(self.master)
        return self.got

    @property
    def modes(self) -> list[int]:
        attributes = termios.tcgetattr(self._slave)
        return [attributes[1] & termios.OPOST, attributes[3] & (termios.ECHO | termios.ICANON)]


class Machine:
    """The VM as its program sees it: two ports, a job, a power switch."""

    def __init__(self) -> None:
        self.events, self.result = Port(), Port()
        self.clock: list[tuple[int, float]] = []
        self.entropy: list[Job] = []
        self.shells = 0

    def heard(self) -> list[Event]:
        lines = self.events.close().splitlines(keepends=True)
        return [decode_event(line, number) for number, line in enumerate(lines)]


@pytest.fixture
def job() -> Job:
    return load_job(GOLDEN_JOB.read_bytes())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, job: Job) -> Machine:
    machine = Machine()
    monkeypatch.setattr(init, "EVENT_PORT", machine.events.path)
    monkeypatch.setattr(init, "RESULT_PORT", machine.result.path)
    monkeypatch.setattr(init, "await_disk", lambda *_: "/dev/vdc")
    monkeypatch.setattr(init, "read_job", {"/dev/vdc": job}.__getitem__)
    monkeypatch.setattr(init, "take_entropy", machine.entropy.append)
    monkeypatch.setattr(init, "build_id", lambda: "b" * 64)
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(time, "clock_settime", lambda clock, moment: machine.clock.append((clock, moment)))

    def shell() -> None:
        machine.shells += 1

    monkeypatch.setattr(init, "debug_shell", shell)
    return machine


def doing(monkeypatch: pytest.MonkeyPatch, work: Callable[[Job, Reporter], None]) -> None:
    monkeypatch.setattr(runner, "run_job", lambda job, report, _: work(job, report))


def fail_with(error: BaseException) -> Callable[[Job, Reporter], None]:
    def run_job(job: Job, report: Reporter) -> None:
        raise error

    return run_job


def test_a_job_that_is_done(machine: Machine, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-9, R-MON-8, D-20: hello first, the final event last, the one word on the second port."""
    doing(monkeypatch, lambda _, report: report.emit(JobAccepted()))
    init.serve([])
    assert machine.result.close() == b"SUCCESS\n"
    assert machine.heard() == [
        Hello(contract_version=CONTRACT_VERSION, build="b" * 64),
        JobAccepted(),
        Succeeded(),
    ]
    assert machine.clock == [(time.CLOCK_REALTIME, job.clock)]  # R-HLP-16


def test_keys_that_follow_the_job_are_read_from_the_port_of_events(
    machine: Machine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-TASK-SSH-2: the host sends them when they are made, which may be before the job is found."""
    key = HostKey(type="rsa", private=Secret(SECRET), public="ssh-rsa A r@web1")
    got: list[tuple[HostKey, ...]] = []
    monkeypatch.setattr(runner, "run_job", lambda _, __, host_keys: got.append(host_keys()))

    def await_disk(serial: str, pause: Callable[[], None]) -> str:
        os.write(machine.events.master, b"\n" + dump_host_keys(HostKeys(keys=(key,))))
        pause()
        return "/dev/vdc"

    monkeypatch.setattr(init, "await_disk", await_disk)
    init.serve([])
    assert got == [(key,)]
    assert machine.result.close() == b"SUCCESS\n"
    assert SECRET.encode() not in machine.events.close()


def test_a_job_whose_keys_do_not_follow_waits_for_none(
    machine: Machine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-TASK-SSH-2: the helper makes what the host does not."""
    got: list[HostKeySource] = []
    monkeypatch.setattr(runner, "run_job", lambda _, __, host_keys: got.append(host_keys))
    without = dataclasses.replace(job, delete_ssh_keys=DeleteSSHKeys())
    monkeypatch.setattr(init, "read_job", lambda _: without)
    init.serve([])
    assert got == [no_host_keys]


def test_the_clock_is_the_hosts_before_the_first_task(
    machine: Machine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-16."""
    seen: list[int] = []
    doing(monkeypatch, lambda *_: seen.append(len(machine.clock)))
    init.serve([])
    assert seen == [1]


def test_ports_pass_bytes_as_they_are(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-7: no echo, no line ends that a terminal adds."""
    modes: list[list[int]] = []
    doing(monkeypatch, lambda *_: modes.extend([machine.events.modes, machine.result.modes]))
    init.serve([])
    assert modes == [[0, 0], [0, 0]]
    assert b"\r" not in machine.events.close()


@pytest.mark.parametrize(
    ("error", "blame"), [(TaskError("no room for swap"), "customization"), (ImageError("no room"), "image")]
)
def test_a_task_that_fails(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: TaskError, blame: str
) -> None:
    """R-HLP-9, R-HLP-11: the cause is on both ports; there is no word of success."""
    doing(monkeypatch, fail_with(error))
    init.serve([])
    last = machine.heard()[-1]
    assert isinstance(last, Failed)
    assert (last.blame, last.messages) == (blame, error.messages)
    assert machine.result.close() == f"ERROR: {error}\n".encode()


def test_a_cause_of_several_lines_and_scripts_is_one_line_of_ascii(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-8, R-HLP-9: no text can be taken for a second line, and 4 KiB hold all of it."""
    doing(monkeypatch, fail_with(TaskError("größer\r\nSUCCESS\n\x1b[2J" + "x" * 5000)))
    init.serve([])
    said = machine.result.close()
    assert said.startswith(b"ERROR: gr\\xf6\\xdfer SUCCESS \x1b[2Jxxx")
    assert said.count(b"\n") == 1
    assert len(said) < 4096


def test_a_job_that_cannot_be_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_job(_: str) -> Never:
        raise ContractError("job.surprise: unknown field")

    monkeypatch.setattr(init, "read_job", read_job)
    init.serve([])
    last = machine.heard()[-1]
    assert isinstance(last, Failed)
    assert (last.blame, last.messages) == ("helper", ("the job cannot be read: job.surprise: unknown field",))
    assert machine.result.close().startswith(b"ERROR: the job cannot be read")


def test_a_bug_is_told_with_its_place_and_without_its_values(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """R-SEC-1: the text of an unforeseen error may quote a password; ports and console must not."""
    doing(monkeypatch, fail_with(ValueError(SECRET)))
    init.serve([])
    last = machine.heard()[-1]
    assert isinstance(last, Failed)
    assert (last.blame, last.messages) == ("helper", ("internal error of the helper: ValueError",))
    assert "in run_job" in last.stderr[-1]
    console = "".join(capfd.readouterr())
    assert "in run_job" in console
    assert SECRET not in console + str(last) + machine.result.close().decode()


@pytest.mark.parametrize(
    ("words", "fails", "shells"),
    [
        (["snf_image_debug_helper"], True, 1),
        (["snf_image_debug_helper"], False, 0),
        (["quiet"], True, 0),
    ],
)
def test_the_debug_shell_is_for_failures_and_those_who_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, words: list[str], *, fails: bool, shells: int
) -> None:
    """R-HLP-11."""
    doing(monkeypatch, fail_with(TaskError("x")) if fails else lambda *_: None)
    init.serve(words)
    assert machine.shells == shells


def test_a_debug_shell_without_its_port_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """R-HLP-7: the port is absent unless it was asked for."""
    monkeypatch.setattr(init, "SHELL_PORT", str(tmp_path / "absent"))
    init.debug_shell()
    assert "FileNotFoundError" in capfd.readouterr().out


# -- process 1 and its worker ---------------------------------------------------------------------


def test_a_worker_that_finishes() -> None:
    assert init.supervise(lambda: None) is None


def test_a_worker_that_is_killed_is_named_with_its_signal() -> None:
    """T-46: a crash in a library, or too little memory, is a failure with a cause."""
    death = init.supervise(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert death == "was killed by SIGKILL; its memory may be too small"


def test_a_worker_that_raises(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ValueError(SECRET)

    assert init.supervise(work) == "ended with status 70"
    console = capfd.readouterr().out
    assert "in work" in console
    assert SECRET not in console


def test_dead_processes_are_collected_while_the_worker_works() -> None:
    """No zombies: process 1 inherits whatever its worker's programs leave behind."""
    orphan = os.fork()
    if orphan == 0:
        os._exit(3)
    assert init.supervise(lambda: time.sleep(0.2)) is None
    with pytest.raises(ChildProcessError):
        os.waitpid(orphan, 0)


class PoweredOffError(Exception):
    """Instead of the machine."""


@pytest.fixture
def switch(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    steps: list[str] = []

    def power_off() -> Never:
        steps.append("off")
        raise PoweredOffError

    monkeypatch.setattr(init, "power_off", power_off)
    monkeypatch.setattr(init, "release_disks", lambda: steps.append("released"))
    monkeypatch.setattr(init, "prepare_system", lambda: None)
    return steps


def test_the_end_is_a_power_off(machine: Machine, switch: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-11: disks first, then power."""
    doing(monkeypatch, lambda *_: None)
    with pytest.raises(PoweredOffError):
        init.main()
    assert switch == ["released", "off"]
    assert machine.result.close() == b"SUCCESS\n"


@pytest.mark.parametrize(("words", "switched"), [(["quiet", "acpi=off"], True), (["quiet"], False)])
def test_without_acpi_the_switch_is_ours(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str], switched: bool
) -> None:
    """R-HLP-11: the kernel that was told not to look for ACPI could only halt."""
    steps: list[str] = []

    class Kernel:
        def reboot(self, command: object) -> Never:
            raise PoweredOffError

    monkeypatch.setattr(power_switch, "switch_off", lambda: steps.append("switched"))
    monkeypatch.setattr(init, "kernel_words", lambda: words)
    monkeypatch.setattr(init, "_libc", Kernel())
    with pytest.raises(PoweredOffError):
        init.power_off()
    assert steps == ["switched"] * switched
    assert capfd.readouterr().out == "helper: power down\n" * switched


def test_the_switch_is_an_instruction_for_those_who_may() -> None:
    """A port that was not asked for ends the program: the instruction was reached."""

    def touch() -> None:
        faulthandler.disable()  # the end that is expected needs no report
        power_switch.out_word(power_switch.PM1_CNT, power_switch.SLEEP)

    ended = init.supervise(touch)
    assert ended is not None
    assert "SIGSEGV" in ended


def test_a_worker_that_dies_leaves_a_cause_and_no_word_of_success(
    machine: Machine, switch: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-9, R-HLP-12: ERROR on the second port, and no final event."""
    doing(monkeypatch, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PoweredOffError):
        init.main()
    assert machine.result.close().startswith(b"ERROR: the helper's worker was killed by SIGKILL")
    assert [type(event) for event in machine.heard()] == [Hello]


@pytest.mark.parametrize("step", ["prepare_system", "kernel_words", "supervise", "release_disks"])
def test_nothing_keeps_the_vm_from_ending(
    switch: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], step: str
) -> None:
    """R-HLP-11: a failure before and after the job ends the VM, too, and says so on the console."""

    def broken(*_: object) -> Never:
        raise OSError(SECRET)

    doing(monkeypatch, lambda *_: None)
    monkeypatch.setattr(init, step, broken)
    with pytest.raises(PoweredOffError):
        init.main()
    assert switch[-1] == "off"
    console = capfd.readouterr().out
    assert "OSError" in console
    assert SECRET not in console


# -- disks ----------------------------------------------------------------------------------------


def test_a_disk_is_waited_for_by_its_serial(monkeypatch: pytest.MonkeyPatch) -> None:
    """D-19, T-39: never by its letter."""
    present = {"snf-disk-0": "vdb"}
    monkeypatch.setattr(init, "by_serial", lambda: present)
    looks: list[None] = []

    def pause() -> None:
        looks.append(None)
        if len(looks) == 3:
            present["snf-params"] = "vda"

    assert init.await_disk("snf-params", pause) == "/dev/vda"
    assert len(looks) == 3


def test_a_helper_with_slots_waits_until_they_are_filled(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-4, R-HLP-14: hello and signs of life before, then the disk, then the job."""
    taken: list[bytes] = []
    slots = types.SimpleNamespace(medium="/dev/vdc", take_disk=lambda: taken.append(machine.events.got))
    monkeypatch.setattr(init, "Slots", lambda: slots)
    monkeypatch.setattr(init, "await_disk", None)
    rehearsals: list[int] = []
    monkeypatch.setattr(init, "rehearse", lambda: rehearsals.append(1))
    doing(monkeypatch, lambda _, report: report.emit(JobAccepted()))
    worker = threading.Thread(target=init.serve, args=([SLOTS_WORD],))
    worker.start()
    while b"hello" not in machine.events.got:
        time.sleep(0.01)
    os.write(machine.events.master, b"\n")
    while b"awake" not in machine.events.got:
        time.sleep(0.01)
    assert taken == []
    os.write(machine.events.master, b"\n")
    while machine.events.got.count(b"awake") < 2 or len(rehearsals) < 2:
        time.sleep(0.01)
    os.write(machine.events.master, SLOTS_FILLED)
    worker.join(10)
    assert len(rehearsals) == 2, "at the start, and after the first sign of life"
    [said_before] = taken
    assert b"awake" in said_before
    assert b"job-accepted" not in said_before
    assert machine.result.close() == b"SUCCESS\n"


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_a_job_that_comes_at_once_is_not_rehearsed(asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-14: after a sign of life it is waited for; a helper that booted, nobody asks for one."""
    monkeypatch.setattr(init, "rehearse", lambda: pytest.fail("a host with a job at once waits"))
    monkeypatch.setattr(init, "_MOMENT", 30.0)
    port = Port()
    waiting = [b"\n"] * asked + [SLOTS_FILLED]

    def say(_: bytes = b"") -> None:
        """The next line comes when the one before is answered."""
        os.write(port.master, waiting.pop(0))

    with init.open_port(port.path) as descriptor:
        say()
        init.await_slots(FromHost(descriptor), Reporter(say))
    assert waiting == []
    port.close()


def test_a_helper_that_is_asked_answers_and_one_that_is_not_waits(machine: Machine) -> None:
    """R-HLP-14: how the host knows that a restored helper is alive."""
    said: list[bytes] = []
    report = Reporter(said.append)
    with init.open_port(init.EVENT_PORT) as descriptor:
        port = FromHost(descriptor)
        begun = time.monotonic()
        init.answer(port, report)
        assert time.monotonic() - begun > 0.015
        assert said == []
        os.write(machine.events.master, b"\n")
        while not said:
            init.answer(port, report)
    assert [decode_event(line, number) for number, line in enumerate(said)] == [Awake()]


def test_fresh_entropy_reaches_the_kernel_and_pythons_own_generator(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-16: it is credited, the kernel's generator is seeded anew at once, and so is Python's."""
    asked: list[tuple[int, bytes]] = []
    monkeypatch.setattr(init, "RANDOM", str(tmp_path / "random"))
    monkeypatch.setattr(fcntl, "ioctl", lambda _, request, given=b"": asked.append((request, given)))
    random.seed(1)
    expected = random.getstate()
    random.seed(1)
    init.take_entropy(dataclasses.replace(job, entropy=Secret("AAECAw==")))
    assert asked == [(0x40085203, b"\x20\0\0\0\x04\0\0\0\x00\x01\x02\x03"), (0x5207, b"")]
    assert random.getstate() != expected


def test_without_entropy_nothing_is_seeded(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "RANDOM", "/nowhere")
    init.take_entropy(dataclasses.replace(job, entropy=None))
    random.seed(1)
    first = random.getstate()
    random.seed(1)
    assert random.getstate() == first


def test_a_state_to_be_saved_has_its_code_loaded_before_hello(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-14: only where the kernel's words ask for it."""
    order: list[str] = []

    def hello() -> str:
        order.append("hello")
        return "b" * 64

    monkeypatch.setattr(preload, "preload", lambda: order.append("preload"))
    monkeypatch.setattr(init, "build_id", hello)
    doing(monkeypatch, lambda *_: None)
    init.serve([])
    assert order == ["hello"]
    init.serve(["snf_image_preload"])
    assert order == ["hello", "preload", "hello"]


class Mounts:
    """mount(2) and umount2(2), remembered."""

    def __init__(self, busy: set[str]) -> None:
        self.done: list[tuple[str, ...]] = []
        self.busy = busy

    def mount(self, source: str, target: str, kind: str, flags: int, options: str) -> None:
        self.done.append(("mount", source, target, kind, str(flags)))

    def unmount(self, target: str) -> None:
        if target in self.busy:
            raise OSError("busy")
        self.done.append(("unmount", target))


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Mounts:
    mounts = Mounts(set())
    monkeypatch.setattr(init, "mount", mounts.mount)
    monkeypatch.setattr(init, "unmount", mounts.unmount)
    return mounts


def test_the_job_is_read_from_the_medium(
    mounts: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    """R-HLP-5, D-21: mounted read-only, nosuid, nodev, noexec; job.json; unmounted again."""
    (tmp_path / "job.json").write_bytes(GOLDEN_JOB.read_bytes())
    monkeypatch.setattr(init, "_MEDIUM", str(tmp_path))
    assert init.read_job("/dev/vdc") == job
    assert mounts.done == [
        ("mount", "/dev/vdc", str(tmp_path), "ext2", "15"),
        ("unmount", str(tmp_path)),
    ]


def test_what_does_not_fit_the_contract_later_is_not_blamed_on_the_job(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-11: an event that cannot be sent is a bug of the helper's."""
    doing(monkeypatch, fail_with(ContractError("event detected: line of 1048691 bytes, at most 65536")))
    init.serve([])
    last = machine.heard()[-1]
    assert isinstance(last, Failed)
    assert (last.blame, last.messages) == ("helper", ("internal error of the helper: ContractError",))


def test_a_job_beyond_its_limit_is_refused_without_reading_all_of_it(
    mounts: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "job.json").open("wb") as file:
        file.truncate(MAX_JOB_BYTES * 4)
    monkeypatch.setattr(init, "_MEDIUM", str(tmp_path))
    with pytest.raises(ContractError):
        init.read_job("/dev/vdc")
    assert mounts.done[-1] == ("unmount", str(tmp_path))


def mountinfo(*paths: str) -> str:
    line = "{} 25 253:1 / {} rw,nosuid,nodev,noexec - ext4 /dev/vda1 rw\n"
    return "".join(line.format(number, path) for number, path in enumerate(paths, 30))


@pytest.mark.parametrize(
    ("busy", "done"),
    [
        (
            set(),
            [("unmount", "/run/snf-image/target/a b"), ("unmount", "/run/snf-image/target")],
        ),
        (
            {"/run/snf-image/target"},
            [
                ("unmount", "/run/snf-image/target/a b"),
                ("unmount", "/run/snf-image/target/a b"),
                ("mount", "none", "/run/snf-image/target", "none", "33"),
            ],
        ),
    ],
)
def test_what_a_dead_worker_left_mounted(
    mounts: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: set[str], done: object
) -> None:
    """R-HLP-11: unmounted, the last first; what is busy becomes read-only, and so is written out."""
    (tmp_path / "mountinfo").write_text(
        mountinfo("/", "/run", "/run/snf-image/target", r"/run/snf-image/target/a\040b")
    )
    for module in ("init", "kernel_mount"):
        monkeypatch.setattr(f"snf_image_helper.{module}.MOUNTINFO", str(tmp_path / "mountinfo"))
    mounts.busy = busy
    init.release_disks()
    assert mounts.done == done


def test_nothing_left_mounted_is_nothing_to_do(mounts: Mounts) -> None:
    init.release_disks()
    assert mounts.done == []


def test_whatever_tasks_mount_is_below_the_directory_that_is_released() -> None:
    """R-HLP-11."""
    from snf_image_helper import mounts, root_mount  # noqa: PLC0415 - beside what it is about

    assert {os.path.dirname(path) for path in (mounts.TARGET, root_mount.LOOK)} == {init.MOUNTS}
