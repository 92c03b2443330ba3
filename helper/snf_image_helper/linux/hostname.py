"""Task AssignHostname for Linux (R-TASK-HOST-1 to R-TASK-HOST-5)."""

from __future__ import annotations

import re
from typing import Final

from snf_image_helper import edit
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init
from snf_image_helper.linux.distribution import Distribution, LinuxFamily, identify

# \Z and not $: a newline at the end is no part of a name. The underscore: D-24.
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\Z")
_KERNEL_LIMIT: Final = 64
HOSTNAME: Final = "/etc/hostname"
OLD_HOSTNAME: Final = "/etc/HOSTNAME"
HOSTS: Final = "/etc/hosts"
_SYSCONFIG: Final = "/etc/sysconfig/network"
_CONF_D: Final = "/etc/conf.d/hostname"
_RC_CONF: Final = "/etc/rc.conf"
_NEW_HOSTS: Final = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def assign_hostname(guest: Guest) -> None:
    """Give the guest the name of its instance."""
    name = checked_name(guest)
    if guest.job.cloud_init:
        cloud_init.set_meta_data(guest, local_hostname=name)
        return
    system = identify(guest.root)
    if guest.root.exists(HOSTNAME):
        _write_name(guest, HOSTNAME, name)
    else:
        _write_by_family(guest, system, name)
    if guest.root.exists(OLD_HOSTNAME):
        _write_name(guest, OLD_HOSTNAME, name)
    _name_the_loopback_address(guest, system, name)


def checked_name(guest: Guest) -> str:
    """The name that was asked for; :class:`RequestError` if no host can have it (R-TASK-HOST-1)."""
    name = guest.job.assign_hostname.name
    if not _NAME.match(name):
        raise RequestError(
            f"hostname {name[:300]!r}: letters, digits, dots and hyphens, at most 254, "
            "beginning and ending with a letter or digit"
        )
    if "_" in name:
        guest.warn(f"hostname {name!r}: an underscore is not allowed in a DNS name")
    if len(name) > _KERNEL_LIMIT:
        guest.warn(f"hostname {name!r}: longer than the {_KERNEL_LIMIT} bytes that a Linux kernel takes")
    return name


def short_name(name: str) -> str:
    """The name up to its first dot."""
    return name.partition(".")[0]


def _write_name(guest: Guest, path: str, name: str) -> None:
    guest.root.write(path, f"{name}\n".encode("ascii"))


def _write_by_family(guest: Guest, system: Distribution, name: str) -> None:
    """An image without /etc/hostname keeps its name where its family does (R-TASK-HOST-3)."""
    family = system.family
    if family is LinuxFamily.REDHAT:
        _set_key(guest, _SYSCONFIG, "HOSTNAME", name)
    elif family in (LinuxFamily.SLACKWARE, LinuxFamily.SUSE):
        _write_name(guest, OLD_HOSTNAME, name)
    elif family is LinuxFamily.GENTOO:
        _set_key(guest, _CONF_D, "hostname", name, quoted=True)
    elif family is LinuxFamily.ARCH and guest.root.exists(_RC_CONF):
        _set_key(guest, _RC_CONF, "HOSTNAME", name, quoted=True)
    elif family is LinuxFamily.UNKNOWN and not system.systemd:
        raise ImageError(
            "the distribution is unknown, has no /etc/hostname and no systemd: "
            "where it keeps its hostname cannot be told"
        )
    else:
        _write_name(guest, HOSTNAME, name)
        return
    if system.systemd:
        # systemd looks nowhere else.
        _write_name(guest, HOSTNAME, name)


def _set_key(guest: Guest, path: str, key: str, value: str, *, quoted: bool = False) -> None:
    data = guest.root.read_optional(path)
    if data is None:
        guest.root.mkdir(path.rpartition("/")[0])
    values = {key.encode("ascii"): value.encode("ascii")}
    # Gentoo's files have the key in either case.
    new = edit.set_assignments(data or b"", values, quoted=quoted, any_case=quoted, path=path)
    guest.root.write(path, new)


def _name_the_loopback_address(guest: Guest, system: Distribution, name: str) -> None:
    """The line of 127.0.1.1, and no other, names this host (R-TASK-HOST-5)."""
    data = guest.root.read_optional(HOSTS)
    if data is None:
        if system.family is not LinuxFamily.DEBIAN:
            return
        data = _NEW_HOSTS
    guest.root.write(HOSTS, hosts_file(data, name, add=system.family is LinuxFamily.DEBIAN))


def hosts_file(data: bytes, name: str, *, add: bool) -> bytes:
    """``data`` with the line of 127.0.1.1 naming ``name``; ``add``: also if there is none.

    Of several such lines one remains. A comment stays behind it.
    """
    names = f"{name} {short_name(name)}" if "." in name else name
    line = f"127.0.1.1\t{names}".encode("ascii")
    lines = edit.Lines(data)
    ours = [index for index in range(len(lines)) if edit.fields(lines[index])[:1] == [b"127.0.1.1"]]
    for index in reversed(ours[1:]):
        lines.remove(index)
    if ours:
        _, mark, comment = lines[ours[0]].partition(b"#")
        lines.replace(ours[0], line + (b" " + mark + comment if mark else b""))
    elif add:
        after = [index for index in range(len(lines)) if edit.fields(lines[index])[:1] == [b"127.0.0.1"]]
        lines.insert(after[-1] + 1 if after else len(lines), line)
    return lines.data()
