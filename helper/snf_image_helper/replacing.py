"""How one file takes the place of another, beneath a descriptor of its directory (R-TASK-6, D-29).

The part of the door (:mod:`snf_image_helper.root`) that writes: names here are single components, and
errors are the kernel's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from snf_image_helper import ntfs_security

_TEMPORARY_PREFIX: Final = ".snf-image-"


@dataclasses.dataclass(frozen=True, slots=True)
class Attributes:
    """Permission bits, owner and group of a file."""

    mode: int
    uid: int
    gid: int


def attributes_of(status: os.stat_result) -> Attributes:
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def of_itself(fd: int) -> str:
    """A path for calls that take no descriptor of O_PATH; it names the opened file itself, be it a link."""
    return f"/proc/self/fd/{fd}"


def description(parent: int, name: str) -> tuple[Attributes, dict[str, bytes | None]]:
    """Everything about a file but its contents, to be compared with what it is later."""
    with opened(name, os.O_RDONLY, parent) as fd:
        try:
            names = os.listxattr(fd)
        except OSError:  # UFS has none, or hides them
            names = []
        values: dict[str, bytes | None] = {each: os.getxattr(fd, each) for each in names}
        for each in ntfs_security.KEPT:
            values[each] = ntfs_security.read_attribute(f"{of_itself(parent)}/{name}", each)
        return attributes_of(os.fstat(fd)), values


def give(fd: int, uid: int, gid: int) -> None:
    """Set the owner unless it is right already: an ordinary user's tests run on their own trees."""
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(fd, uid, gid)


def set_attributes(fd: int, attributes: Attributes) -> None:
    """Owner first: giving a file away takes its set-uid bits."""
    give(fd, attributes.uid, attributes.gid)
    os.fchmod(fd, attributes.mode)


@contextlib.contextmanager
def opened(name: str, flags: int, parent: int) -> Iterator[int]:
    """A descriptor of ``name`` itself; a link is never followed, a FIFO never waited for."""
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def read_at_most(fd: int, size: int) -> bytes:
    """The first ``size`` bytes, fewer if the file ends before."""
    data = bytearray()
    while len(data) < size and (chunk := os.read(fd, min(1 << 20, size - len(data)))):
        data += chunk
    return bytes(data)


def holds(parent: int, name: str, data: bytes) -> bool:
    """Whether the file's contents are exactly ``data``."""
    with opened(name, os.O_RDONLY, parent) as fd:
        return os.fstat(fd).st_size == len(data) and read_at_most(fd, len(data) + 1) == data


def replace(parent: int, name: str, data: bytes, attributes: Attributes, *, keep_extended: bool) -> None:
    """Put a new file in the place of ``name``, all at once.

    ``keep_extended``: it gets the extended attributes of the file there is, ACL and security label among
    them, and the short name that NTFS may have given it.
    """
    short = ntfs_security.short_name(parent, name) if keep_extended else None
    temporary = _TEMPORARY_PREFIX + os.urandom(8).hex()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            give(fd, attributes.uid, attributes.gid)
            if keep_extended:
                _copy_extended_attributes(parent, name, fd)
            else:
                ntfs_security.describe_new(parent, fd, attributes.mode, directory=False)
            os.fchmod(fd, attributes.mode)
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        if short is not None:
            ntfs_security.give_short_name(parent, name, short)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise


def overwrite(parent: int, name: str, data: bytes, attributes: Attributes | None) -> None:
    """Put ``data`` into the file there is; ``attributes`` None: it keeps its own.

    The attributes are set before the contents: nobody may read a secret in between.
    """
    with opened(name, os.O_WRONLY, parent) as fd:
        if attributes is not None:
            os.ftruncate(fd, 0)
            set_attributes(fd, attributes)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.ftruncate(fd, len(data))
        os.fsync(fd)


def loses_attributes(parent: int, name: str) -> bool:
    """Whether a copy would lose extended attributes: it has some, or they cannot be seen."""
    with opened(name, os.O_RDONLY, parent) as fd:
        try:
            return bool(os.listxattr(fd))
        except OSError:
            return True


def make_directory(parent: int, name: str, attributes: Attributes) -> None:
    os.mkdir(name, 0o700, dir_fd=parent)
    with opened(name, os.O_RDONLY | os.O_DIRECTORY, parent) as fd:
        ntfs_security.describe_new(parent, fd, attributes.mode, directory=True)
        set_attributes(fd, attributes)


def remove_directory(parent: int, name: str) -> None:
    """Remove a directory and what is below it on the same file system.

    Flat, however deep the directory is: subdirectories are moved up beside the ones still to be emptied, so
    that neither descriptors nor the stack grow with the depth that an image chose.
    """
    with opened(name, os.O_RDONLY | os.O_DIRECTORY, parent) as top:
        device = os.fstat(top).st_dev
        pending = _empty(top, top, device)
        while pending:
            directory = pending.pop()
            with opened(directory, os.O_RDONLY | os.O_DIRECTORY, top) as fd:
                pending += _empty(fd, top, device)
            os.rmdir(directory, dir_fd=top)
    os.rmdir(name, dir_fd=parent)


def _empty(directory: int, top: int, device: int) -> list[str]:
    """Remove the files of ``directory``, move its directories into ``top``; what they are called there."""
    moved = []
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if status.st_dev != device:
            raise OSError(errno.EBUSY, "another file system is mounted in it")
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=directory)
            continue
        unique = _TEMPORARY_PREFIX + os.urandom(8).hex()
        os.rename(name, unique, src_dir_fd=directory, dst_dir_fd=top)
        moved.append(unique)
    return moved


def _copy_extended_attributes(parent: int, name: str, target: int) -> None:
    with opened(name, os.O_RDONLY, parent) as source:
        try:
            names = os.listxattr(source)
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENOSYS):
                return
            raise
        for attribute in names:
            os.setxattr(target, attribute, os.getxattr(source, attribute))
    ntfs_security.copy_kept(parent, name, target)
