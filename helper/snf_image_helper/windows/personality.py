"""Task EnforcePersonality for Windows: injected files (R-TASK-PER-1, R-TASK-PER-3)."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
import time
from typing import Final

from snf_image_contract.job import PersonalityFile
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest

_DRIVE: Final = re.compile(r"[Cc]:")
_FORBIDDEN: Final = re.compile(r'[<>:"|?*\x00-\x1f]')
_RESERVED: Final = re.compile(r"(CON|PRN|AUX|NUL|COM[1-9]|LPT[1-9])(\..*)?", re.IGNORECASE)
_MODE: Final = 0o644
"""Readable by whom the directory says: owner, group and mode of the request are not for Windows."""


def enforce_personality(guest: Guest) -> None:
    """Put every file where it belongs, in the order given; all are checked before the first is written."""
    files = guest.job.enforce_personality.files
    if not files:
        guest.warn("no personality given: no file is injected")
        return
    entries = [(guest_path(file.path), _decoded(file)) for file in files]
    suffix = time.strftime(".bak.%Y%m%d.%H%M%S", time.gmtime(guest.job.clock))
    for path, data in entries:
        try:
            _put(guest, path, data, suffix)
        except ImageError as error:
            raise ImageError(f"personality: {error}") from None


def guest_path(path: str) -> str:
    r"""The door's name of a file: ``C:\Temp\x`` and ``/Temp/x`` are both ``/Temp/x``."""
    parts = [part for part in _DRIVE.sub("", path, count=1).replace("\\", "/").split("/") if part]
    for part in parts:
        if _FORBIDDEN.search(part) or _RESERVED.fullmatch(part) or part[-1] in " .":
            raise RequestError(f"personality: {path!r} is not a path that Windows can have")
    if not parts:
        raise RequestError(f"personality: {path!r} names no file")
    return "/" + "/".join(parts)


def _decoded(file: PersonalityFile) -> bytes:
    try:
        return base64.b64decode("".join(file.contents.reveal().split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"personality: {file.path}: contents are not valid base64") from None


def _put(guest: Guest, path: str, data: bytes, suffix: str) -> None:
    root = guest.root
    root.mkdir(posixpath.dirname(path))
    if root.lstat(path) is not None:
        if not root.is_file(path):
            raise ImageError(f"{path}: is not a file")
        root.rename(path, path + suffix)
    root.write(path, data, mode=_MODE)
