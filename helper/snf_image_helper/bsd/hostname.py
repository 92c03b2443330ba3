"""Task AssignHostname for the BSDs (R-TASK-HOST-6)."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper import edit
from snf_image_helper.guest import Guest
from snf_image_helper.linux.hostname import HOSTS, checked_name, hosts_file

RC_CONF: Final = "/etc/rc.conf"
RC_CONF_LOCAL: Final = "/etc/rc.conf.local"
MYNAME: Final = "/etc/myname"


def assign_hostname(guest: Guest) -> None:
    """Give the guest the name of its instance."""
    name = checked_name(guest)
    family = guest.family.name
    if family is not OsFamily.OPENBSD:
        old = guest.root.read_optional(RC_CONF)
        if family is OsFamily.FREEBSD or b"hostname" in edit.assignments(old or b""):
            guest.root.write(RC_CONF, edit.set_assignments(
                old or b"", {b"hostname": name.encode("ascii")}, quoted=True, path=RC_CONF
            ))  # fmt: skip
    if family is OsFamily.FREEBSD:
        remove_keys(guest, RC_CONF_LOCAL, {b"hostname"})
    else:
        guest.root.write(MYNAME, f"{name}\n".encode("ascii"), mode=0o644)
    hosts = guest.root.read_optional(HOSTS)
    if hosts is not None:
        guest.root.write(HOSTS, hosts_file(hosts, name, add=False))


def remove_keys(guest: Guest, path: str, keys: set[bytes]) -> None:
    """Remove the assignments of exactly these keys from a file that would count more than rc.conf."""
    data = guest.root.read_optional(path)
    if data is not None:
        guest.root.write(path, without_keys(data, keys))


def without_keys(data: bytes, keys: set[bytes]) -> bytes:
    """``data`` without its lines that assign exactly one of ``keys``."""
    lines = edit.Lines(data)
    for index in range(len(lines) - 1, -1, -1):
        if edit.key_of(lines[index]) in keys:
            lines.remove(index)
    return lines.data()
