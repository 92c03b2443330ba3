#!/usr/bin/env -S python3 -I -S
"""A program that takes qemu's place in tests: it speaks QMP and the serial ports, and plays a helper.

What it plays is the word ``play=NAME`` of the kernel's command line. It runs no guest and needs nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian 1:7.2"}


class GoneError(Exception):
    """The host has closed the port."""


class Machine:
    def __init__(self, argv: list[str]) -> None:
        options = " ".join(argv)
        numbers = dict(re.findall(r"socket,id=(\w+),fd=(\d+)", options))
        self.ports = {name: socket.socket(fileno=int(fd)) for name, fd in numbers.items()}
        self.words = argv[argv.index("-append") + 1].split()
        self.argv = argv
        self.negotiated = threading.Event()
        self.job_given = threading.Event()
        self.nodes: dict[str, Any] = {}
        self.last_set = 0
        self.sets: dict[str, int] = {}
        self.received: list[int] = []
        self.named: dict[str, int] = {}
        self.disks_awaited = self.plugged_disks = 0
        self.restored = "-incoming" in argv
        self.state_is_loaded = threading.Event()

    @property
    def play(self) -> str:
        return next((word[5:] for word in self.words if word.startswith("play=")), "good")

    def send(self, port: str, data: bytes) -> None:
        try:
            self.ports[port].sendall(data)
        except OSError:
            raise GoneError from None

    def console(self, data: bytes) -> None:
        self.send("serial1", data)

    def result(self, data: bytes) -> None:
        self.send("serial2", data)

    def raw_event(self, data: bytes) -> None:
        self.send("serial3", data)

    def qmp(self, message: dict[str, Any]) -> None:
        self.send("qmp", json.dumps(message).encode() + b"\r\n")

    def qmp_event(self, name: str, **data: object) -> None:
        self.qmp({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})

    def end(self, reason: str, status: int = 0) -> None:
        """As qemu ends: a last SHUTDOWN event, then the process is gone with everything it had open."""
        self.qmp_event("SHUTDOWN", guest=reason.startswith("guest"), reason=reason)
        os._exit(status)

    def serve(self) -> None:
        """Answer QMP until the host is gone."""
        self.qmp({"QMP": {"version": VERSION, "capabilities": ["oob"]}})
        pending = b""
        while True:
            try:
                chunk, fds, _, _ = socket.recv_fds(self.ports["qmp"], 65536, 4)
            except OSError:
                return
            if not chunk:
                return
            self.received += fds
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self.answer(json.loads(line))

    def answer(self, message: dict[str, Any]) -> None:
        command, arguments = message["execute"], message.get("arguments", {})
        if self.play == "qmp-refuses" and command == "blockdev-reopen":
            self.qmp({"error": {"class": "GenericError", "desc": "no slot\x1b[2J"}, "id": message["id"]})
            return
        if self.play == "qmp-garbage" and command == "blockdev-add":
            self.send("qmp", b"]]]\n")
            return
        if self.play == "qmp-wrong-id" and command == "add-fd":
            self.qmp({"return": {}, "id": 4711})
            return
        if self.play == "qmp-flood" and command == "add-fd":
            while True:
                self.send("qmp", json.dumps({"event": "X" * 60000}).encode() + b"\n")
        if self.play == "qmp-long-line" and command == "add-fd":
            while True:
                self.send("qmp", b"x" * 60000)
        self.qmp_event("RTC_CHANGE", offset=1)  # events come between commands and answers
        self.qmp({"return": self.result_of(command, arguments), "id": message["id"]})
        if command == "qmp_capabilities":
            self.negotiated.set()
        if command == "device_add":
            self.plugged(arguments, self.nodes[arguments["drive"]])
        if command == "blockdev-reopen":
            [node] = arguments["options"]
            self.plugged(self.slots[node["node-name"]], {**node, "file": self.nodes[node["file"]]})

    def result_of(self, command: str, arguments: dict[str, Any]) -> object:
        if command == "add-fd":
            self.last_set += 1
            self.sets[f"/dev/fdset/{self.last_set}"] = self.received.pop(0)
            return {"fdset-id": self.last_set, "fd": 99}
        if command == "blockdev-add":
            self.nodes[arguments["node-name"]] = arguments
        if command == "getfd":
            self.named[arguments["fdname"]] = self.received.pop(0)
        if command == "migrate":
            self.save(self.named.pop(arguments["uri"].removeprefix("fd:")))
        if command == "migrate-incoming":
            if self.play == "qmp-stalls":
                hang()
            state = self.named.pop(arguments["uri"].removeprefix("fd:"))
            threading.Thread(target=self.load, args=(state,), daemon=True).start()
        if command == "query-migrate":
            return (
                {"status": "failed", "error-desc": "no"}
                if self.play == "unsaved"
                else {"status": "completed"}
            )
        if command == "query-chardev":
            return [{"label": "debug", "filename": "pty:/dev/pts/7", "frontend-open": True}]
        return {}

    def save(self, stream: int) -> None:
        with contextlib.suppress(BrokenPipeError), open(stream, "wb", buffering=0) as file:
            file.write(b"STATE\n" * (1_000_000 if self.play == "saves-too-much" else 1000))

    def load(self, state: int) -> None:
        flags = fcntl.fcntl(state, fcntl.F_GETFL)
        with open(state, "rb") as file:
            data = file.read()
        if data != b"STATE\n" * 1000 or flags & os.O_ACCMODE != os.O_RDONLY:
            print("load of migration failed", file=sys.stderr, flush=True)
            os._exit(1)
        # The port has taken a byte by then, which the state's port replaces; the others still wait.
        events = self.ports["serial3"]
        if select.select([events], [], [], 0.3)[0]:
            events.recv(4096 if self.play == "loses-more" else 1)
        self.state_is_loaded.set()

    @functools.cached_property
    def slots(self) -> dict[str, dict[str, Any]]:
        """The devices that were on the command line with nothing behind them, by their node."""
        options = [(option, value) for option, value in itertools.pairwise(sys.argv)]
        nodes = [json.loads(value) for option, value in options if option == "-blockdev"]
        empty = {node["node-name"]: node for node in nodes if node["file"]["driver"] == "null-co"}
        devices = [json.loads(value) for option, value in options if option == "-device"]
        return {device["drive"]: device for device in devices if device.get("drive") in empty}

    def plugged(self, device: dict[str, Any], node: dict[str, Any]) -> None:
        fd = self.sets[node["file"]["filename"]]
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        mode = {os.O_RDONLY: "ro", os.O_RDWR: "rw"}.get(flags & os.O_ACCMODE, "?")
        shown = {
            "serial": device["serial"],
            "addr": device["addr"],
            "mode": mode,
            "driver": node["file"]["driver"],
            "read-only": node["read-only"],
            "o_direct": bool(flags & os.O_DIRECT),
            "direct": node["cache"]["direct"],
            "discard": node["discard"],
        }
        self.plugged_disks += device["serial"].startswith("snf-disk-")
        self.console(b"PLUGGED " + json.dumps(shown).encode() + b"\n")
        if device["serial"] == "snf-params":
            self.disks_awaited = len(
                json.loads(re.findall(rb'"disks": (\[.*?\])', os.pread(fd, 1 << 20, 0))[0])
            )
            [clock] = re.findall(rb'"clock": ([0-9.]+)', os.pread(fd, 1 << 20, 0))
            self.console(b"CLOCK " + clock + b"\n")
            with open("/proc/self/limits") as limits:
                self.console(b"".join(line.encode() for line in limits if "file size" in line))
            self.job_given.set()


class Helper:
    """What a guest would do, with the events' numbers kept right unless a play breaks them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.seq = 0

    def say(self, kind: str, **fields: object) -> None:
        line = json.dumps({"seq": self.seq, "kind": kind, **fields})
        self.machine.raw_event(line.encode() + b"\n")
        self.seq += 1

    def hello(self, version: int = 3) -> None:
        if not self.machine.restored:
            self.say("hello", contract_version=version, build="build-1")
            return
        self.machine.state_is_loaded.wait()
        self.seq = 1  # the hello was said before it was saved
        if self.machine.play != "deaf":
            self.machine.ports["serial3"].recv(1)
            self.say("awake")

    def job(self) -> None:
        self.hello()
        self.take_job()

    def take_job(self) -> None:
        self.machine.job_given.wait()
        said = b""
        while not said.lstrip(b"\n").startswith(b"slots filled\n"):
            said += self.machine.ports["serial3"].recv(1)

    def accept(self) -> None:
        self.hello()
        self.accept_job()

    def accept_job(self) -> None:
        self.take_job()
        self.say("job-accepted")
        while self.machine.plugged_disks < self.machine.disks_awaited:
            time.sleep(0.01)

    def task(self, name: str = "AssignHostname") -> None:
        self.say("task-start", task=name)
        self.say(
            "changed", task=name, changes=[{"path": "/etc/hostname", "change": "modified", "detail": ""}]
        )
        self.say("task-end", task=name, seconds=0.1, skipped=None)

    def succeed(self, *, power_off: bool = True) -> None:
        self.say("succeeded")
        self.machine.result(b"SUCCESS\n")
        if power_off:
            self.machine.end("guest-shutdown")

    def fail(self, blame: str, **fields: object) -> None:
        self.say(
            "failed", blame=blame, messages=["it went wrong", "for two reasons"], stderr=["line"], **fields
        )
        self.machine.result(b"ERROR: it went wrong\n")
        self.machine.end("guest-shutdown")


def hang() -> None:
    while True:
        time.sleep(3600)


def good(m: Machine, h: Helper) -> None:
    m.console(b"Linux version 6\r\n")
    h.accept()
    h.say("detected", os_family="linux", root_partition=1, distribution="debian", version="12")
    h.task()
    h.say("warning", message="careful", task=None)
    h.succeed()


def failing(blame: str) -> Callable[[Machine, Helper], None]:
    def play(m: Machine, h: Helper) -> None:
        h.accept()
        h.say("task-start", task="AddSwap")
        h.fail(blame, task="AddSwap")

    return play


def fails_and_hangs(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("failed", blame="image", messages=["bad image"], task=None, stderr=[])
    hang()


def fails_at_boot(m: Machine, h: Helper) -> None:
    h.hello()
    h.say("failed", blame="helper", messages=["no memory"], task=None, stderr=[])
    m.end("guest-shutdown")


def garbage(m: Machine, h: Helper) -> None:
    h.accept()
    m.raw_event(bytes(range(256)) + b"\n")
    hang()


def garbage_at_boot(m: Machine, h: Helper) -> None:
    m.raw_event(b"\xff\x00\x1b[31mhello\n")
    hang()


def half_line(m: Machine, h: Helper) -> None:
    h.accept()
    m.raw_event(b'{"seq": 2, "kind": "task-start", "ta')
    m.end("guest-shutdown")


def long_line(m: Machine, h: Helper) -> None:
    h.accept()
    while True:
        m.raw_event(b"x" * 1000)


def flood(m: Machine, h: Helper) -> None:
    """Well-formed warnings without end."""
    h.accept()
    while True:
        h.say("warning", message="x" * 4000, task=None)


def flood_of_changes(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("task-start", task="AddSwap")
    while True:
        h.say("changed", task="AddSwap", changes=[{"path": "x" * 4000, "change": "note", "detail": ""}] * 14)


def flood_of_tasks(m: Machine, h: Helper) -> None:
    h.accept()
    while True:
        h.task()


def flood_of_console(m: Machine, h: Helper) -> None:
    h.hello()
    for _ in range(600):
        m.console(b"\x1b[31mlong and useless line\x07 " * 400 + b"\n")
    h.accept_job()
    h.succeed()


def flood_of_result(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("succeeded")
    m.result(b"x" * 1000000)
    m.result(b"\nSUCCESS\n")
    m.end("guest-shutdown")


def many_warnings(m: Machine, h: Helper) -> None:
    h.accept()
    for number in range(150):
        h.say("warning", message=f"{number} " + "x" * 600, task=None)
    h.succeed()


def hangs_at_boot(m: Machine, h: Helper) -> None:
    m.console(b"Booting...\n")
    hang()


def hangs(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("task-start", task="AddSwap")
    hang()


def ignores_sigterm(m: Machine, h: Helper) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hangs(m, h)


def hangs_after_success(m: Machine, h: Helper) -> None:
    h.accept()
    h.succeed(power_off=False)
    hang()


def dies(m: Machine, h: Helper) -> None:
    h.accept()
    print("qemu-system-x86_64: something broke \x1b[31m", file=sys.stderr, flush=True)
    os._exit(3)


def killed(m: Machine, h: Helper) -> None:
    h.accept()
    os.kill(os.getpid(), signal.SIGKILL)


def dies_waiting(m: Machine, h: Helper) -> None:
    h.hello()
    os._exit(5)


def dies_at_boot(m: Machine, h: Helper) -> None:
    m.end("guest-reset")


def panics(m: Machine, h: Helper) -> None:
    h.accept()
    m.console(
        b"[    3.1] Kernel panic - not syncing: Attempted to kill init!\r\n"
        b"[    3.2] Rebooting in 1 seconds..\r\n"
    )
    m.end("guest-reset")


def signalled(m: Machine, h: Helper) -> None:
    h.accept()
    h.succeed(power_off=False)
    m.end("host-signal")


def dies_after_success(m: Machine, h: Helper) -> None:
    h.accept()
    h.succeed(power_off=False)
    m.end("guest-shutdown", status=1)


def early_success(m: Machine, h: Helper) -> None:
    m.result(b"SUCCESS\n")
    h.accept()
    h.say("task-start", task="AddSwap")
    m.end("guest-shutdown")


def no_success(m: Machine, h: Helper) -> None:
    h.accept()
    h.task()
    h.say("succeeded")
    m.end("guest-shutdown")


def lower_case_success(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("succeeded")
    m.result(b"success\n")
    m.end("guest-shutdown")


def second_line_success(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("succeeded")
    m.result(b"well\nSUCCESS\n")
    m.end("guest-shutdown")


def error_only(m: Machine, h: Helper) -> None:
    h.accept()
    m.result(b"ERROR: out of luck \x1b[31m\n")
    m.end("guest-shutdown")


def goes_on(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("succeeded")
    h.say("warning", message="one more thing", task=None)
    m.result(b"SUCCESS\n")
    m.end("guest-shutdown")


def succeeds_twice(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("succeeded")
    h.succeed()


def repeats_a_number(m: Machine, h: Helper) -> None:
    h.accept()
    h.seq -= 1
    h.say("warning", message="again", task=None)
    h.succeed()


def skips_a_number(m: Machine, h: Helper) -> None:
    h.accept()
    h.seq += 1
    h.succeed()


def hello_twice(m: Machine, h: Helper) -> None:
    h.accept()
    h.hello()
    h.succeed()


def accepts_too_early(m: Machine, h: Helper) -> None:
    h.hello()
    h.say("job-accepted")
    hang()


def never_accepts(m: Machine, h: Helper) -> None:
    h.job()
    h.task()
    h.succeed()


def ends_another_task(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("task-start", task="AddSwap")
    h.say("task-end", task="AssignHostname", seconds=0.1, skipped=None)
    h.succeed()


def succeeds_within_a_task(m: Machine, h: Helper) -> None:
    h.accept()
    h.say("task-start", task="AddSwap")
    h.succeed()


def other_version(m: Machine, h: Helper) -> None:
    h.hello(version=99)
    hang()


def escapes(m: Machine, h: Helper) -> None:
    m.console(b"\x1b]0;owned\x07\x1b[2Jclear\r\nsnf-image: all is well\x9b31m\xff\r\n")
    h.accept()
    h.say("warning", message="red \x1b[31m text\nHELPER: forged \u202e line \x85", task=None)
    h.succeed()


def disk_fault(m: Machine, h: Helper) -> None:
    h.accept()
    m.qmp_event(
        "BLOCK_IO_ERROR",
        **{
            "node-name": "disk-0",
            "operation": "read",
            "action": "report",
            "nospace": False,
            "reason": "Input/output error",
        },
    )
    h.fail("image", task="MountImage")


def full_disk(m: Machine, h: Helper) -> None:
    h.accept()
    for _ in range(40):
        m.qmp_event(
            "BLOCK_IO_ERROR",
            **{
                "node-name": "disk-0",
                "operation": "write",
                "action": "report",
                "nospace": True,
                "reason": "No space left on device",
            },
        )
    h.succeed()


def text(m: Machine, h: Helper) -> None:
    m.console(b"CMDLINE " + " ".join(m.argv).encode() + b"\n")
    m.raw_event(
        b"TASK_START:AddSwap\r\nWARNING:a little\nNONSENSE\nTASK_START:NoSuchTask\nTASK_END:AddSwap\n"
    )
    m.result(b"SUCCESS\r\n")
    m.end("guest-shutdown")


def text_flood(m: Machine, h: Helper) -> None:
    for number in range(1200):
        m.raw_event(b"WARNING:%d\n" % number + b"x" * 9000 * (number == 7) + b"\n")
    for _ in range(100):
        m.raw_event(b"TASK_START:AddSwap\nTASK_END:AddSwap\n")
    m.raw_event(b"\xff\xfe\x1b[31m\n" * 50)
    m.result(b"SUCCESS\n")
    m.end("guest-shutdown")


def text_error(m: Machine, h: Helper) -> None:
    m.raw_event(
        b"TASK_START:AddSwap\nERROR:no room\nERROR:none at all\nSTDERR:2:mkswap: bad\nmkswap: worse\n"
    )
    m.result(b"ERROR: AddSwap\n")
    m.end("guest-shutdown")


def text_error_then_success(m: Machine, h: Helper) -> None:
    m.raw_event(b"ERROR:no room\n")
    m.result(b"SUCCESS\n")
    m.end("guest-shutdown")


def text_silent(m: Machine, h: Helper) -> None:
    m.end("guest-shutdown")


def probe(m: Machine, h: Helper) -> None:
    m.result(b"PROBE\n")
    m.end("guest-shutdown")


PLAYS: dict[str, Callable[..., None]] = {
    name.replace("_", "-"): play for name, play in list(globals().items()) if callable(play)
}
PLAYS |= {f"fails-{blame}": failing(blame) for blame in ("request", "image", "customization", "helper")}
PLAYS |= dict.fromkeys(("deaf", "loses-more", "qmp-stalls", "unsaved", "saves-too-much"), good)
PLAYS |= dict.fromkeys(("qmp-refuses", "qmp-garbage", "qmp-wrong-id", "qmp-flood", "qmp-long-line"), good)


def main() -> None:
    machine = Machine(sys.argv)
    if machine.play == "no-start":
        print("qemu-system-x86_64: could not load kernel", file=sys.stderr)
        sys.exit(1)
    if machine.play == "mute":
        hang()
    signal.signal(signal.SIGTERM, lambda *_: machine.end("host-signal"))
    threading.Thread(target=machine.serve, daemon=True).start()
    machine.negotiated.wait()
    try:
        PLAYS[machine.play](machine, Helper(machine))
    except GoneError:
        os._exit(0)


if __name__ == "__main__":
    main()
