"""A browser without a screen, asked as a user asks it: by keys, by what is seen, by what is read aloud.

It is driven through its DevTools protocol on two pipes, so it needs neither a port nor a driver program.
Facts: chromedevtools.github.io/devtools-protocol; domains Target, Page, Runtime, Input, Emulation and
Accessibility.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import select
import time
from collections.abc import Iterator
from typing import Any, Final, Self

from snf_image_process import Running, start
from snf_image_vmtests.capabilities import CHROMIUM, find_program

_REPLY_SECONDS: Final = 60.0
_END_SECONDS: Final = 5.0
_FIRST_FD: Final = 10
"""Lowest number of our ends of the pipes: the browser's are 3 and 4."""
_CHUNK: Final = 1 << 16
_KEYS: Final = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}
"""Codes of keys, and what they type."""
_SHIFT: Final = 8


class BrowserError(AssertionError):
    """The browser refused a command, did not answer, or a script of the test failed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Accessible:
    """What assistive programs are told of an element. ``states``: such as ``expanded``, ``focused``."""

    role: str
    name: str
    states: dict[str, Any]
    children: tuple[Accessible, ...]

    def all(self) -> Iterator[Accessible]:
        """This element and everything in it, in reading order."""
        yield self
        for child in self.children:
            yield from child.all()

    def find(self, role: str, name: str | None = None) -> list[Accessible]:
        """Everything of a role, and of a name, in reading order."""
        return [one for one in self.all() if one.role == role and name in (None, one.name)]


class Browser:
    """A running browser with one page. A context manager; ``directory`` gets its profile and its log."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._log = os.path.join(directory, "browser.log")
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._events: list[str] = []
        self._pending = b""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._running = self._start()
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            self._ask("Page.enable")
            # A page that has no window is not asked to show where its focus is.
            self._ask("Emulation.setFocusEmulationEnabled", enabled=True)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._stack, contextlib.suppress(BrowserError):
            self._session = None
            self._ask("Browser.close")
            self._running.wait(_END_SECONDS)

    def open(self, url: str) -> None:
        """Load a page and wait until its script has run."""
        self._events.clear()
        self._ask("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._receive(time.monotonic() + _REPLY_SECONDS)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key, named as the DOM does."""
        code, text = _KEYS[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": _SHIFT if shift else 0}
        self._ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page's script, as JSON has it."""
        reply = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            raise BrowserError(
                f"{expression}: {details.get('exception', details).get('description', details)}"
            )
        return reply["result"].get("value")

    def prefer(self, scheme: str) -> None:
        """Be a user who prefers the ``light`` or the ``dark`` colour scheme."""
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def accessible(self) -> Accessible:
        """The page as assistive programs are told of it; what they are to pass over is left out."""
        nodes = {node["nodeId"]: node for node in self._ask("Accessibility.getFullAXTree")["nodes"]}
        (top,) = (node for node in nodes.values() if "parentId" not in node)
        (tree,) = _accessible(nodes, top)
        return tree

    def _start(self) -> Running:
        """Start the browser; the stack gets it, and our ends of the pipes, its own are closed here."""
        program = next(name for name in CHROMIUM if find_program(name))
        argv = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", f"--user-data-dir={self._directory}/profile", "--remote-debugging-pipe",
        ]  # fmt: skip
        with contextlib.ExitStack() as theirs:
            commands, self._commands = _pipe(theirs, self._stack)
            self._answers, answers = _pipe(self._stack, theirs)
            log = theirs.enter_context(open(self._log, "wb"))
            numbered = f'exec "$@" 3</proc/self/fd/{commands} 4>/proc/self/fd/{answers}'
            running = start(
                ["sh", "-c", numbered, "sh", *argv],
                stderr=log.fileno(),
                env={"HOME": self._directory},
                pass_fds=(commands, answers),
            )
        return self._stack.enter_context(running)

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its answer; events that come before it are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        try:
            os.write(self._commands, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise BrowserError(f"the browser is gone; its log: {self._log}") from None
        end = time.monotonic() + _REPLY_SECONDS
        while True:
            reply = self._receive(end)
            if reply.get("id") == number:
                break
        if "error" in reply:
            raise BrowserError(f"{method}: {reply['error']['message']}")
        result: dict[str, Any] = reply["result"]
        return result

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise BrowserError(f"the browser did not answer; its log: {self._log}")
            chunk = os.read(self._answers, _CHUNK)
            if not chunk:
                raise BrowserError(f"the browser is gone; its log: {self._log}")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._events.append(message["method"])
        return message


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """The reading and the writing end of a pipe, closed by these; of numbers that no shell gives a file."""
    ends = []
    for low, stack in zip(os.pipe(), (reader, writer), strict=True):
        ends.append(fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD))
        os.close(low)
        stack.callback(os.close, ends[-1])
    return ends[0], ends[1]


def _accessible(nodes: dict[str, Any], node: dict[str, Any]) -> list[Accessible]:
    children = [
        found
        for name in node.get("childIds", ())
        if name in nodes
        for found in _accessible(nodes, nodes[name])
    ]
    if node["ignored"]:
        return children
    return [
        Accessible(
            role=node["role"]["value"],
            name=str(node.get("name", {}).get("value", "")),
            states={each["name"]: each["value"].get("value") for each in node.get("properties", ())},
            children=tuple(children),
        )
    ]
