"""netifrc of Gentoo (R-NET-GE-1), as ``net.example`` of netifrc has it."""

from __future__ import annotations

import re
from typing import Final

from snf_image_helper import services
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.aside import is_ours, move_aside
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface

CONFIG: Final = "/etc/conf.d/net"
SCRIPTS: Final = "/etc/init.d"
RUN_LEVEL: Final = "/etc/runlevels/default"
_ETHERNET_SERVICE: Final = re.compile(r"net\.(?:eth[0-9]+|en[opsxX]\w+|nic[0-9]+)")


def configure(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Replace ``/etc/conf.d/net`` and start one ``net.<name>`` service per NIC."""
    if guest.root.lstat(CONFIG) is not None and not is_ours(guest, CONFIG):
        move_aside(guest, CONFIG)
    guest.root.mkdir("/etc/conf.d")
    guest.root.write(CONFIG, net_file(interfaces), mode=0o644)
    _remove_stale_services(guest, interfaces)
    if not guest.root.is_file(f"{SCRIPTS}/net.lo"):
        guest.warn("netifrc is not installed in the image: nothing reads /etc/conf.d/net")
        return
    for interface in interfaces:
        script = f"{SCRIPTS}/net.{interface.name}"
        if guest.root.lstat(script) is None:
            guest.root.symlink("net.lo", script)
        if guest.root.lstat(f"{RUN_LEVEL}/net.{interface.name}") is None:
            guest.root.mkdir(RUN_LEVEL)
            guest.root.symlink(script, f"{RUN_LEVEL}/net.{interface.name}")
    if services.openrc_enabled(guest.root, "dhcpcd"):
        guest.warn("service dhcpcd manages every interface as well: it may change what is configured here")


def net_file(interfaces: tuple[Interface, ...]) -> bytes:
    """The text of ``/etc/conf.d/net``, a shell file; its values hold nothing but addresses and names."""
    lines = [
        f'{key}_{interface.name}="{value}"'
        for interface in interfaces
        for key, value in _settings(interface).items()
    ]
    return "".join(f"{line}\n" for line in (MADE_BY, *lines)).encode("ascii")


def _settings(interface: Interface) -> dict[str, str]:
    nic = interface.nic
    addresses = [str(interface.static)] if interface.static is not None else []
    addresses += ["dhcp"] if nic.ipv4 == "dhcp" else []
    # The kernel takes an address by router advertisement on its own; stateless DHCPv6 adds the rest.
    addresses += ["dhcpv6"] if nic.ipv6 in ("dhcp", "slaac_dhcp") else []
    settings = {"config": " ".join(addresses) or "null"}
    if nic.ipv6 == "slaac_dhcp":
        settings["dhclientv6"] = "-S"
    if interface.gateway:
        # One route a line.
        direct = f"{interface.gateway}/32 scope link\n" if interface.on_link else ""
        settings["routes"] = f"{direct}default via {interface.gateway}"
    if interface.dns_servers:
        settings["dns_servers"] = " ".join(interface.dns_servers)
    if interface.dns_search:
        settings["dns_search"] = " ".join(interface.dns_search)
    return settings


def _remove_stale_services(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Services of NICs that this instance does not have would fail at each boot."""
    wanted = {f"net.{interface.name}" for interface in interfaces}
    for name in guest.root.list(RUN_LEVEL) if guest.root.is_dir(RUN_LEVEL) else []:
        if _ETHERNET_SERVICE.fullmatch(name) and name not in wanted:
            guest.root.remove(f"{RUN_LEVEL}/{name}")
