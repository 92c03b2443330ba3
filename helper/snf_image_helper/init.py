"""The program of process 1 in the helper VM: from the kernel's hand-over to power-off.

Says hello, waits for the parameter medium, does its job, says how it ended, powers off: on success, on
failure and on a bug of ours. There is no systemd, no udev and no network.

The job is done by a child, the worker. Process 1 itself only collects dead processes, so that whatever kills
the worker (a bug in a library, too little memory) is a failure with a cause and not a kernel panic.
"""

from __future__ import annotations

import binascii
import contextlib
import ctypes
import fcntl
import os
import signal
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from snf_image_contract.codec import ContractError
from snf_image_contract.events import MAX_STDERR_LINES, SUCCESS, Awake, Failed, Hello, Succeeded
from snf_image_contract.job import (
    CONTRACT_VERSION,
    MAX_JOB_BYTES,
    PARAMETER_SERIAL,
    SLOTS_WORD,
    AssignHostname,
    HostKey,
    HostKeys,
    Job,
    dump_host_keys,
    dump_job,
    load_host_keys,
    load_job,
)
from snf_image_contract.secret import Secret
from snf_image_helper.disks import by_serial
from snf_image_helper.errors import TaskError
from snf_image_helper.from_host import FromHost, no_host_keys
from snf_image_helper.report import Reporter, clip, clip_all, fd_sender
from snf_image_helper.slots import Slots

RESULT_PORT: Final = "/dev/ttyS1"
EVENT_PORT: Final = "/dev/ttyS2"
SHELL_PORT: Final = "/dev/ttyS3"
MOUNTS: Final = "/run/snf-image"
"""Whatever of the instance's disks is mounted, is mounted below this directory."""
MOUNTINFO: Final = "/proc/self/mountinfo"
_MEDIUM: Final = "/run/medium"
_BUILD: Final = "/usr/share/snf-image/build"
_MS_RDONLY_NOSUID_NODEV_NOEXEC: Final = 0x1 | 0x2 | 0x4 | 0x8
_MS_REMOUNT_RDONLY: Final = 0x20 | 0x1
_RB_POWER_OFF: Final = 0x4321FEDC
_CLOCK_REALTIME: Final = time.CLOCK_REALTIME
RANDOM: Final = "/dev/random"
_RNDADDENTROPY: Final = 0x40085203
_RNDRESEEDCRNG: Final = 0x5207
_POLL_SECONDS: Final = 0.02
_IDLE_SECONDS: Final = 3600.0
_MOMENT: Final = 0.1
"""For the job of a host that has nothing to copy: within it, a restored helper does nothing else."""
_KEYS_SECONDS: Final = 900.0
"""For the host to make its keys; it gives up long before, and says so."""
_MAX_RESULT: Final = 4000
"""Of the result port the host reads 4 KiB."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Never returns to a caller that could go on: the end is always a power-off."""
    try:
        prepare_system()
        words = kernel_words()
        death = supervise(lambda: serve(words))
        if death is not None:
            with open_port(RESULT_PORT) as result:
                tell(result, f"ERROR: the helper's worker {death}")
    except BaseException as error:  # noqa: BLE001 - whatever happens, the console tells and the VM ends
        print_bug(error)
    try:
        release_disks()
    except BaseException as error:  # noqa: BLE001 - as above
        print_bug(error)
    power_off()


def supervise(work: Callable[[], None]) -> str | None:
    """Do ``work`` in a child and collect whatever dies meanwhile; how the child died, if it did."""
    worker = os.fork()
    if worker == 0:
        leave(work)
    while True:
        process, status = os.wait()
        if process == worker:
            break
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}; its memory may be too small"
    return f"ended with status {os.WEXITSTATUS(status)}" if status else None


def leave(work: Callable[[], None]) -> NoReturn:
    """Do ``work`` in this child and end it, whatever happens: the parent's code is not for it."""
    status = 70
    try:
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 - as in main
        print_bug(error)
    finally:
        os._exit(status)


def serve(words: list[str]) -> None:
    """One job: hello, wait, work, and the one word on the second port."""
    with open_port(EVENT_PORT) as events, open_port(RESULT_PORT) as result:
        report = Reporter(fd_sender(events))
        if "snf_image_preload" in words:
            from snf_image_helper.preload import preload  # noqa: PLC0415 - only where a state is to be saved

            preload()
            rehearse()
        slots = Slots() if SLOTS_WORD in words else None
        report.emit(Hello(contract_version=CONTRACT_VERSION, build=build_id()))
        failure = attempt(report, FromHost(events), slots)
        if failure is None:
            report.emit(Succeeded())
        else:
            report.emit(failure)
            if "snf_image_debug_helper" in words:
                debug_shell()
        os.sync()
        tell(result, SUCCESS if failure is None else f"ERROR: {failure.messages[0]}")
        termios.tcdrain(events)


def tell(port: int, text: str) -> None:
    """One line of ASCII, and not before it is out does the VM end."""
    line = " ".join(text.split()).encode("ascii", "backslashreplace")
    fd_sender(port)(line[:_MAX_RESULT] + b"\n")
    termios.tcdrain(port)


def attempt(report: Reporter, host: FromHost, slots: Slots | None) -> Failed | None:
    """Do the job; None if it is done, else the terminal event. ``slots``: where first disk and job come."""
    # Imported while the host is still copying, not while it waits for the job to be done.
    from snf_image_helper.runner import run_job  # noqa: PLC0415

    try:
        rehearse()
        if slots is None:
            medium = await_disk(PARAMETER_SERIAL, lambda: answer(host, report))
        else:
            await_slots(host, report)
            slots.take_disk()
            medium = slots.medium
        try:
            job = read_job(medium)
        except ContractError as error:
            return Failed(blame="helper", messages=(clip(f"the job cannot be read: {error}"),))
        set_clock(job.clock)
        take_entropy(job)
        follow = job.delete_ssh_keys.host_keys_follow
        run_job(job, report, (lambda: host.host_keys(_KEYS_SECONDS)) if follow else no_host_keys)
    except TaskError as error:
        return Failed(blame=error.blame, messages=clip_all(error.messages), task=report.task)
    except Exception as error:  # noqa: BLE001 - a bug of ours ends as an event too
        print_bug(error)
        return Failed(
            blame="helper",
            messages=(f"internal error of the helper: {type(error).__name__}",),
            task=report.task,
            stderr=tuple(map(clip, places(error)))[-MAX_STDERR_LINES:],
        )
    return None


def prepare_system() -> None:
    """What no init system did for us: memory file systems, and the links /dev lacks."""
    mount("tmpfs", "/run", "tmpfs", 0x2 | 0x4, "mode=755")
    mount("tmpfs", "/tmp", "tmpfs", 0x2 | 0x4, "mode=1777")  # noqa: S108 - our own, nobody else is here
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        with contextlib.suppress(FileExistsError):
            os.symlink(target, f"/dev/{name}")
    os.umask(0o022)


def kernel_words() -> list[str]:
    with open("/proc/cmdline", encoding="ascii") as file:
        return file.read().split()


def build_id() -> str:
    """The build the host finds in manifest.json."""
    with open(_BUILD, encoding="ascii") as file:
        return file.read().strip()


@contextlib.contextmanager
def open_port(path: str) -> Iterator[int]:
    """A serial port that passes bytes as they are: no echo, no line ends of its own."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        tty.setraw(fd)
        yield fd
    finally:
        os.close(fd)


def rehearse() -> None:
    """Read a job that asks for nothing: what decoding looks up at its first use is looked up by then."""
    load_job(dump_job(Job(instance="", clock=0, disks=(), assign_hostname=AssignHostname(name=""))))
    load_host_keys(dump_host_keys(HostKeys(keys=(HostKey(type="rsa", private=Secret(""), public=""),))))


def await_slots(host: FromHost, report: Reporter) -> None:
    """Wait, for as long as the host copies, until the disks are in their slots."""
    while not host.slots_filled and not answer(host, report, seconds=_IDLE_SECONDS):
        pass
    # Only who was restored is asked: an emulated processor translates anew what it ran before that. A host
    # that has nothing to copy has the job ready at once, and would wait for it.
    end = time.monotonic() + _MOMENT
    while not host.slots_filled and time.monotonic() < end:
        answer(host, report, seconds=_MOMENT)
    if not host.slots_filled:
        rehearse()
    while not host.slots_filled:
        answer(host, report, seconds=_IDLE_SECONDS)


def await_disk(serial: str, pause: Callable[[], object]) -> str:
    """Device node of the disk with that serial, as soon as the kernel has it; ``pause`` between two looks."""
    while (name := by_serial().get(serial)) is None:
        pause()
    return f"/dev/{name}"


def read_job(medium: str) -> Job:
    """The job on the parameter medium, a device node; :class:`ContractError`."""
    os.makedirs(_MEDIUM, exist_ok=True)
    mount(medium, _MEDIUM, "ext2", _MS_RDONLY_NOSUID_NODEV_NOEXEC, "")
    try:
        with open(os.path.join(_MEDIUM, "job.json"), "rb") as file:
            return load_job(file.read(MAX_JOB_BYTES + 1))
    finally:
        unmount(_MEDIUM)


def answer(host: FromHost, report: Reporter, seconds: float = _POLL_SECONDS) -> bool:
    """Wait a moment; if the host asks meanwhile whether anybody is there, tell it. Whether it asked."""
    if host.asks(seconds):
        report.emit(Awake())
        return True
    return False


def take_entropy(job: Job) -> None:
    """Mix the host's fresh random bytes into the kernel's and into what was seeded from those before.

    A VM that continues from a saved state has its random generators in common with every other one that did.
    The two requests are described in random(4).
    """
    if job.entropy is None:
        return
    fresh = binascii.a2b_base64(job.entropy.reveal(), strict_mode=True)
    with open(RANDOM, "wb", buffering=0) as device:
        fcntl.ioctl(device, _RNDADDENTROPY, struct.pack("ii", 8 * len(fresh), len(fresh)) + fresh)
        fcntl.ioctl(device, _RNDRESEEDCRNG)
    if (imported := sys.modules.get("random")) is not None:
        imported.seed()


def set_clock(moment: float) -> None:
    """The host's time, UTC (R-HLP-16)."""
    time.clock_settime(_CLOCK_REALTIME, moment)


def debug_shell() -> None:
    """A root shell on the fourth port, for an operator who asked for it; goes on when it is left."""
    child = os.fork()
    if child == 0:
        leave(become_shell)
    os.waitpid(child, 0)


def become_shell() -> None:
    os.setsid()
    fd = os.open(SHELL_PORT, os.O_RDWR)  # the first terminal a session opens controls it
    for number in (0, 1, 2):
        os.dup2(fd, number)
    os.execve("/bin/bash", ["bash", "--norc", "-i"], {**os.environ, "TERM": "vt100"})  # noqa: S606 - asked for


def places(error: BaseException) -> list[str]:
    """Where an error came from, outermost call first."""
    import traceback  # noqa: PLC0415 - costs a quarter of a second at the start, and is rarely needed

    return [
        f"{frame.filename}, line {frame.lineno}, in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__, limit=-50)
    ]


def print_bug(error: BaseException) -> None:
    """Type and place of an unforeseen error, for the console; its text may quote a secret."""
    print("\n".join([*places(error), type(error).__name__]), flush=True)


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """mount(2); OSError."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def unmount(target: str) -> None:
    if _libc.umount2(target.encode(), 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def release_disks() -> None:
    """Nothing of a disk stays mounted, whatever went wrong (R-HLP-11).

    Normally nothing is left to do. A worker that died leaves its mounts, and perhaps programs that use them;
    what cannot be unmounted even without those is at least made read-only, which writes it out.
    """
    with open(MOUNTINFO, "rb") as file:
        if f" {MOUNTS}/".encode() not in file.read():
            return
    if not unmount_disks():
        return
    if os.getpid() == 1:
        os.kill(-1, signal.SIGKILL)
    for path in unmount_disks():
        with contextlib.suppress(OSError):
            mount("none", path, "none", _MS_REMOUNT_RDONLY, "")


def unmount_disks() -> list[str]:
    """Unmount all that lies on a disk of the instance, the last first; what is busy."""
    from snf_image_helper.kernel_mount import mounted_below  # noqa: PLC0415 - only after a failure

    busy = []
    for point in mounted_below(MOUNTS):
        try:
            unmount(point.path)
        except OSError:
            busy.append(point.path)
    return busy


def power_off() -> None:
    os.sync()
    if "acpi=off" in kernel_words():
        from snf_image_helper.power_switch import switch_off  # noqa: PLC0415 - the kernel cannot

        # The kernel's own last line, which evidence of a helper that ended by itself ends with.
        print("helper: power down", flush=True)
        with contextlib.suppress(OSError):
            switch_off()
    _libc.reboot(ctypes.c_int(_RB_POWER_OFF))
    while True:  # process 1 must not end, or the kernel panics
        time.sleep(60)


if __name__ == "__main__":
    main()
