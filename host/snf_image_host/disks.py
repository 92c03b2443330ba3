"""The disks of a deployment: opened once, locked while it lasts, never truncated."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence

from snf_image_host.deployment import TargetDisk
from snf_image_host.errors import NodeError, UserError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenDisk:
    """An open disk. ``size`` in bytes. ``reads_zero``: nothing was ever written to it.

    ``created``: this run made the file, and removes it if it fails.
    """

    index: int
    path: str
    fd: int
    size: int
    is_block: bool
    read_only: bool = False
    created: bool = False
    reads_zero: bool = False


@contextlib.contextmanager
def open_disks(targets: Sequence[TargetDisk]) -> Iterator[tuple[OpenDisk, ...]]:
    """Open and lock every disk; a second deployment to one of them is refused (R-DST-LOCAL-3).

    A file that was made here is removed again if the deployment fails.
    """
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(_open_disk(target)) for target in targets)


@contextlib.contextmanager
def _open_disk(target: TargetDisk) -> Iterator[OpenDisk]:
    fd, created = _open(target)
    try:
        _lock(target, fd)
        yield _describe(target, fd, created=created)
    except BaseException:
        if created:
            with contextlib.suppress(OSError):
                os.unlink(target.path)
        raise
    finally:
        os.close(fd)


def _open(target: TargetDisk) -> tuple[int, bool]:
    flags = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (os.O_RDONLY if target.read_only else os.O_RDWR)
    try:
        # A block device that is mounted, or used otherwise by the kernel, cannot be opened exclusively.
        exclusive = 0 if target.read_only or not _is_block(target.path) else os.O_EXCL
        return os.open(target.path, flags | exclusive), False
    except FileNotFoundError:
        if target.create_size is None:
            raise UserError(
                f"{target.path}: there is no such disk", hint="--disk-size SIZE makes a new file"
            ) from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise NodeError(f"{target.path} is in use: mounted, or part of another device") from None
        raise UserError(f"{target.path} cannot be opened: {error.strerror}") from None
    try:
        return os.open(target.path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    except OSError as error:
        raise UserError(f"{target.path} cannot be made: {error.strerror}") from None


def _is_block(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)


def _lock(target: TargetDisk, fd: int) -> None:
    kind = fcntl.LOCK_SH if target.read_only else fcntl.LOCK_EX
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{target.path} is in use by another deployment") from None


def _describe(target: TargetDisk, fd: int, *, created: bool) -> OpenDisk:
    mode = os.fstat(fd).st_mode
    is_block = stat.S_ISBLK(mode)
    if not is_block and not stat.S_ISREG(mode):
        raise UserError(f"{target.path} is neither a block device nor a regular file")
    if target.create_size is not None and not is_block:
        _enlarge(target, fd, target.create_size)
    size = os.lseek(fd, 0, os.SEEK_END)
    if target.create_size is not None and is_block and size < target.create_size:
        raise UserError(f"{target.path} has {size} bytes, {target.create_size} were asked for")
    return OpenDisk(
        index=target.index,
        path=target.path,
        fd=fd,
        size=size,
        is_block=is_block,
        read_only=target.read_only,
        created=created,
        reads_zero=not is_block and _is_one_hole(fd),
    )


def _enlarge(target: TargetDisk, fd: int, wanted: int) -> None:
    size = os.fstat(fd).st_size
    if size > wanted:
        raise UserError(f"{target.path} has {size} bytes already, more than the {wanted} that were asked for")
    if size == wanted:
        return
    try:
        os.ftruncate(fd, wanted)
    except OSError as error:
        raise NodeError(f"{target.path} cannot be made {wanted} bytes large: {error.strerror}") from None


def _is_one_hole(fd: int) -> bool:
    """Whether a file has no data at all, so that all of it reads as zeros."""
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        return error.errno == errno.ENXIO
    return False
