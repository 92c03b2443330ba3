"""NetBSD: ``/etc/ifconfig.if`` and ``/etc/rc.conf`` (R-NET-NB-1)."""

from __future__ import annotations

from typing import Final

from snf_image_helper import edit
from snf_image_helper.bsd.hostname import RC_CONF, without_keys
from snf_image_helper.bsd.network.names import interfaces
from snf_image_helper.bsd.release import version_of
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface
from snf_image_helper.linux.network.resolver import write_resolv_conf

_RTSOL_GONE: Final = (8, 0)
_DHCPCD: Final = "/sbin/dhcpcd"


def configure_network(guest: Guest) -> None:
    """Write one file for each NIC, and the default route."""
    found = interfaces(guest)
    if not found:
        return
    release = version_of(guest)
    dhcpcd = guest.root.is_file(_DHCPCD)
    values: dict[bytes, bytes] = {}
    for entry in found:
        lines = (MADE_BY, "up", *_ipv4(entry, dhcpcd=dhcpcd), *_ipv6(guest, entry, release, dhcpcd=dhcpcd))
        text = "".join(f"{line}\n" for line in lines)
        guest.root.write(f"/etc/ifconfig.{entry.name}", text.encode("ascii"), mode=0o644, force=True)
        if entry.gateway and not entry.on_link:
            values[b"defaultroute"] = entry.gateway.encode("ascii")
        if entry.nic.ipv6 != "none" and release < _RTSOL_GONE:
            values[b"ip6mode"] = b"autohost"
    _write_rc_conf(guest, found, values)
    write_resolv_conf(guest, found)


def _write_rc_conf(guest: Guest, found: tuple[Interface, ...], values: dict[bytes, bytes]) -> None:
    data = guest.root.read_optional(RC_CONF) or b""
    if b"defaultroute" not in values and any(entry.static is not None for entry in found):
        data = without_keys(data, {b"defaultroute"})
    if data or values:
        guest.root.write(RC_CONF, edit.set_assignments(data, values, quoted=True, path=RC_CONF))


def _ipv4(entry: Interface, *, dhcpcd: bool) -> list[str]:
    if entry.static is not None:
        lines = [f"inet {entry.static.ip} netmask {entry.static.netmask}"]
        if entry.gateway and entry.on_link:
            lines += [
                f"!route add -host {entry.gateway} -interface {entry.static.ip}",
                f"!route add default {entry.gateway}",
            ]
        return lines
    if entry.nic.ipv4 != "dhcp":
        return []
    if not dhcpcd:
        return ["!dhclient $int"]
    # One daemon serves both families.
    return ["!dhcpcd $int" if entry.nic.ipv6 != "none" else "!dhcpcd -4 $int"]


def _ipv6(guest: Guest, entry: Interface, release: tuple[int, int], *, dhcpcd: bool) -> list[str]:
    if entry.nic.ipv6 == "none":
        return []
    if entry.nic.ipv6 == "dhcp" and not dhcpcd:
        guest.warn(f"{entry.name}: this NetBSD has no dhcpcd, so that stateful DHCPv6 is not configured")
    if release < _RTSOL_GONE:
        return ["!rtsol $int"]
    if not dhcpcd:
        guest.warn(f"{entry.name}: this NetBSD has neither rtsol nor dhcpcd: IPv6 is not configured")
        return []
    return [] if entry.nic.ipv4 == "dhcp" else ["!dhcpcd -6 $int"]
