"""A client of QEMU's machine protocol: one JSON object a line over a unix socket."""

from __future__ import annotations

import json
import socket
from typing import Any, Final

from snf_image_process import Deadline

_REPLY_SECONDS: Final = 60.0


class QmpError(Exception):
    """QEMU refused a command, or is gone."""


class Qmp:
    """A connection to a QEMU that has just been started or runs."""

    def __init__(self, path: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_REPLY_SECONDS)
        self._lines = self._socket.makefile("rb")
        try:
            self._socket.connect(path)
            self._read()  # the greeting
            self.execute("qmp_capabilities")
        except OSError as error:
            self.close()
            raise QmpError(f"QEMU is gone ({error.strerror})") from None
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return what it returned; underscores in names become dashes."""
        plain = {name.replace("_", "-"): value for name, value in arguments.items()}
        message = {"execute": command, "arguments": plain}
        try:
            self._socket.settimeout(_REPLY_SECONDS)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{command}: QEMU is gone ({error.strerror})") from None
        while True:
            reply = self._read()
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise QmpError(f"{command}: {reply['error'].get('desc', reply['error'])}")
            elif "return" in reply:
                return reply["return"]

    def wait_event(self, name: str, seconds: float, **data: object) -> dict[str, Any]:
        """The next event of this name with these data, or one that came already; it is consumed."""
        deadline = Deadline(seconds)
        while True:
            for event in self.events:
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    self.events.remove(event)
                    return event
            self._socket.settimeout(max(0.01, deadline.remaining()))
            reply = self._read()
            if "event" in reply:
                self.events.append(reply)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise QmpError("QEMU did not answer in time") from None
        except OSError as error:
            raise QmpError(f"QEMU is gone ({error.strerror})") from None
        if not line:
            raise QmpError("QEMU is gone")
        reply: dict[str, Any] = json.loads(line)
        return reply
