"""Room for one more helper VM: a deployment waits for memory, and for its turn, rather than exhaust the node.

Every VM that runs holds a lock on a file of its own in the runtime directory. Its memory is counted in full
until the kernel has seen it in use.
"""

from __future__ import annotations

import contextlib
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
                    held.enter_context(_presence(directory, settings.memory + OVERHEAD_MIB))
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


def directory_of(settings: HelperSettings) -> str:
    """Where those who share this node's memory meet: the deployments of root, or of one user."""
    return settings.runtime_dir if os.geteuid() == 0 else os.path.join(settings.state_dir, "room")


_HINT: Final = "free memory, set HELPER_MEMORY lower, or deploy fewer instances at once"


def _missing(settings: HelperSettings, others: list[tuple[float, int]]) -> str | None:
    """What there is no room in, or None."""
    if settings.parallel and len(others) >= settings.parallel:
        return f"{len(others)} others run, HELPER_PARALLEL={settings.parallel}"
    needed = settings.memory + OVERHEAD_MIB
    now = time.time()
    # What has just been started has not taken its memory yet.
    promised = sum(memory for begun, memory in others if now - begun < _SETTLED_SECONDS)
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
def _presence(directory: str, memory: int) -> Iterator[None]:
    """A file that says how much memory (MiB) this VM needs, locked as long as it runs."""
    path = os.path.join(directory, f"{_PREFIX}{secrets.token_hex(6)}-{memory}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(fd)


def _others(directory: str) -> list[tuple[float, int]]:
    """Start (seconds since the epoch) and memory (MiB) of every VM of ours that runs."""
    found = []
    for name in os.listdir(directory):
        if name.startswith(_PREFIX):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError, ValueError):
                begun = os.stat(path).st_mtime
                if _is_locked(path):
                    found.append((begun, int(name.rpartition("-")[2])))
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
