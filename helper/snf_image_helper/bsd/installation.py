"""What an installed BSD says of itself, read as text and without a change (D-28)."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper import edit
from snf_image_helper.bsd.hostname import MYNAME, RC_CONF, RC_CONF_LOCAL
from snf_image_helper.bsd.password import MASTER
from snf_image_helper.bsd.release import version
from snf_image_helper.root import Root

_FIELDS: Final = 10
_TITLES: Final = {OsFamily.FREEBSD: "FreeBSD", OsFamily.NETBSD: "NetBSD", OsFamily.OPENBSD: "OpenBSD"}


def release(root: Root, family: OsFamily) -> str:
    """The release as ``14.1``, empty if it cannot be told (R-DISTRO-3)."""
    found = version(root, family)
    return f"{found[0]}.{found[1]}" if found else ""


def title(root: Root, family: OsFamily) -> str:
    """System and release, for people."""
    return f"{_TITLES[family]} {release(root, family)}".strip()


def hostname(root: Root, family: OsFamily) -> bytes:
    """The name that the system would take at its start, empty if it has none (R-TASK-HOST-6)."""
    if family is not OsFamily.OPENBSD:
        files = (RC_CONF, RC_CONF_LOCAL) if family is OsFamily.FREEBSD else (RC_CONF,)
        name = b""
        for path in files:
            name = edit.assignments(root.read_optional(path) or b"").get(b"hostname", name)
        if name or family is OsFamily.FREEBSD:
            return name
    return (root.read_optional(MYNAME) or b"").partition(b"\n")[0].strip()


def shells(root: Root) -> list[tuple[bytes, bytes]]:
    """Name and shell of every account that can have a password."""
    found = []
    for line in (root.read_optional(MASTER) or b"").split(b"\n"):
        fields = line.split(b":")
        if len(fields) == _FIELDS:
            found.append((fields[0], fields[-1].strip()))
    return found
