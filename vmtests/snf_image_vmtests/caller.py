"""Somebody who runs the installed command in a directory of their own, and looks at what it leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import re
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

from snf_image_process import PIPE, Running, start
from snf_image_vmtests import places

ORDINARY_UID: Final = 65534
COMMAND_SECONDS: Final = 240.0
_GONE_SECONDS: Final = 5.0
_POLL: Final = 0.05
_SUBREAPER: Final = 36
_MAX_ERROR_LINES: Final = 20
_LOCKS: Final = "/run/snf-image"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command answered. ``status`` is negative if a signal killed it."""

    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The first line that tells of an error, without the program's name; empty if there is none."""
        for line in self.stderr.splitlines():
            if line.startswith("snf-image: ") and not line.startswith("snf-image: warning: "):
                return line.removeprefix("snf-image: ")
        return ""

    @property
    def kept(self) -> tuple[str, ...]:
        """Directories that the command says it kept."""
        return tuple(re.findall(r"^  kept for a look: (/.*)$", self.stderr, re.MULTILINE))

    @property
    def document(self) -> dict[str, Any]:
        """The result as JSON."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value

    def demand(self, status: int, words: str = "") -> Self:
        """Demand a status and, of a failure, one clear line with ``words`` (any case) and no traceback."""
        shown = f"status {self.status}\n{self.stdout}\n{self.stderr}"
        assert self.status == status, shown
        assert "Traceback" not in shown, shown
        if status:
            assert words.lower() in self.error.lower(), shown
            assert len(self.error) < 400, shown
        lines = self.stderr.splitlines()
        assert all(line.isprintable() for line in lines), shown
        return self


class Caller:
    """Runs commands as root, or as an ordinary user; ``directory`` is theirs.

    A context manager. After each command that was waited for, and in the end, nothing may be left of it but
    what it said it kept: no process, temporary file, loop device or lock.
    """

    def __init__(self, directory: str, *, uid: int | None = None) -> None:
        self.directory = directory
        self.uid = uid
        self._temporary = self.path("tmp")
        self._kept: set[str] = set()
        self._running: set[int] = set()
        self._before: frozenset[int] = frozenset()
        self._locks: frozenset[str] = frozenset()
        self._ignored: list[signal.Signals] = []
        for path in (directory, self._temporary, self.path("home")):
            os.makedirs(path, mode=0o700, exist_ok=True)
            self.give(path)

    def __enter__(self) -> Self:
        # Whatever a command leaves running becomes our child, however it was started.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        self._before = _children()
        self._locks = _locks()
        # Started in the background of a shell, or by nohup, we would hand on that these are ignored.
        self._ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
        for number in self._ignored:
            signal.signal(number, signal.SIG_DFL)
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        try:
            left = self._left()
        finally:
            for pid in _children() - self._before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ctypes.CDLL(None).prctl(_SUBREAPER, 0, 0, 0, 0)
            for number in self._ignored:
                signal.signal(number, signal.SIG_IGN)
        assert kind is not None or not left, left

    def path(self, name: str) -> str:
        """A path in the caller's directory."""
        return os.path.join(self.directory, name)

    def give(self, path: str) -> None:
        """Make a file the caller's own."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    def file(self, name: str, content: str | bytes) -> str:
        """A private file with that content, new or replaced; its path."""
        path = self.path(name)
        data = content.encode() if isinstance(content, str) else content
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        self.give(path)
        return path

    def disk(self, name: str, size: int) -> str:
        """A disk of ``size`` mebibytes that was used before: it has a boot signature."""
        path = self.file(name, b"\xfa" * 510 + b"\x55\xaa")
        os.truncate(path, size * 1024 * 1024)
        return path

    def run(
        self, *words: str, seconds: float = COMMAND_SECONDS, env: Mapping[str, str] | None = None
    ) -> Answer:
        """Run ``snf-image`` with these words to its end, and demand that it left nothing."""
        with self.start(*words, env=env) as command:
            answer = command.finish(seconds)
        left = self._left()
        assert not left, f"{left}\n{answer.stderr}"
        return answer

    def deploy(self, image: str, disk: str, *words: str) -> Answer:
        """``snf-image deploy`` with the helper under test, quietly."""
        return self.run(*self.deploy_words(image, disk, *words))

    def deploy_words(self, image: str, disk: str, *words: str) -> tuple[str, ...]:
        """The words of :meth:`deploy`; those given last replace others."""
        return ("deploy", image, disk, *helper_words(words), *words)

    @contextlib.contextmanager
    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Command]:
        """Start ``snf-image`` with these words; killed with all its session when the context ends."""
        argv = [places.command("snf-image"), *words]
        if self.uid is not None:
            change = ["--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups"]
            argv = ["setpriv", *change, "--", *argv]
        surroundings = {"HOME": self.path("home"), "TMPDIR": self._temporary} | dict(env or {})
        with start(argv, stdout=PIPE, stderr=PIPE, env=surroundings, cwd=self.directory) as running:
            self._running.add(running.pid)
            try:
                yield Command(self, running)
            finally:
                running.stop()
                self._running.discard(running.pid)

    def is_alive(self, pid: int) -> bool:
        """Whether a process that a command started still runs; what has ended is reaped."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return os.path.exists(f"/proc/{pid}")

    def tidy_up_after_kill(self, uid: int) -> None:
        """Remove what a command that was killed could not: temporary files, the lock of its helper's user."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(_LOCKS, f"uid-{uid}.lock"))
        self._kept.update(os.path.join(self._temporary, name) for name in os.listdir(self._temporary))

    def note_kept(self, answer: Answer) -> None:
        """Remember what a command said it kept, which may be there afterwards."""
        self._kept.update(answer.kept)

    def _left(self) -> str:
        """What is left of commands that ended; empty if nothing is."""
        end = time.monotonic() + _GONE_SECONDS
        while True:
            left = self._processes_left() or self._files_left() or _loop_devices_of(self.directory)
            stale = [name for name in _locks() - self._locks if _is_stale(name)]
            left = left or (f"locks are left: {stale}" if stale else "")
            if not left or time.monotonic() > end:
                return left
            time.sleep(_POLL)

    def _processes_left(self) -> str:
        orphans = _children() - self._before - self._running
        alive = [pid for pid in orphans if self.is_alive(pid)]
        return f"processes are left: {[command_line(pid) for pid in alive]}" if alive else ""

    def _files_left(self) -> str:
        found = {os.path.join(self._temporary, name) for name in os.listdir(self._temporary)}
        unexpected = sorted(found - self._kept)
        return f"temporary files are left: {unexpected}" if unexpected and not self._running else ""


class Command:
    """A command that runs. Its standard error is read as it comes."""

    def __init__(self, caller: Caller, running: Running) -> None:
        self._caller = caller
        self._running = running
        self._output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._selector = selectors.DefaultSelector()
        for name, stream in (("stdout", running.stdout), ("stderr", running.stderr)):
            assert stream is not None
            self._selector.register(stream, selectors.EVENT_READ, name)

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def stderr(self) -> str:
        return self._output["stderr"].decode("utf-8", "backslashreplace")

    def until(self, pattern: str, seconds: float = COMMAND_SECONDS) -> str:
        """Wait until standard error matches; the text that matched. Fails if the command ends before."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.stderr)) is None:
            alive = self._read(end)
            assert alive or re.search(pattern, self.stderr), f"never said {pattern!r}:\n{self.stderr}"
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """As a terminal does it: to the whole process group."""
        self._running.signal(number)

    def read_some(self, seconds: float = COMMAND_SECONDS) -> bool:
        """Read what has come; False when the command has closed its output."""
        return self._read(time.monotonic() + seconds)

    def finish(self, seconds: float = COMMAND_SECONDS) -> Answer:
        """Wait for the end and return the answer."""
        end = time.monotonic() + seconds
        while self._read(end):
            pass
        status = self._running.wait(max(0.0, end - time.monotonic()))
        assert status is not None, f"still running after {seconds} s:\n{self.stderr}"
        answer = Answer(
            status=status,
            stdout=self._output["stdout"].decode("utf-8", "backslashreplace"),
            stderr=self.stderr,
        )
        self._caller.note_kept(answer)
        return answer

    def qemu(self) -> int:
        """The process id of the helper VM."""
        found = [pid for pid in descendants(self.pid) if "qemu-system" in "".join(command_line(pid)[:1])]
        assert found, "no helper VM runs"
        return found[0]

    def _read(self, end: float) -> bool:
        """Read what there is; False when both streams are at their end."""
        left = end - time.monotonic()
        assert left > 0, f"took too long:\n{self.stderr}"
        for key, _ in self._selector.select(min(left, 0.2)):
            chunk = os.read(key.fd, 65536)
            if not chunk:
                self._selector.unregister(key.fileobj)
            self._output[key.data] += chunk
        return bool(self._selector.get_map())


def helper_words(given: Sequence[str] = ()) -> tuple[str, ...]:
    """Options that name the helper under test, and keep quiet, where ``given`` does not have them."""
    defaults = {"--helper-dir": places.helper_directory(), "--accel": "tcg", "--progress": "none"}
    return tuple(word for name, value in defaults.items() if name not in given for word in (name, value))


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty if it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().decode("utf-8", "backslashreplace").split("\0")
    return []


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents = _parents()
    found, new = [], {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found += sorted(new)
    return found


def _children() -> frozenset[int]:
    own = os.getpid()
    return frozenset(pid for pid, parent in _parents().items() if parent == own)


def _parents() -> dict[int, int]:
    """Each process's parent."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name in parentheses can hold anything.
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return parents


def _loop_devices_of(directory: str) -> str:
    for name in os.listdir("/sys/block"):
        with contextlib.suppress(OSError), open(f"/sys/block/{name}/loop/backing_file") as file:
            backing = file.read().strip()
            if backing.startswith(directory + "/") and not backing.endswith("-storage"):
                return f"loop device {name} is left on {backing}"
    return ""


def _locks() -> frozenset[str]:
    """Lock files of helper users; those of others who deploy at the same time are among them, and held."""
    names = os.listdir(_LOCKS) if os.path.isdir(_LOCKS) else []
    return frozenset(name for name in names if name.endswith(".lock"))


def _is_stale(name: str) -> bool:
    path = os.path.join(_LOCKS, name)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.path.exists(path)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until a condition holds; AssertionError says what did not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(_POLL)
