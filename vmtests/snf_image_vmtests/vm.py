"""A virtual machine with verbs: wait for words on its console, log in, run commands.

Every wait also watches for what means that the awaited will not come, and says what was on the console.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from typing import Any, Final, Self

import pexpect
import pexpect.fdpexpect

from snf_image_process import Running, start
from snf_image_vmtests.evidence import Evidence, tail
from snf_image_vmtests.qemu_command import Channels, Hardware, command_line
from snf_image_vmtests.qmp import Qmp, QmpError

FATAL: Final = ("Kernel panic", "emergency mode", "No bootable device")
"""Words on a console that end every wait at once."""
START_SECONDS: Final = 20.0
LOGIN_SECONDS: Final = 300.0
COMMAND_SECONDS: Final = 60.0
_MAX_LINE: Final = 4000
"""What a terminal takes as one line is bounded by the kernel."""


class VmError(AssertionError):
    """A VM did not do what was asked; the text has the end of its console."""


class LoginRefusedError(VmError):
    """The name or the password was wrong."""


class CommandError(VmError):
    """A command in the VM ended with a status that was not expected."""


class Vm:
    """A QEMU process, its console and its monitor. A context manager: leaving it ends the VM."""

    def __init__(self, name: str, hardware: Hardware, evidence: Evidence) -> None:
        self.name = name
        self.evidence = evidence
        self._hardware = hardware
        self.sockets = ""
        self._running: Running | None = None
        self._console: Any = None
        self._socket: socket.socket | None = None
        self._qmp: Qmp | None = None

    def __enter__(self) -> Self:
        self.sockets = tempfile.mkdtemp(prefix="vm")
        channels = Channels(
            directory=self.sockets, console_log=self.evidence.path(f"{self.name}-console.log")
        )
        argv = command_line(self._hardware, channels)
        self.evidence.write(f"{self.name}-argv.json", _one_per_line(argv))
        try:
            with open(self._stderr_path, "wb") as stderr:
                self._running = start(argv, stdout=stderr.fileno(), stderr=stderr.fileno())
            self._connect(channels)
        except BaseException:
            self.stop()
            raise
        self.evidence.on_failure(self.screenshot)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    @property
    def monitor(self) -> Qmp:
        """QEMU's monitor, while the VM runs."""
        if self._qmp is None:
            raise VmError(f"{self.name}: is not started")
        return self._qmp

    # Verbs.

    def wait_for(self, pattern: str, *, seconds: float) -> str:
        """Wait until the regular expression is seen on the console; returns what came before it."""
        with self.evidence.step(f"{self.name}: wait for {pattern!r}"):
            return self._expect([pattern], seconds, f"{pattern!r}")[1]

    def login(self, user: str, password: str, *, seconds: float = LOGIN_SECONDS) -> None:
        """Log in at the console's prompt and make the shell ready for commands.

        Raises :class:`LoginRefusedError` if the system says that name or password are wrong.
        """
        with self.evidence.step(f"{self.name}: log in as {user}"):
            self._expect([r"login: $"], seconds, "the login prompt")
            self._send(user)
            self._expect([r"[Pp]assword: ?$"], seconds, "the password prompt")
            self._send(password)
            index, before = self._expect([r"[#$] $", r"[Ll]ogin incorrect"], seconds, "a shell")
            if index == 1:
                raise LoginRefusedError(f"{self.name}: login of {user} refused{_quoted(before)}")
            # Neither an editor of lines nor an echo between us and the commands.
            self._send("exec /bin/sh")
            self._expect([r"[#$] $"], seconds, "a plain shell")
            self.take_shell()

    def take_shell(self) -> None:
        """Make the shell at the console one for commands: no echo, no prompt, a quiet kernel."""
        self._send("PS1= PS2=; export TERM=dumb LC_ALL=C PATH=$PATH:/usr/sbin:/sbin; stty -echo cols 999")
        self._send("dmesg -n 1 2>/dev/null")
        self._run("true", START_SECONDS)

    def succeed(self, command: str, *, seconds: float = COMMAND_SECONDS) -> str:
        """Run a command in the shell that :meth:`login` left; returns its output, both streams."""
        with self.evidence.step(f"{self.name}: {command}"):
            status, output = self._run(command, seconds)
            if status != 0:
                raise CommandError(
                    f"{self.name}: {command}: status {status}, expected success{_quoted(output)}"
                )
            return output

    def fails(self, command: str, *, seconds: float = COMMAND_SECONDS) -> str:
        """Run a command that must not succeed; returns its output."""
        with self.evidence.step(f"{self.name}: {command} (must fail)"):
            status, output = self._run(command, seconds)
            if status == 0:
                raise CommandError(f"{self.name}: {command}: succeeded, expected failure{_quoted(output)}")
            return output

    def status_of(self, command: str, *, seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        """Run a command of which any status will do; returns status and output."""
        with self.evidence.step(f"{self.name}: {command}"):
            return self._run(command, seconds)

    def send(self, line: str) -> None:
        """Type a line and do not wait for anything."""
        with self.evidence.step(f"{self.name}: type {line!r}"):
            self._send(line)

    def wait_for_power_off(self, *, seconds: float) -> None:
        """Wait until the guest has switched itself off."""
        with self.evidence.step(f"{self.name}: wait for power-off"):
            # The console is read meanwhile: a guest whose console nobody reads stands still.
            end = [pexpect.EOF, pexpect.TIMEOUT]
            index = self._console.expect([*map(re.escape, FATAL), *end], timeout=seconds)
            if index < len(FATAL):
                raise VmError(f"{self.name}: the console said {FATAL[index]!r}{self._console_tail()}")
            status = self._process.wait(START_SECONDS) if index == len(FATAL) else None
            if status is None:
                raise VmError(f"{self.name}: still runs after {seconds:g} seconds{self._console_tail()}")
            if status != 0:
                raise VmError(f"{self.name}: {self._death(status)}")

    def screenshot(self) -> None:
        """Put what is on the screen into the evidence, if there is a screen."""
        if self._hardware.screen and self._process.poll() is None:
            path = self.evidence.path(f"{self.name}-screen.png")
            self.monitor.execute("screendump", filename=path, format="png")

    def stop(self) -> None:
        """End QEMU, whatever it is doing."""
        if self._running is not None:
            self._running.__exit__(None, None, None)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self.sockets:
            shutil.rmtree(self.sockets, ignore_errors=True)

    # How.

    @property
    def _process(self) -> Running:
        if self._running is None:
            raise VmError(f"{self.name}: is not started")
        return self._running

    @property
    def _stderr_path(self) -> str:
        return self.evidence.path(f"{self.name}-qemu.stderr")

    def _connect(self, channels: Channels) -> None:
        end = time.monotonic() + START_SECONDS
        while not (os.path.exists(channels.qmp) and os.path.exists(channels.console)):
            status = self._process.wait(0.02)
            if status is not None:
                raise VmError(f"{self.name}: {self._death(status)}")
            if time.monotonic() > end:
                raise VmError(f"{self.name}: QEMU has no sockets after {START_SECONDS:g} seconds")
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(channels.console)
            self._console = pexpect.fdpexpect.fdspawn(
                self._socket.fileno(), encoding="utf-8", codec_errors="backslashreplace"
            )
            self._qmp = Qmp(channels.qmp)
            self._qmp.execute("cont")
        except (QmpError, OSError):
            status = self._process.wait(START_SECONDS)
            raise VmError(f"{self.name}: {self._death(status)}") from None

    def _expect(self, patterns: list[str], seconds: float, awaited: str) -> tuple[int, str]:
        fatal = [re.escape(words) for words in FATAL]
        index = self._console.expect([*patterns, *fatal, pexpect.EOF, pexpect.TIMEOUT], timeout=seconds)
        before = self._console.before if isinstance(self._console.before, str) else ""
        if index < len(patterns):
            return index, before
        at = index - len(patterns)
        if at < len(FATAL):
            what = f"the console said {FATAL[at]!r}"
        elif at == len(FATAL):
            what = self._death(self._process.wait(START_SECONDS))
        else:
            what = f"not within {seconds:g} seconds"
        raise VmError(f"{self.name}: waited for {awaited}: {what}{self._console_tail()}")

    def _run(self, command: str, seconds: float) -> tuple[int, str]:
        token = secrets.token_hex(4)
        # The quotes keep the token out of an echo of this line. A subshell, so that `exit` leaves only it.
        line = f"( {command}\n) </dev/null 2>&1; echo \"\"{token[:4]}''{token[4:]} $?."
        if len(line) > _MAX_LINE:
            raise VmError(f"{self.name}: command of {len(line)} characters is too long for a terminal")
        self._send(line)
        _, output = self._expect([rf"{token} (\d+)\."], seconds, f"the end of {command!r}")
        status = int(self._console.match.group(1))
        return status, output.replace("\r\n", "\n").strip("\r\n")

    def _send(self, line: str) -> None:
        self._console.sendline(line)

    def _death(self, status: int | None) -> str:
        how = "did not end" if status is None else f"ended with status {status}"
        text = tail(self._stderr_path).strip()
        return f"QEMU {how}" + (f", its standard error: {text}" if text else ", its standard error is empty")

    def _console_tail(self) -> str:
        path = self.evidence.path(f"{self.name}-console.log")
        return _quoted(tail(path, 1500)) if os.path.exists(path) else ""


def _quoted(text: str) -> str:
    lines = text.strip().splitlines()[-20:]
    return "".join(f"\n  | {line}" for line in lines)


def _one_per_line(argv: list[str]) -> str:
    return "[\n" + ",\n".join(f"  {word!r}" for word in argv) + "\n]\n"
