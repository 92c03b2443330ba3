"""Reading configuration files: which ones, and whether they can be trusted (R-CONF-1, R-CONF-5)."""

from __future__ import annotations

import dataclasses
import os
import stat
from typing import Final

from snf_image_host.parameters.problems import Problems

MAIN_FILES: Final = ("/etc/default/snf-image", "/etc/snf-image/snf-image.conf")
MAX_BYTES: Final = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A file to read. ``optional``: it may be missing. ``owners``: user ids that may own it.

    ``only``: the variables that a file for one purpose can set, None for every one.
    """

    path: str
    optional: bool = False
    owners: tuple[int, ...] = (0,)
    only: frozenset[str] | None = None


def main_files() -> tuple[ConfigFile, ...]:
    """The node's files; the later wins per key."""
    return tuple(ConfigFile(path=path, optional=True) for path in MAIN_FILES)


def read_config_file(file: ConfigFile, problems: Problems) -> str | None:
    """The text of a file that is there and can be trusted; None and what is wrong otherwise."""
    try:
        # Not to hang on a FIFO that somebody put there.
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        if not file.optional:
            problems.error(f"{file.path}: no such file")
        return None
    except PermissionError:
        if file.optional and os.geteuid() != 0:
            problems.warn(f"{file.path} cannot be read by this user, defaults are used instead")
        else:
            problems.error(f"{file.path}: permission denied")
        return None
    except OSError as error:
        problems.error(f"{file.path}: {error.strerror}")
        return None
    try:
        why = _distrust(os.fstat(fd), file.owners)
        data = b"" if why else _read(fd)
    finally:
        os.close(fd)
    if why is None and len(data) > MAX_BYTES:
        why = f"longer than {MAX_BYTES} bytes"
    if why is None and b"\0" in data:
        why = "holds a NUL character"
    if why is not None:
        problems.error(f"{file.path}: {why}")
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        problems.error(f"{file.path}: not valid UTF-8")
        return None


def _read(fd: int) -> bytes:
    """The file's bytes, at most one more than allowed."""
    with open(fd, "rb", closefd=False) as stream:
        return stream.read(MAX_BYTES + 1)


def _distrust(status: os.stat_result, owners: tuple[int, ...]) -> str | None:
    """Why a file is not believed (R-CONF-5, D-15)."""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_uid not in owners:
        return f"owned by user {status.st_uid}; it must be owned by root: chown root FILE"
    if status.st_mode & stat.S_IWOTH:
        return "writable by everybody: chmod o-w FILE"
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        return f"writable by group {status.st_gid}: chmod g-w FILE"
    return None
