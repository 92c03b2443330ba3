"""FreeBSD: ``/etc/rc.conf`` (R-NET-FB-1, R-NET-FB-2)."""

from __future__ import annotations

import time
from typing import Final

from snf_image_helper import edit
from snf_image_helper.bsd.hostname import RC_CONF, RC_CONF_LOCAL, remove_keys, without_keys
from snf_image_helper.bsd.network.names import interfaces
from snf_image_helper.bsd.release import version_of
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.interfaces import Interface
from snf_image_helper.linux.network.resolver import write_resolv_conf

_BACKUP: Final = f"{RC_CONF}.snf_image-"
_IPV6_BY_DEFAULT: Final = 9
_GATEWAY, _DEFAULT = "snf_gateway", "snf_default"


def configure_network(guest: Guest) -> None:
    """Set the keys of each NIC, and of the default route."""
    found = interfaces(guest)
    if not found:
        return
    old = guest.root.read_optional(RC_CONF) or b""
    values = _values(guest, found)
    keys = {key.encode("ascii"): value.encode("ascii") for key, value in values.items()}
    stale = {b"ifconfig_DEFAULT", b"ifconfig_DEFAULT_ipv6"}
    stale |= {f"ifconfig_{entry.name}_ipv6".encode("ascii") for entry in found} - keys.keys()
    if b"defaultrouter" not in keys and any(entry.nic.ipv4 == "static" for entry in found):
        stale.add(b"defaultrouter")
    new = edit.set_assignments(without_keys(old, stale), keys, quoted=True, path=RC_CONF)
    if new != old:
        _back_up(guest, old)
    guest.root.write(RC_CONF, new)
    remove_keys(guest, RC_CONF_LOCAL, keys.keys() | stale)
    write_resolv_conf(guest, found)


def _values(guest: Guest, found: tuple[Interface, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for entry in found:
        values[f"ifconfig_{entry.name}"] = _ipv4(entry)
        if entry.nic.ipv6 != "none":
            values[f"ifconfig_{entry.name}_ipv6"] = "inet6 accept_rtadv"
            values["rtsold_enable"] = "YES"
        if entry.gateway and entry.on_link:
            values |= {
                "static_routes": f"{_GATEWAY} {_DEFAULT}",
                f"route_{_GATEWAY}": f"-host {entry.gateway} -iface {entry.name}",
                f"route_{_DEFAULT}": f"default {entry.gateway}",
            }
        elif entry.gateway:
            values["defaultrouter"] = entry.gateway
    if "rtsold_enable" in values and version_of(guest)[0] < _IPV6_BY_DEFAULT:
        values["ipv6_enable"] = "YES"
    stateful = list(dict.fromkeys(entry.name for entry in found if entry.nic.ipv6 in ("dhcp", "slaac_dhcp")))
    if stateful:
        values |= {"dhcp6c_enable": "YES", "dhcp6c_interfaces": " ".join(stateful)}
        guest.warn("DHCPv6 on FreeBSD needs the port net/dhcp6 in the image")
    return values


def _ipv4(entry: Interface) -> str:
    if entry.static is not None:
        return f"inet {entry.static.ip} netmask {entry.static.netmask}"
    return "DHCP" if entry.nic.ipv4 == "dhcp" else "up"


def _back_up(guest: Guest, old: bytes) -> None:
    """One copy of the image's own file, of the first deployment only."""
    directory, _, name = _BACKUP.rpartition("/")
    if old and not any(entry.startswith(name) for entry in guest.root.list(directory)):
        when = time.strftime("%Y%m%d%H%M%S", time.gmtime(guest.job.clock))
        guest.root.write(f"{_BACKUP}{when}", old, mode=0o644)
