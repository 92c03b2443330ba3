"""``/etc/resolv.conf``, for back-ends that do not write it themselves at boot (R-NET-6)."""

from __future__ import annotations

import stat
from typing import Final

from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface

RESOLV_CONF: Final = "/etc/resolv.conf"
_RESOLVCONF: Final = ("/sbin/resolvconf", "/usr/sbin/resolvconf", "/usr/bin/resolvconf")


def write_resolv_conf(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Write the name servers of static NICs, unless a program of the image keeps that file.

    A link belongs to a resolver daemon and stays; resolvconf takes the servers from elsewhere.
    """
    servers = list(dict.fromkeys(server for interface in interfaces for server in interface.dns_servers))
    search = list(dict.fromkeys(name for interface in interfaces for name in interface.dns_search))
    status = guest.root.lstat(RESOLV_CONF)
    if not servers and not search:
        return
    if any(guest.root.is_executable(path) for path in _RESOLVCONF):
        return
    if status is not None and stat.S_ISLNK(status.st_mode):
        guest.warn(f"{RESOLV_CONF} is a link: name servers are left to the program that keeps it")
        return
    lines = [
        MADE_BY,
        *(["search " + " ".join(search)] if search else []),
        *(f"nameserver {s}" for s in servers),
    ]
    guest.root.write(RESOLV_CONF, ("\n".join(lines) + "\n").encode("ascii"), mode=0o644)
