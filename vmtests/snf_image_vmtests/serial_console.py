"""The serial console of an instance that somebody else started."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Final, Self, TextIO

import pexpect
import pexpect.fdpexpect

CONNECT_SECONDS: Final = 30.0
LOGIN_SECONDS: Final = 240.0
COMMAND_SECONDS: Final = 60.0


class SerialConsole:
    """A context manager. What came before it was connected is lost, so connect at once."""

    def __init__(self, path: str, log: str) -> None:
        """``path``: the socket of the console; ``log``: a file for all that is seen."""
        self._path = path
        self._log_path = log
        self._socket = socket.socket(socket.AF_UNIX)
        self._log: TextIO | None = None
        self._console: Any = None

    def __enter__(self) -> Self:
        self._log = open(self._log_path, "w", encoding="utf-8")
        # Paths of sockets must be short: this one is beneath a descriptor of its directory.
        directory = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY)
        try:
            self._connect(f"/proc/self/fd/{directory}/{os.path.basename(self._path)}")
        finally:
            os.close(directory)
        self._console = pexpect.fdpexpect.fdspawn(
            self._socket.fileno(), encoding="utf-8", codec_errors="backslashreplace", logfile=self._log
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        if self._log is not None:
            self._log.close()

    def login(self, user: str, password: str, *, refused: bool = False) -> None:
        """Log in and have a plain shell; or be refused, if that is how it should be."""
        self._expect(r"login: $", LOGIN_SECONDS)
        self._console.sendline(user)
        self._expect(r"[Pp]assword: ?$", LOGIN_SECONDS)
        self._console.sendline(password)
        if refused:
            self._expect("[Ll]ogin incorrect", LOGIN_SECONDS)
            return
        self._expect(r"[#$] $", LOGIN_SECONDS)
        self._console.sendline("exec /bin/sh")
        self._expect(r"[#$] $", LOGIN_SECONDS)
        self._console.sendline("PS1= PS2=; export TERM=dumb LC_ALL=C; stty -echo cols 999; dmesg -n 1")
        self.run("true")

    def run(self, command: str) -> str:
        """What a command prints, which must succeed."""
        # The quotes keep the marks out of an echo of this line.
        self._console.sendline(f'echo ""beg""in; {{ {command}; }} </dev/null 2>&1; echo ""en""d $?.')
        self._expect("begin\r?\n", COMMAND_SECONDS)
        before = self._expect(r"end (\d+)\.", COMMAND_SECONDS)
        assert self._console.match[1] == "0", f"{command}: status {self._console.match[1]}\n{before}"
        return before.replace("\r\n", "\n").strip("\n")

    def _connect(self, path: str) -> None:
        end = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                self._socket.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < end, f"there is no console at {self._path}"
                time.sleep(0.05)
            else:
                return

    def _expect(self, pattern: str, seconds: float) -> str:
        found = self._console.expect([pattern, "Kernel panic", pexpect.EOF, pexpect.TIMEOUT], timeout=seconds)
        before = str(self._console.before)
        assert found == 0, (
            f"waited {seconds:g} s for {pattern!r}; the console is in {self._log_path}\n{before[-1500:]}"
        )
        return before
