"""OpenBSD: ``/etc/hostname.if`` and ``/etc/mygate`` (R-NET-OB-1)."""

from __future__ import annotations

from typing import Final

from snf_image_helper import edit
from snf_image_helper.bsd.network.names import interfaces
from snf_image_helper.bsd.release import version_of
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface
from snf_image_helper.linux.network.resolver import write_resolv_conf

MYGATE: Final = "/etc/mygate"
SYSCTL: Final = "/etc/sysctl.conf"
_AUTOCONF_IPV4: Final = (6, 9)
"""The first release with dhcpleased, and with addresses called temporary."""
_AUTOCONF_IPV6: Final = (5, 6)
_ACCEPT_ROUTERS: Final = b"net.inet6.ip6.accept_rtadv"


def configure_network(guest: Guest) -> None:
    """Write one file for each NIC, and the gateway."""
    found = interfaces(guest)
    if not found:
        return
    release = version_of(guest)
    for entry in found:
        text = "".join(f"{line}\n" for line in (MADE_BY, *_lines(guest, entry, release)))
        guest.root.write(f"/etc/hostname.{entry.name}", text.encode("ascii"), mode=0o640, force=True)
    _write_gateway(guest, found)
    if release < _AUTOCONF_IPV6 and any(entry.nic.ipv6 != "none" for entry in found):
        _accept_routers(guest)
    write_resolv_conf(guest, found)


def _lines(guest: Guest, entry: Interface, release: tuple[int, int]) -> list[str]:
    """The lines of hostname.if(5)."""
    lines = []
    if entry.static is not None:
        lines.append(f"inet {entry.static.ip} {entry.static.netmask}")
    elif entry.nic.ipv4 == "dhcp":
        lines.append("inet autoconf" if release >= _AUTOCONF_IPV4 else "dhcp")
    if entry.nic.ipv6 != "none":
        lines.append(_ipv6(release))
    if entry.nic.ipv6 in ("dhcp", "slaac_dhcp"):
        guest.warn(f"{entry.name}: OpenBSD has no DHCPv6 client, only router advertisements are configured")
    if entry.gateway and entry.on_link:
        lines += [
            f"!route -qn add -host {entry.gateway} -iface {entry.static.ip if entry.static else ''}",
            f"!route -qn add default {entry.gateway}",
        ]
    return [*lines, "up"]


def _ipv6(release: tuple[int, int]) -> str:
    if release >= _AUTOCONF_IPV4:
        return "inet6 autoconf -temporary"
    return "inet6 autoconf -autoconfprivacy" if release >= _AUTOCONF_IPV6 else "rtsol"


def _write_gateway(guest: Guest, found: tuple[Interface, ...]) -> None:
    """The line of IPv4 is replaced, one of IPv6 kept (T-120)."""
    gateway = next((entry.gateway for entry in found if entry.gateway and not entry.on_link), None)
    old = guest.root.read_optional(MYGATE)
    if old is None and gateway is None:
        return
    lines = edit.Lines(old or b"")
    for index in range(len(lines) - 1, -1, -1):
        words = edit.fields(lines[index])
        if words and b":" not in words[0]:
            lines.remove(index)
    if gateway is not None:
        lines.insert(0, gateway.encode("ascii"))
    guest.root.write(MYGATE, lines.data(), mode=0o644)


def _accept_routers(guest: Guest) -> None:
    lines = edit.Lines(guest.root.read_optional(SYSCTL) or b"", SYSCTL)
    for index in range(len(lines) - 1, -1, -1):
        if edit.fields(lines[index].replace(b"=", b" ", 1))[:1] == [_ACCEPT_ROUTERS]:
            lines.remove(index)
    lines.append(_ACCEPT_ROUTERS + b"=1")
    guest.root.write(SYSCTL, lines.data(), mode=0o644)
