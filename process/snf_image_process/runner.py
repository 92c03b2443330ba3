"""Run external programs: argv lists only, an environment that is built, whole session killed at the end.

Every program of the project starts here; the linter bans ``subprocess`` elsewhere. Arguments appear in
error texts, so that a secret must never be an argument: hand it over on standard input or a descriptor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final, Self

OUTPUT_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of each of stdout and stderr that are kept; the rest is read and dropped."""
_TAIL_LINES: Final = 10
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment programs get: a PATH, a locale, and what is named; nothing is inherited."""
    return {"PATH": _PATH, "LC_ALL": "C.UTF-8", **(extra or {})}


class ProcessError(Exception):
    """A program could not be started, failed, or took too long."""

    def __init__(
        self, argv: Sequence[str], reason: str, *, status: int | None = None, stderr: bytes = b""
    ) -> None:
        self.argv = tuple(argv)
        self.reason = reason
        self.status = status
        self.stderr_tail = tuple(
            stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-_TAIL_LINES:]
        )
        tail = "".join(f"\n  {line}" for line in self.stderr_tail)
        super().__init__(f"{os.path.basename(self.argv[0])}: {reason}{tail}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended with an accepted status; ``seconds`` on the wall clock."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text; undecodable bytes are escaped."""
        return self.stdout.decode("utf-8", "backslashreplace")


class Running:
    """A program in a session of its own. A context manager: leaving it kills the whole session."""

    def __init__(self, argv: Sequence[str], popen: subprocess.Popen[bytes]) -> None:
        self.argv = tuple(argv)
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def stdin(self) -> IO[bytes] | None:
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        return self._popen.stderr

    def poll(self) -> int | None:
        """Exit status, negative for a signal, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float | None) -> int | None:
        """Exit status, or None if the program still runs after ``timeout`` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole session; nothing happens if it is gone."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def stop(self, grace: float = 0.0) -> int:
        """End the session: SIGTERM, ``grace`` seconds, SIGKILL. Returns the exit status."""
        if self.poll() is None and grace > 0:
            self.signal(signal.SIGTERM)
            self.wait(grace)
        # Also after the leader's end: what it left behind is in its process group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        return self._popen.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def start(
    argv: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: str = "/",
) -> Running:
    """Start a program and return at once. A stream that is None is ``/dev/null``; ``PIPE`` is -1.

    ``env`` adds to :func:`clean_environment`. Raises :class:`ProcessError` if it cannot be started.
    """
    null = subprocess.DEVNULL
    try:
        popen = subprocess.Popen(
            list(argv),
            stdin=null if stdin is None else stdin,
            stdout=null if stdout is None else stdout,
            stderr=null if stderr is None else stderr,
            env=clean_environment(env),
            pass_fds=tuple(pass_fds),
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ProcessError(argv, "not found on this machine") from None
    except OSError as error:
        raise ProcessError(argv, f"cannot be started: {error.strerror}") from None
    return Running(argv, popen)


PIPE: Final = subprocess.PIPE


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes | None = None,
    accept: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: str = "/",
    output_limit: int = OUTPUT_LIMIT,
    on_start: Callable[[Running], None] | None = None,
) -> Completed:
    """Run a program to its end and return its output.

    ``timeout`` in seconds; at its end the whole session is killed. ``stdin`` is given on a pipe (None:
    ``/dev/null``). A status that is not in ``accept`` (negative: a signal) raises :class:`ProcessError`.
    ``on_start`` is given the program once it runs, so that another thread can stop it.
    """
    begun = time.monotonic()
    running = start(
        argv,
        stdin=None if stdin is None else PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=env,
        pass_fds=pass_fds,
        cwd=cwd,
    )
    with running:
        if on_start is not None:
            on_start(running)
        stdout, stderr, finished = _communicate(running, stdin, begun + timeout, output_limit)
        status = running.wait(max(0.0, begun + timeout - time.monotonic())) if finished else None
        if status is None:
            raise ProcessError(argv, f"not finished within {timeout:g} seconds, killed", stderr=stderr)
    if status not in accept:
        reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        raise ProcessError(argv, reason, status=status, stderr=stderr)
    return Completed(
        argv=tuple(argv), status=status, stdout=stdout, stderr=stderr, seconds=time.monotonic() - begun
    )


def _communicate(running: Running, stdin: bytes | None, end: float, limit: int) -> tuple[bytes, bytes, bool]:
    """Feed and drain the three pipes until all are closed or the time ``end``; last value: all closed."""
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    pending = memoryview(stdin or b"")
    with selectors.DefaultSelector() as selector:
        for name, stream in (
            ("stdout", running.stdout),
            ("stderr", running.stderr),
            ("stdin", running.stdin),
        ):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                event = selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ
                selector.register(stream, event, name)
        while selector.get_map():
            left = end - time.monotonic()
            if left <= 0:
                break
            for key, _ in selector.select(left):
                if key.data == "stdin":
                    pending = _feed(key.fd, pending)
                    done = not pending
                else:
                    chunk = os.read(key.fd, 65536)
                    done = not chunk
                    room = limit - len(kept[key.data])
                    kept[key.data] += chunk[: max(0, room)]
                if done:
                    selector.unregister(key.fileobj)
                    getattr(running, key.data).close()
        finished = not selector.get_map()
    return bytes(kept["stdout"]), bytes(kept["stderr"]), finished


def _feed(fd: int, pending: memoryview) -> memoryview:
    try:
        return pending[os.write(fd, pending[:65536]) :]
    except BrokenPipeError:
        return memoryview(b"")
