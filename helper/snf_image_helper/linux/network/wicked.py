"""wicked of SUSE up to 15 (R-NET-WI-1), as its ifcfg(5), ifcfg-dhcp(5) and ifroute(5) have it.

BOOTPROTO starts clients: ``dhcp`` both, ``dhcp4`` and ``dhcp6`` one; fixed addresses may stand beside any of
them. ``static`` does not keep the kernel from taking an IPv6 address by router advertisement, so that SLAAC
beside IPv4 needs no word; alone it is ``auto6``. DHCLIENT6_MODE says what the DHCPv6 client asks for:
``managed`` an address, ``info`` everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from snf_image_helper import services
from snf_image_helper.edit import Lines, assignments, fields, set_assignments
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.aside import is_ours, move_aside, remove_leftovers
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface

DIRECTORY: Final = "/etc/sysconfig/network"
CONFIG: Final = f"{DIRECTORY}/config"
ROUTES: Final = f"{DIRECTORY}/routes"
_OUR_FILES: Final = r"(?:ifcfg|ifroute)-(?:nic|eth)[0-9]+"
_ETHERNET_FILE: Final = re.compile(r"ifcfg-(?:eth[0-9]+|en[opsxX]\w+|nic[0-9]+)")
_BACKUPS: Final = (".old", ".bak", ".orig", ".scpmbackup", ".rpmnew", ".rpmsave", ".rpmorig", "~")
_VIRTUAL: Final = {b"BRIDGE", b"BONDING_MASTER", b"ETHERDEVICE", b"WIRELESS", b"TUNNEL", b"TEAM_RUNNER"}

_PROTOCOLS: Final = {
    ("none", "none"): "static",
    ("none", "dhcp"): "dhcp6",
    ("none", "slaac"): "auto6",
    ("none", "slaac_dhcp"): "dhcp6",
    ("static", "none"): "static",
    ("static", "dhcp"): "dhcp6",
    ("static", "slaac"): "static",
    ("static", "slaac_dhcp"): "dhcp6",
    ("dhcp", "none"): "dhcp4",
    ("dhcp", "dhcp"): "dhcp",
    ("dhcp", "slaac"): "dhcp4",
    ("dhcp", "slaac_dhcp"): "dhcp",
}


def configure(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Write one file per NIC, its default route, and the static name servers."""
    move_rivals(guest)
    wanted: dict[str, str] = {}
    for interface in interfaces:
        wanted[f"ifcfg-{interface.name}"] = ifcfg_file(interface)
        if interface.gateway:
            wanted[f"ifroute-{interface.name}"] = ifroute_file(interface)
    remove_leftovers(guest, DIRECTORY, _OUR_FILES, keep=wanted)
    guest.root.mkdir(DIRECTORY)
    for name, text in wanted.items():
        guest.root.write(f"{DIRECTORY}/{name}", text.encode("ascii"), mode=0o644, force=True)
    _write_name_servers(guest, interfaces)
    if not services.is_enabled(guest.root, "wicked.service") and not services.enable(
        guest.root, "wicked.service"
    ):
        guest.warn("wicked is not installed in the image: nothing reads its configuration")


def ifcfg_file(interface: Interface) -> str:
    return "".join(f"{line}\n" for line in _lines(interface))


def _lines(interface: Interface) -> Iterator[str]:
    nic = interface.nic
    yield MADE_BY
    yield "STARTMODE='auto'"
    yield f"BOOTPROTO='{_PROTOCOLS[nic.ipv4, nic.ipv6]}'"
    if interface.static is not None:
        yield f"IPADDR='{interface.static}'"
    mode = {"dhcp": "managed", "slaac_dhcp": "info"}.get(nic.ipv6)
    if mode:
        yield f"DHCLIENT6_MODE='{mode}'"


def ifroute_file(interface: Interface) -> str:
    """The default route, after a route to the gateway itself if that lies outside the subnet."""
    direct = f"{interface.gateway}/32 - - {interface.name}\n" if interface.on_link else ""
    return f"{MADE_BY}\n{direct}default {interface.gateway} - {interface.name}\n"


def _write_name_servers(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    servers = dict.fromkeys(server for interface in interfaces for server in interface.dns_servers)
    search = dict.fromkeys(name for interface in interfaces for name in interface.dns_search)
    values = {
        b"NETCONFIG_DNS_STATIC_SERVERS": " ".join(servers).encode("ascii"),
        b"NETCONFIG_DNS_STATIC_SEARCHLIST": " ".join(search).encode("ascii"),
    }
    values = {key: value for key, value in values.items() if value}
    if values:
        data = guest.root.read_optional(CONFIG) or b""
        guest.root.write(CONFIG, set_assignments(data, values, quoted=True, path=CONFIG), mode=0o644)


def move_rivals(guest: Guest) -> None:
    """Move aside files of Ethernet NICs, and default routes that would hold for any."""
    for name in guest.root.list(DIRECTORY) if guest.root.is_dir(DIRECTORY) else []:
        path = f"{DIRECTORY}/{name}"
        if not _ETHERNET_FILE.fullmatch(name) or name.endswith(_BACKUPS) or is_ours(guest, path):
            continue
        if not guest.root.is_file(path) or assignments(guest.root.read(path)).keys() & _VIRTUAL:
            continue
        for kind in ("ifcfg-", "ifroute-"):
            other = f"{DIRECTORY}/{kind}{name.removeprefix('ifcfg-')}"
            if guest.root.lstat(other) is not None:
                move_aside(guest, other, elsewhere=True)
    if guest.root.is_file(ROUTES):
        lines = Lines(guest.root.read(ROUTES), ROUTES)
        if any(fields(line)[:1] == [b"default"] for line in lines):
            move_aside(guest, ROUTES)
