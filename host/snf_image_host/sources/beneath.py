"""Opening an image by a name below IMAGE_DIR, from which no name and no foreign link leads out.

The kernel resolves the name beneath a descriptor of the directory (``openat2``), so that ``..`` and links
cannot leave it. Where the operator allows links that do, each of them must be root's (R-SRC-LOCAL-4, D-14).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import Final

from snf_image_host.errors import NodeError, UserError

_OPENAT2: Final = 437
_NO_MAGICLINKS: Final = 0x02
_BENEATH: Final = 0x08
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MAX_LINKS: Final = 40
_libc = ctypes.CDLL(None, use_errno=True)


def open_beneath(
    directory: str, name: str, shown: str, *, suffix: str, allow_symlinks: bool
) -> tuple[int, bool]:
    """A descriptor of the image ``name`` below ``directory``, and whether only NAME.``suffix`` was there.

    :class:`UserError` says the same whether a name outside exists or not; :class:`NodeError` if there is no
    such directory, which only the operator's log says more about (R-SRC-LOCAL-5).
    """
    relative = name.lstrip("/")
    if not relative or "\0" in relative:
        raise UserError("the name of the image is empty")
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NodeError(
            "the image cannot be read",
            hint="see the log",
            details=(f"IMAGE_DIR {directory}: {error.strerror}",),
        ) from None
    try:
        for candidate in (relative, f"{relative}.{suffix}"):
            fd = _try_open(root, candidate, allow_symlinks=allow_symlinks)
            if fd is not None:
                return fd, candidate != relative
    except OSError:
        raise UserError(f"the image {shown} cannot be read") from None
    finally:
        os.close(root)
    raise UserError(f"the image {shown} cannot be read", hint="is it below IMAGE_DIR, and a regular file?")


def _try_open(root: int, name: str, *, allow_symlinks: bool) -> int | None:
    """None if there is no such file; OSError for everything else."""
    try:
        return _openat2(root, name)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EXDEV or not allow_symlinks or ".." in name.split("/"):
            raise
    return _follow(root, name)


def _openat2(root: int, name: str) -> int:
    how = struct.pack("<QQQ", _FLAGS, 0, _BENEATH | _NO_MAGICLINKS)
    fd = _libc.syscall(_OPENAT2, root, name.encode(), how, len(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(fd)


def _follow(root: int, name: str) -> int:
    """Step by step; every link on the way must be root's, in a directory that only root can write."""
    at = os.dup(root)
    waiting = [part for part in reversed(name.split("/")) if part not in ("", ".")]
    links = 0
    try:
        while waiting:
            part = waiting.pop()
            entry = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            state = os.fstat(entry)
            if not stat.S_ISLNK(state.st_mode):
                os.close(at)
                at = entry
                continue
            os.close(entry)
            links += 1
            if links > _MAX_LINKS or not _is_roots(state) or not _is_roots(os.fstat(at)):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(part, dir_fd=at)
            if target.startswith("/"):
                os.close(at)
                at = os.open("/", os.O_PATH | os.O_CLOEXEC)
            waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        return os.open(f"/proc/self/fd/{at}", _FLAGS)
    finally:
        os.close(at)


def _is_roots(state: os.stat_result) -> bool:
    """A link's own mode says nothing; a directory's must let nobody else change it."""
    return state.st_uid == 0 and (stat.S_ISLNK(state.st_mode) or not state.st_mode & 0o022)
