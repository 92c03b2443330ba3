"""Room for one more helper VM: a deployment waits for memory, and for its turn, rather than exhaust the node.

Every VM that runs holds a lock on a file of its own in the runtime directory. Its memory is counted in full
until the kernel has seen it in use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from typing import Final

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.moments import uninterrupted
from snf_image_host.reporter import Reporter

OVERHEAD_MIB: Final = 192
"""Memory of qemu beside that of its guest."""
MEMINFO: Final = "/proc/meminfo"
_SETTLED_SECONDS: Final = 20.0
"""After that a VM's memory is in use, and missing from what is available."""
_POLL_SECONDS: Final = 0.2
_ALONE_SECONDS: Final = 5.0
"""How long memory is waited for when no other deployment can give any back."""
_PREFIX: Final = "vm-"
_ASIDE_PREFIX: Final = "aside-"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Other:
    """A VM that runs: since when (seconds since the epoch), its memory (MiB), and whether it has a place."""

    begun: float
    memory: int
    has_place: bool


@contextlib.contextmanager
def room_for_vm(settings: HelperSettings, reporter: Reporter) -> Iterator[None]:
    """Wait for room, and keep it while the context lasts.

    :class:`NodeError` if there is none after ``settings.wait_timeout`` seconds.
    """
    directory = directory_of(settings)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with contextlib.ExitStack() as held:
        begun = time.monotonic()
        told = False
        while True:
            with uninterrupted(), _turn(directory):
                others = _others(directory)
                missing = _missing(settings, others)
                if missing is None:
                    held.enter_context(_presence(directory, _PREFIX, settings.memory + OVERHEAD_MIB))
            if missing is None:
                break
            waited = time.monotonic() - begun
            if waited > (settings.wait_timeout if others else _ALONE_SECONDS):
                raise NodeError(f"the helper VM could not be started: {missing}", hint=_HINT)
            if not told:
                reporter.info(f"waiting to start the helper VM: {missing}")
                told = True
            time.sleep(_POLL_SECONDS)
        yield


@contextlib.contextmanager
def room_aside(settings: HelperSettings) -> Iterator[bool]:
    """Room for a VM that nobody waits for, now or not at all; False if there is none.

    It has no place among HELPER_PARALLEL: with one place, whoever deploys next would wait for a VM that is
    none of theirs. Nor does it take the memory of a deployment: it only begins where there is enough for
    itself and for one more. Its own is counted against deployments that begin meanwhile like anybody's, so
    that the node's memory is never promised twice. To give way instead, by being ended when somebody
    wants in, would leave a busy node without the state for ever.
    """
    directory = directory_of(settings)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with contextlib.ExitStack() as held:
        with uninterrupted(), _turn(directory):
            needed = settings.memory + OVERHEAD_MIB
            is_room = _missing_memory(2 * needed, _others(directory)) is None
            if is_room:
                held.enter_context(_presence(directory, _ASIDE_PREFIX, needed))
        yield is_room


def directory_of(settings: HelperSettings) -> str:
    """Where those who share this node's memory meet: the deployments of root, or of one user."""
    return settings.runtime_dir if os.geteuid() == 0 else os.path.join(settings.state_dir, "room")


_HINT: Final = "free memory, set HELPER_MEMORY lower, or deploy fewer instances at once"


def _missing(settings: HelperSettings, others: list[_Other]) -> str | None:
    """What there is no room in, or None."""
    placed = sum(other.has_place for other in others)
    if settings.parallel and placed >= settings.parallel:
        return f"{placed} others run, HELPER_PARALLEL={settings.parallel}"
    return _missing_memory(settings.memory + OVERHEAD_MIB, others)


def _missing_memory(needed: int, others: list[_Other]) -> str | None:
    """How ``needed`` MiB are not there, or None."""
    now = time.time()
    # What has just been started has not taken its memory yet.
    promised = sum(other.memory for other in others if now - other.begun < _SETTLED_SECONDS)
    available = _available_mib()
    if available is None or available - promised >= needed:
        return None
    free = max(0, available - promised)
    return f"it needs {needed} MiB of memory, {free} MiB are available"


def _available_mib() -> int | None:
    """MiB that programs can have without swapping; None where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(MEMINFO, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    return None


@contextlib.contextmanager
def _turn(directory: str) -> Iterator[None]:
    """One at a time looks and decides."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _presence(directory: str, prefix: str, memory: int) -> Iterator[None]:
    """A file that says how much memory (MiB) this VM needs, locked as long as it runs."""
    path = os.path.join(directory, f"{prefix}{secrets.token_hex(6)}-{memory}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(fd)


def _others(directory: str) -> list[_Other]:
    """Every VM of ours that runs."""
    found = []
    for name in os.listdir(directory):
        if name.startswith((_PREFIX, _ASIDE_PREFIX)):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError, ValueError):
                begun = os.stat(path).st_mtime
                if _is_locked(path):
                    memory = int(name.rpartition("-")[2])
                    found.append(_Other(begun=begun, memory=memory, has_place=name.startswith(_PREFIX)))
                else:
                    os.unlink(path)  # its owner was killed
    return found


def _is_locked(path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
