"""Which release of a BSD an image holds, read as text (R-DISTRO-3)."""

from __future__ import annotations

import re
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper import edit
from snf_image_helper.guest import Guest
from snf_image_helper.root import Root

NEWEST: Final = (99, 0)
"""Of a release that cannot be told: the newest rules that are known."""
_LARGEST_PROGRAM: Final = 1024 * 1024
_ASSIGNMENT: Final = re.compile(rb'^USERLAND_VERSION="?([0-9]+)\.([0-9]+)', re.MULTILINE)
_NUMBERS: Final = re.compile(rb"([0-9]{1,3})\.([0-9]{1,3})")
_KEY: Final = re.compile(r"openbsd-([0-9]{2,3})-base\.pub")


def version(root: Root, family: OsFamily) -> tuple[int, int] | None:
    """Major and minor number of the release; None if nothing tells."""
    return {OsFamily.FREEBSD: _freebsd, OsFamily.NETBSD: _netbsd, OsFamily.OPENBSD: _openbsd}[family](root)


def version_of(guest: Guest) -> tuple[int, int]:
    """The release whose rules apply: of an unknown one the newest, with a warning."""
    found = version(guest.root, guest.family.name)
    if found is None:
        guest.warn(f"the release of {guest.family.name} cannot be told; it is treated as the newest")
        return NEWEST
    return found


def _freebsd(root: Root) -> tuple[int, int] | None:
    for path in ("/etc/os-release", "/var/run/os-release"):
        value = edit.assignments(root.read_optional(path) or b"").get(b"VERSION_ID", b"")
        if match := _NUMBERS.match(value):
            return int(match[1]), int(match[2])
    if root.is_file("/bin/freebsd-version"):
        match = _ASSIGNMENT.search(root.read_head("/bin/freebsd-version", _LARGEST_PROGRAM))
        if match:
            return int(match[1]), int(match[2])
    return None


def _netbsd(root: Root) -> tuple[int, int] | None:
    match = _NUMBERS.search(root.read_optional("/etc/release") or b"")
    return (int(match[1]), int(match[2])) if match else None


def _openbsd(root: Root) -> tuple[int, int] | None:
    names = root.list("/etc/signify") if root.is_dir("/etc/signify") else []
    found = [match[1] for match in map(_KEY.fullmatch, names) if match]
    if found:
        # The newest key is of the release after the installed one only until that is out; 76 is 7.6.
        return max((int(digits[:-1]), int(digits[-1])) for digits in found)
    match = re.search(rb"OpenBSD ([0-9]+)\.([0-9]+)", root.read_optional("/etc/motd") or b"")
    return (int(match[1]), int(match[2])) if match else None
