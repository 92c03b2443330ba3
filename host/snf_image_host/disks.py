"""The disks of a deployment: opened once, locked while it lasts, never truncated."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from snf_image_host.deployment import TargetDisk
from snf_image_host.errors import NodeError, SnfImageError, UserError
from snf_image_host.moments import uninterrupted

SERVED_SECONDS: Final = 300.0
"""For the server of a disk with a URI to answer."""
_ASKED_WRONGLY: Final = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_FLOCK: Final = "hhqqi4x"
"""struct flock: type, whence, start, length, owner."""
_QEMU_LOCKS: Final = range(100, 300)
"""RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE, 100 bytes each."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenDisk:
    """An open block device or file. ``size`` in bytes. ``reads_zero``: nothing was ever written to it.

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServedDisk:
    """A disk behind a URI, served on a private socket as long as it is open. ``size`` in bytes."""

    index: int
    path: str
    size: int
    socket_path: str
    export: str
    read_only: bool = False
    is_block: Literal[False] = False
    created: Literal[False] = False
    reads_zero: Literal[False] = False

    def connect(self) -> socket.socket:
        """A new connection; :class:`NodeError` if the server is gone."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(SERVED_SECONDS)
            connection.connect(self.socket_path)
        except OSError as error:
            connection.close()
            raise NodeError(f"{self.path} is not served any more: {error.strerror}") from None
        return connection


Disk = OpenDisk | ServedDisk


@contextlib.contextmanager
def open_disks(targets: Sequence[TargetDisk]) -> Iterator[tuple[OpenDisk, ...]]:
    """Open and lock every disk; a second deployment to one of them is refused (R-DST-LOCAL-3).

    :class:`UserError` for a disk that is not there, is none, or is used; :class:`NodeError` if the node
    cannot give it. Content and size of what exists stay as they are, but for a file that ``create_size``
    enlarges. A file that was made here is removed again if the deployment fails.
    """
    opened: dict[tuple[int, int], TargetDisk] = {}
    with contextlib.ExitStack() as stack:
        disks = []
        for target in targets:
            _refuse_wrong_kind(target)
            first = opened.setdefault(_identity(target), target)
            if first is not target:
                raise UserError(f"{target.path} is given twice: as disk {first.index} and {target.index}")
            disks.append(stack.enter_context(_open_disk(target)))
            # A file that was made just now has an identity only now.
            opened[_identity(target)] = target
        yield tuple(disks)


@contextlib.contextmanager
def _open_disk(target: TargetDisk) -> Iterator[OpenDisk]:
    with contextlib.ExitStack() as undo:
        with uninterrupted():
            fd, created = _open(target)
            undo.callback(os.close, fd)
            if created:
                undo.push(lambda _kind, error, _trace: _remove_after(error, target.path, fd))
        _lock(target, fd)
        yield _describe(target, fd, created=created)


def _remove_after(error: BaseException | None, path: str, fd: int) -> None:
    """Remove a file that was made here if there was an error."""
    if error is not None and _unlink_own(path, fd) and isinstance(error, SnfImageError):
        error.details = (*error.details, f"{path} was made for this deployment and is removed")


def _refuse_wrong_kind(target: TargetDisk) -> None:
    """Before it is opened: that alone can do things, with a tape or a watchdog."""
    try:
        mode = os.stat(target.path).st_mode
    except OSError:
        return  # told with its reason when it is opened
    if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
        raise UserError(f"{target.path} is neither a block device nor a regular file")


def _identity(target: TargetDisk) -> tuple[int, int]:
    """The same for two names of one disk; for a file that is still to be made, a number of its own."""
    try:
        status = os.stat(target.path)
    except OSError:
        return -1, target.index
    return (0, status.st_rdev) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def _open(target: TargetDisk) -> tuple[int, bool]:
    flags = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (os.O_RDONLY if target.read_only else os.O_RDWR)
    try:
        # A block device that is mounted, or used otherwise by the kernel, cannot be opened exclusively.
        exclusive = 0 if target.read_only or not stat.S_ISBLK(os.stat(target.path).st_mode) else os.O_EXCL
        return os.open(target.path, flags | exclusive), False
    except FileNotFoundError:
        if target.create_size is None:
            what = "file or device" if target.read_only else "disk; `snf-image deploy --disk-size` makes one"
            raise UserError(f"{target.path}: there is no such {what}") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise NodeError(
                f"{target.path} is in use: mounted, part of another device, or open in another deployment"
            ) from None
        raise _failed(target, "opened", error) from None
    try:
        return os.open(target.path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    except OSError as error:
        raise _failed(target, "made", error) from None


def _failed(target: TargetDisk, what: str, error: OSError) -> SnfImageError:
    """Whose fault it is: that of the request if another path or account would do."""
    kind = UserError if error.errno in _ASKED_WRONGLY else NodeError
    return kind(f"{target.path} cannot be {what}: {error.strerror}")


def _lock(target: TargetDisk, fd: int) -> None:
    kind = fcntl.LOCK_SH if target.read_only else fcntl.LOCK_EX
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{target.path} is in use by another deployment") from None
    except OSError as error:
        raise NodeError(
            f"{target.path} cannot be locked: {error.strerror}", hint="its file system must support locks"
        ) from None
    if not target.read_only and _is_open_in_qemu(fd):
        raise UserError(f"{target.path} is the disk of a virtual machine that is running")


def _is_open_in_qemu(fd: int) -> bool:
    """Whether a qemu has the file open: it locks bytes from 100 on, for what it does and for what it forbids.

    Asked for, never taken: the helper VM's own qemu takes them.
    """
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _QEMU_LOCKS.start, len(_QEMU_LOCKS), 0)
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


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
    if size == 0:
        raise UserError(f"{target.path} has no bytes", hint="--disk-size SIZE gives a file its size")
    return OpenDisk(
        index=target.index,
        path=target.path,
        fd=fd,
        size=size,
        is_block=is_block,
        read_only=target.read_only,
        created=created,
        reads_zero=created or (not is_block and _is_one_hole(fd)),
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


def _unlink_own(path: str, fd: int) -> bool:
    """Remove the file behind ``fd`` at ``path``; whatever else has come there stays."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.lstat(path), os.fstat(fd)):
            os.unlink(path)
            return True
    return False


def _is_one_hole(fd: int) -> bool:
    """Whether a file has no data at all, so that all of it reads as zeros."""
    try:
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        return error.errno == errno.ENXIO
    return False
