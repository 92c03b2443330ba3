"""Configuration that would compete with ours is moved aside, never deleted (R-NET-10)."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Container
from typing import Final

from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.interfaces import MADE_BY

PLACE: Final = "/etc/snf-image/moved-aside"
"""Where files go from directories in which the service reads files of any name."""
_MAX_COPIES: Final = 1000


def move_aside(guest: Guest, path: str, *, elsewhere: bool = False) -> str:
    """Rename ``path`` (a link itself) to ``<path>.snf-image-<n>`` and return that name.

    ``elsewhere``: below :data:`PLACE`, because the service would read the renamed file too.
    """
    base = f"{PLACE}{path}" if elsewhere else path
    guest.root.mkdir(posixpath.dirname(base))
    for number in range(1, _MAX_COPIES):
        new = f"{base}.snf-image-{number}"
        if guest.root.lstat(new) is None:
            guest.root.rename(path, new)
            return new
    raise ImageError(f"{path}: {_MAX_COPIES} older copies lie beside it")


def is_ours(guest: Guest, path: str) -> bool:
    """Whether an earlier deployment wrote this file: then it is replaced, not kept."""
    status = guest.root.lstat(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return False
    return guest.root.read(path).startswith(MADE_BY.encode("ascii"))


def remove_leftovers(guest: Guest, directory: str, pattern: str, *, keep: Container[str]) -> None:
    """Remove our files of an earlier deployment with more NICs: those like ``pattern``, not in ``keep``."""
    for name in guest.root.list(directory) if guest.root.is_dir(directory) else []:
        if re.fullmatch(pattern, name) and name not in keep and is_ours(guest, f"{directory}/{name}"):
            guest.root.remove(f"{directory}/{name}")
