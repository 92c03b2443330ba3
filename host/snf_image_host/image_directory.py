"""Images by name: a name never leads out of IMAGE_DIR (R-SRC-LOCAL-*).

The kernel resolves the name beneath a descriptor of the directory, so that what is checked is what is opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import stat
from collections.abc import Iterator
from typing import Final

from snf_image_host.errors import NodeError, UserError

_OPENAT2: Final = 437
"""The same number on every architecture."""
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_BENEATH: Final = 0x08
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def open_image_file(directory: str, name: str, *, allow_links: bool) -> Iterator[int]:
    """A descriptor of the regular file ``name`` below ``directory``; a leading ``/`` counts for nothing.

    ``allow_links``: root's own links may lead out of it (IMAGE_DIR_ALLOW_SYMLINKS).

    :class:`FileNotFoundError` if there is none; :class:`UserError` for a name that leaves the directory or
    names something else; :class:`NodeError` if there is no directory. No error tells whether a path outside
    exists.
    """
    try:
        base = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NodeError(
            "the image cannot be read",
            details=(f"{directory}: {error.strerror}",),
            hint="make the directory, or set IMAGE_DIR to the one with the images",
        ) from None
    try:
        fd = _open(base, directory, name.lstrip("/"), allow_links=allow_links)
    finally:
        os.close(base)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UserError(f"the image {name} is no regular file")
        yield fd
    finally:
        os.close(fd)


def _open(base: int, directory: str, name: str, *, allow_links: bool) -> int:
    try:
        return _openat2(base, name, _BENEATH | _NO_MAGICLINKS)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ELOOP, errno.EAGAIN):
            raise _unreadable(name, error) from None
    # An absolute link leaves the directory for the kernel even if it leads back into it (D-14).
    real, root = os.path.realpath(os.path.join(directory, name)), os.path.realpath(directory)
    if os.path.commonpath((real, root)) == root and real != root and ".." not in name.split("/"):
        try:
            return _openat2(base, os.path.relpath(real, root), _BENEATH | _NO_SYMLINKS)
        except OSError:
            raise _leaves(name) from None
    if not allow_links or ".." in name.split("/") or not _links_are_roots(directory, name):
        raise _leaves(name)
    try:
        return os.open(real, _FLAGS | os.O_NOFOLLOW)
    except OSError:
        raise _leaves(name) from None


def _openat2(base: int, name: str, resolve: int) -> int:
    how = _OpenHow(_FLAGS, 0, resolve)
    path = os.fsencode(name)
    if b"\0" in path:
        raise _leaves("")
    fd = _libc.syscall(_OPENAT2, base, path, ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise NodeError(f"kernel {platform.release()} lacks openat2", hint="Linux 5.6 or later is needed")
        raise OSError(number, os.strerror(number))
    return int(fd)


def _unreadable(name: str, error: OSError) -> UserError:
    return UserError(f"the image {name} cannot be read: {error.strerror}")


def _leaves(name: str) -> UserError:
    return UserError(f"the image name {name} leads out of the directory of images")


def _links_are_roots(directory: str, name: str) -> bool:
    """Whether every link on the way is root's, in a directory that nobody else can write to."""
    at = directory
    waiting = name.split("/")
    for _ in range(256):
        if not waiting:
            return True
        part = waiting.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            at = os.path.dirname(at)
            continue
        try:
            status, parent = os.lstat(os.path.join(at, part)), os.stat(at)
        except OSError:
            return False
        if not stat.S_ISLNK(status.st_mode):
            at = os.path.join(at, part)
            continue
        if status.st_uid != 0 or parent.st_uid != 0 or parent.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
        target = os.readlink(os.path.join(at, part))
        at = "/" if target.startswith("/") else at
        waiting = target.split("/") + waiting
    return False
