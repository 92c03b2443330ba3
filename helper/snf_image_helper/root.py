"""The one door to the untrusted tree (R-TASK-5, R-TASK-6).

Tasks get a :class:`Root` and name files by the path the guest would use. Every path is resolved beneath
the root by openat2(2): absolute links are relative to it, ``..`` stops at it, magic links are refused.
Every change made through the door is recorded, so that a receipt cannot forget one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import Final

from snf_image_contract.events import Change, ChangeKind
from snf_image_helper.errors import ImageError
from snf_image_helper.openat2 import open_in_root

MAX_CONFIG_FILE: Final = 16 * 1024 * 1024
MAX_LINKS: Final = 40
_TEMPORARY_PREFIX: Final = ".snf-image-"


class Root:
    """A directory descriptor of the mounted root file system, and everything one may do beneath it.

    Paths are the guest's, absolute. ``record`` gets each :class:`Change`. ``warn`` gets text.
    Errors that the image causes are :class:`ImageError` and name the guest's path.
    """

    def __init__(
        self,
        fd: int,
        *,
        record: Callable[[Change], None],
        warn: Callable[[str], None],
        rewrite_in_place: bool = False,
    ) -> None:
        """``rewrite_in_place``: a file with extended attributes is not replaced (UFS, D-29)."""
        self._fd = fd
        self._record_change = record
        self._warn = warn
        self._rewrite_in_place = rewrite_in_place

    # -- looking ----------------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result | None:
        """Status of ``path`` itself, a last link not followed; None if it is absent."""
        try:
            with self._open(path, os.O_PATH | os.O_NOFOLLOW) as fd:
                return os.fstat(fd)
        except FileNotFoundError:
            return None

    def stat(self, path: str) -> os.stat_result | None:
        """Status of what ``path`` leads to; None if it, or what a link names, is absent."""
        try:
            with self._open(path, os.O_PATH) as fd:
                return os.fstat(fd)
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        return self.stat(path) is not None

    def is_dir(self, path: str) -> bool:
        status = self.stat(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: str) -> bool:
        status = self.stat(path)
        return status is not None and stat.S_ISREG(status.st_mode)

    def is_executable(self, path: str) -> bool:
        status = self.stat(path)
        return status is not None and stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)

    def list(self, path: str) -> list[str]:
        """Names in a directory in byte order; an absent directory has none."""
        try:
            with self._open(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
                return sorted(os.listdir(fd), key=os.fsencode)
        except FileNotFoundError:
            return []

    def readlink(self, path: str) -> str:
        """What the link ``path`` says; :class:`ImageError` if it is no link."""
        with self._parent(path) as (parent, name), self._blaming(path):
            return os.readlink(name, dir_fd=parent)

    def read(self, path: str, limit: int = MAX_CONFIG_FILE) -> bytes:
        """Contents of a regular file of at most ``limit`` bytes; FileNotFoundError if it is absent."""
        # O_NONBLOCK: a FIFO where a file is expected must not hang the helper.
        with self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as fd:
            self._demand_regular(path, os.fstat(fd))
            data = bytearray()
            while len(data) <= limit and (chunk := os.read(fd, min(1 << 20, limit + 1 - len(data)))):
                data += chunk
        if len(data) > limit:
            raise ImageError(f"{path}: larger than {limit} bytes")
        return bytes(data)

    def read_optional(self, path: str, limit: int = MAX_CONFIG_FILE) -> bytes | None:
        """Like :meth:`read`, None if the file is absent."""
        try:
            return self.read(path, limit)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def open_directory(self, path: str) -> Iterator[int]:
        """A descriptor of a directory, for programs that need a mount point (``/proc/self/fd/N``)."""
        with self._open(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
            yield fd

    # -- changing ---------------------------------------------------------------------------------

    def write(
        self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, force: bool = False,
        detail: str = "",
    ) -> None:  # fmt: skip
        """Replace or create a file atomically.

        An existing file keeps owner, group, mode and extended attributes (unless ``force`` gives it the
        stated ones); a new one gets those stated. If ``path`` is a link, what it leads to is replaced and
        the link stays. Unchanged contents are not written.
        """
        with self._final(path) as (parent, name, old):
            if old is not None:
                self._demand_regular(path, old)
                if self._same(parent, name, data) and not force:
                    return
            if old is not None and self._must_rewrite(parent, name, old):
                self._warn(f"{path}: has several names, or attributes a copy would lose; rewritten")
                self._overwrite(path, parent, name, data)
            else:
                self._replace(path, parent, name, data, old=None if force else old, new=(mode, uid, gid))
        self._record(path, "created" if old is None else "modified", detail)

    def mkdir(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make a directory and its missing parents, all with the same owner and mode."""
        missing: list[str] = []
        current = posixpath.normpath(path)
        while not self.exists(current):
            missing.append(current)
            current = posixpath.dirname(current)
        if not self.is_dir(current):
            raise ImageError(f"{current}: is not a directory")
        for directory in reversed(missing):
            with self._final(directory) as (parent, name, _), self._blaming(directory):
                os.mkdir(name, 0o700, dir_fd=parent)
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
                try:
                    _give(fd, uid, gid)
                    os.fchmod(fd, mode)
                finally:
                    os.close(fd)
            self._record(directory, "directory")

    def remove(self, path: str) -> bool:
        """Remove a file or link (the link itself); False if there was none."""
        try:
            with self._parent(path) as (parent, name), self._blaming(path):
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return False
        self._record(path, "removed")
        return True

    def remove_tree(self, path: str) -> bool:
        """Remove a directory and what is below it on the same file system; a link is just removed."""
        status = self.lstat(path)
        if status is None:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return self.remove(path)
        with self._parent(path) as (parent, name), self._blaming(path):
            _remove_below(parent, name, status.st_dev)
            os.rmdir(name, dir_fd=parent)
        self._record(path, "removed", "directory")
        return True

    def rename(self, old: str, new: str) -> None:
        """Rename ``old`` (a link itself) to ``new``, which must not exist."""
        with self._parent(old) as (old_parent, old_name), self._parent(new) as (new_parent, new_name):
            if self.lstat(new) is not None:
                raise ImageError(f"{new}: exists already")
            with self._blaming(old):
                os.rename(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent)
        self._record(old, "renamed", f"to {new}")

    def symlink(self, target: str, path: str) -> None:
        """Make ``path`` a link that says ``target``; it must not exist, except as that very link."""
        with self._parent(path) as (parent, name), self._blaming(path):
            status = self.lstat(path)
            if status is not None:
                if stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=parent) == target:
                    return
                raise ImageError(f"{path}: exists already")
            os.symlink(target, name, dir_fd=parent)
        self._record(path, "link", f"to {target}")

    def set_attributes(
        self, path: str, *, mode: int | None = None, uid: int | None = None, gid: int | None = None
    ) -> None:
        """Change mode and owner of what ``path`` leads to; a FIFO or device is refused."""
        with self._final(path) as (parent, name, old), self._blaming(path):
            if old is None or not (stat.S_ISREG(old.st_mode) or stat.S_ISDIR(old.st_mode)):
                raise ImageError(f"{path}: neither a regular file nor a directory")
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
            try:
                _give(fd, old.st_uid if uid is None else uid, old.st_gid if gid is None else gid)
                os.fchmod(fd, stat.S_IMODE(old.st_mode) if mode is None else mode)
            finally:
                os.close(fd)
        self._record(path, "attributes")

    # -- inside -----------------------------------------------------------------------------------

    def _record(self, path: str, change: ChangeKind, detail: str = "") -> None:
        self._record_change(Change(path=path, change=change, detail=detail))

    @contextlib.contextmanager
    def _blaming(self, path: str) -> Iterator[None]:
        """Turn errors of the kernel about ``path`` into errors about the image; absence passes."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ImageError(f"{path}: the file system is full") from None
            raise ImageError(f"{path}: {error.strerror}") from None

    @contextlib.contextmanager
    def _open(self, path: str, flags: int) -> Iterator[int]:
        with self._blaming(path):
            fd = open_in_root(self._fd, path, flags)
        try:
            with self._blaming(path):
                yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Descriptor of the directory that holds the last component, and that component."""
        directory, name = posixpath.split(path.rstrip("/"))
        if name in ("", ".", ".."):
            raise ImageError(f"{path}: not the name of a file")
        with self._open(directory or "/", os.O_PATH | os.O_DIRECTORY) as fd:
            yield fd, name

    @contextlib.contextmanager
    def _final(self, path: str) -> Iterator[tuple[int, str, os.stat_result | None]]:
        """Like :meth:`_parent`, but a last component that is a link is followed; and its status."""
        current = path
        for _ in range(MAX_LINKS):
            with contextlib.ExitStack() as stack:
                parent, name = stack.enter_context(self._parent(current))
                try:
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                except FileNotFoundError:
                    yield parent, name, None
                    return
                if not stat.S_ISLNK(status.st_mode):
                    yield parent, name, status
                    return
                target = os.readlink(name, dir_fd=parent)
            # Left as it is, ".." included: openat2 resolves it where it leads, not as text.
            current = target if target.startswith("/") else f"{posixpath.dirname(current)}/{target}"
        raise ImageError(f"{path}: too many links")

    @staticmethod
    def _demand_regular(path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: not a regular file")

    @staticmethod
    def _same(parent: int, name: str, data: bytes) -> bool:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
        with os.fdopen(fd, "rb") as stream:
            return stream.read(len(data) + 1) == data

    def _must_rewrite(self, parent: int, name: str, status: os.stat_result) -> bool:
        if status.st_nlink > 1:
            return True
        if not self._rewrite_in_place:
            return False
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            return bool(_attributes(fd)) or not _can_list_attributes(fd)
        finally:
            os.close(fd)

    def _overwrite(self, path: str, parent: int, name: str, data: bytes) -> None:
        with self._blaming(path):
            fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=parent)
            with os.fdopen(fd, "wb") as stream:
                stream.write(data)
                stream.truncate()
                stream.flush()
                os.fsync(fd)

    def _replace(
        self, path: str, parent: int, name: str, data: bytes,
        *, old: os.stat_result | None, new: tuple[int, int, int],
    ) -> None:  # fmt: skip
        temporary = _TEMPORARY_PREFIX + secrets.token_hex(8)
        mode, uid, gid = new if old is None else (stat.S_IMODE(old.st_mode), old.st_uid, old.st_gid)
        with self._blaming(path):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
            try:
                with os.fdopen(fd, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    _give(fd, uid, gid)
                    if old is not None:
                        _copy_attributes(parent, name, fd)
                    os.fchmod(fd, mode)
                    os.fsync(fd)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise


def _give(fd: int, uid: int, gid: int) -> None:
    """Set the owner unless it is right already: an ordinary user's tests run on their own trees."""
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(fd, uid, gid)


def _can_list_attributes(fd: int) -> bool:
    try:
        os.listxattr(fd)
    except OSError:
        return False
    return True


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise


def _copy_attributes(parent: int, name: str, target: int) -> None:
    """Extended attributes of a file, ACL and security label among them, to another."""
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        for attribute in _attributes(source):
            os.setxattr(target, attribute, os.getxattr(source, attribute))
    finally:
        os.close(source)


def _remove_below(parent: int, name: str, device: int) -> None:
    """Empty the directory ``name``; other file systems mounted below are an error of the kernel (EBUSY)."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        for entry in os.listdir(fd):
            status = os.stat(entry, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                _remove_below(fd, entry, device)
                os.rmdir(entry, dir_fd=fd)
            else:
                os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
