"""Which cloud-init an image has, read from package data and files, never asked of the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.root import Root

_DPKG_STATUS: Final = "/var/lib/dpkg/status"
_MAX_DPKG_STATUS: Final = 64 * 1024 * 1024
_LIBRARIES: Final = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
# version.py of 17.x and later, and of 0.7.x.
_ASSIGNED: Final = re.compile(
    rb"""^(?:__VERSION__\s*=\s*|\s*return vr\.StrictVersion\()["']([0-9]+(?:\.[0-9]+)*)""", re.MULTILINE
)
_METADATA: Final = re.compile(r"cloud[-_]init-([0-9]+(?:\.[0-9]+)*)[^/]*\.(?:dist-info|egg-info)")


def version(guest: Guest) -> tuple[int, ...] | None:
    """The image's cloud-init, for example ``(22, 4, 2)``; None if it cannot be told (R-TASK-PW-7)."""
    try:
        return _from_dpkg(guest.root) or _from_python(guest.root)
    except ImageError as error:
        # Package data of a hostile image: then the oldest form of everything is right.
        guest.warn(f"version of cloud-init not found: {error}")
        return None


def _numbers(text: str) -> tuple[int, ...] | None:
    """The leading numbers of a Debian or upstream version, an epoch left out."""
    match = re.match(r"(?:[0-9]+:)?([0-9]{1,9}(?:\.[0-9]{1,9}){0,4})", text)
    return tuple(int(part) for part in match[1].split(".")) if match else None


def _from_dpkg(root: Root) -> tuple[int, ...] | None:
    status = root.read_optional(_DPKG_STATUS, _MAX_DPKG_STATUS) or b""
    for paragraph in status.split(b"\n\n"):
        fields = paragraph.strip(b"\n").split(b"\n")
        if b"Package: cloud-init" not in fields or b"Status: install ok installed" not in fields:
            continue
        for field in fields:
            if field.startswith(b"Version:"):
                return _numbers(field.partition(b":")[2].strip().decode("ascii", "replace"))
    return None


def _from_python(root: Root) -> tuple[int, ...] | None:
    for directory in _package_directories(root):
        data = root.read_optional(f"{directory}/cloudinit/version.py") or b""
        if match := _ASSIGNED.search(data):
            return _numbers(match[1].decode("ascii"))
        for name in root.list(directory) if root.is_dir(directory) else []:
            if found := _METADATA.fullmatch(name):
                return _numbers(found[1])
    return None


def _package_directories(root: Root) -> Iterator[str]:
    for library in _LIBRARIES:
        for name in root.list(library) if root.is_dir(library) else []:
            if re.fullmatch(r"python[0-9.]*", name):
                yield f"{library}/{name}/site-packages"
                yield f"{library}/{name}/dist-packages"
