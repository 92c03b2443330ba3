"""A small, strict and bounded client of qemu's machine protocol (QMP) on a connected unix socket.

qemu may have been taken over by the guest: what it answers is untrusted. A line and the whole conversation
have a maximum length, answers must be what was asked for, and every wait has an end.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from snf_image_process import Deadline

Json = dict[str, Any]

MAX_LINE: Final = 256 * 1024
MAX_TOTAL: Final = 8 * 1024 * 1024
"""Bytes of a whole conversation; a deployment needs some kilobytes."""
MAX_FAULTS: Final = 16
COMMAND_SECONDS: Final = 30.0


class QmpError(Exception):
    """qemu refused a command, answered nonsense or nothing, or is gone."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskFault:
    """A disk of the node that failed while the VM used it. ``node``: the block node's name."""

    node: str
    operation: str
    no_space: bool
    reason: str


class Qmp:
    """One conversation. Events are taken note of whenever something is read; see :meth:`drain`."""

    def __init__(self, connection: socket.socket) -> None:
        """``connection``: our end, connected; it is closed by :meth:`close`."""
        self._socket = connection
        self._pending = bytearray()
        self._lines: deque[bytes] = deque()
        self._received = 0
        self._serial = 0
        self._at_end = False
        self.version = ""
        """Of the qemu that greeted us, as JSON."""
        self.shutdown_reason: str | None = None
        """Reason of the last SHUTDOWN event, such as ``guest-shutdown``."""
        self.disk_faults: list[DiskFault] = []

    def greet(self, deadline: Deadline) -> None:
        """Wait for qemu's greeting and leave negotiation mode."""
        greeting = self._next(deadline, "qemu's greeting")
        if not isinstance(said := greeting.get("QMP"), dict):
            raise QmpError("qemu's greeting is not one of QMP")
        self.version = _text(json.dumps(said.get("version"), sort_keys=True))
        self.execute("qmp_capabilities", deadline=deadline)

    def execute(
        self,
        command: str,
        arguments: Json | None = None,
        *,
        fds: Sequence[int] = (),
        deadline: Deadline | None = None,
    ) -> Any:
        """Run a command and return its result. ``fds`` travel with it (SCM_RIGHTS)."""
        deadline = deadline or Deadline(COMMAND_SECONDS)
        self._serial += 1
        message: Json = {"execute": command, "id": self._serial}
        if arguments is not None:
            message["arguments"] = arguments
        self._send(json.dumps(message).encode("ascii") + b"\n", fds, command, deadline)
        while True:
            answer = self._next(deadline, f"answer to {command}")
            if "event" in answer:
                self._note_event(answer)
            elif answer.get("id") != self._serial:
                raise QmpError(f"{command}: answer to another command")
            elif "error" in answer:
                raise QmpError(f"{command}: {_description(answer['error'])}")
            elif "return" in answer:
                return answer["return"]
            else:
                raise QmpError(f"{command}: neither a result nor an error")

    def drain(self, deadline: Deadline) -> None:
        """Take note of every event until qemu closes the connection; for after its end."""
        while (line := self._line(deadline, "the end of QMP")) is not None:
            answer = _parse(line)
            if "event" in answer:
                self._note_event(answer)

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes, fds: Sequence[int], command: str, deadline: Deadline) -> None:
        self._socket.settimeout(max(0.001, deadline.wait_time(COMMAND_SECONDS)))
        try:
            if fds:
                # One message, so that the descriptors arrive with their command.
                sent = socket.send_fds(self._socket, [data], list(fds))
                data = data[sent:]
            self._socket.sendall(data)
        except TimeoutError:
            raise QmpError(f"{command}: qemu does not read its commands") from None
        except OSError:
            raise QmpError(f"{command}: qemu is gone") from None

    def _next(self, deadline: Deadline, awaited: str) -> Json:
        line = self._line(deadline, awaited)
        if line is None:
            raise QmpError(f"{awaited}: qemu is gone")
        return _parse(line)

    def _line(self, deadline: Deadline, awaited: str) -> bytes | None:
        """The next line, or None at the end of the conversation."""
        while not self._lines:
            if self._at_end:
                return None
            self._receive(deadline, awaited)
        return self._lines.popleft()

    def _receive(self, deadline: Deadline, awaited: str) -> None:
        if deadline.passed():
            raise QmpError(f"{awaited}: nothing came in time")
        self._socket.settimeout(max(0.001, deadline.wait_time(3600.0)))
        try:
            chunk = self._socket.recv(65536)
        except TimeoutError:
            return
        except OSError:
            chunk = b""
        self._at_end = not chunk
        self._received += len(chunk)
        if self._received > MAX_TOTAL:
            raise QmpError("qemu sends too much")
        *lines, rest = (bytes(self._pending) + chunk).split(b"\n")
        self._pending = bytearray(rest)
        if len(rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise QmpError("a line of qemu's is too long")
        self._lines.extend(line for line in lines if line.strip())

    def _note_event(self, event: Json) -> None:
        data = event.get("data")
        data = data if isinstance(data, dict) else {}
        if event["event"] == "SHUTDOWN":
            self.shutdown_reason = _text(data.get("reason"))
        elif event["event"] == "BLOCK_IO_ERROR" and len(self.disk_faults) < MAX_FAULTS:
            fault = DiskFault(
                node=_text(data.get("node-name")),
                operation=_text(data.get("operation")),
                no_space=data.get("nospace") is True,
                reason=_text(data.get("reason")),
            )
            if fault not in self.disk_faults:
                self.disk_faults.append(fault)


def _parse(line: bytes) -> Json:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise QmpError("qemu sends something that is not JSON") from None
    if not isinstance(answer, dict):
        raise QmpError("qemu sends something that is not a JSON object")
    return answer


def _description(error: object) -> str:
    return _text(error.get("desc") if isinstance(error, dict) else None) or "refused"


def _text(value: object) -> str:
    """A short text that is safe to show."""
    text = value if isinstance(value, str) else ""
    return "".join(char if char.isprintable() else "?" for char in text[:512])
