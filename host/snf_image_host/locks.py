"""Locks by name between processes of this node: files that are gone when nobody holds them."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Iterator

from snf_image_host.errors import NodeError
from snf_image_host.moments import uninterrupted


@contextlib.contextmanager
def hold_lock(runtime_dir: str, name: str) -> Iterator[bool]:
    """Whether the lock ``name`` was to be had; it is held while the context lasts."""
    directory = lock_directory(runtime_dir)
    with contextlib.ExitStack() as undo:
        with uninterrupted():
            lock = try_lock(os.path.join(directory, name))
            if lock is not None:
                undo.callback(lock.release)
        yield lock is not None


def lock_directory(runtime_dir: str) -> str:
    """``runtime_dir``, made if it is not there; :class:`NodeError` if others could write to it."""
    try:
        os.makedirs(runtime_dir, mode=0o755, exist_ok=True)
        state = os.stat(runtime_dir)
    except OSError as error:
        raise NodeError(
            f"{runtime_dir}: {error.strerror}",
            hint="it must be a directory of root's",
        ) from None
    if state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise NodeError(f"{runtime_dir}: must belong to root and be writable by nobody else")
    return runtime_dir


@dataclasses.dataclass(frozen=True, slots=True)
class Lock:
    """One that is held."""

    path: str
    fd: int

    def release(self) -> None:
        """The file goes first: whoever opened it in between sees that it is gone, and makes a new one."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self.fd)


def try_lock(path: str) -> Lock | None:
    """The lock of that name, or None if somebody has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return Lock(path, fd)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None
