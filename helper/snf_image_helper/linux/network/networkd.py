"""systemd-networkd (R-NET-ND-1), as systemd.network(5) of systemd 244 and later has it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Final

from snf_image_helper import services
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.aside import is_ours, move_aside, remove_leftovers
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface
from snf_image_helper.linux.network.keyfile import Sections, parse

DIRECTORY: Final = "/etc/systemd/network"
SERVICE: Final = "systemd-networkd.service"
RESOLVER: Final = "systemd-resolved.service"
_OUR_FILES: Final = r"05-snf-nic[0-9]+\.network"
_ETHERNET_NAMES: Final = ("eth0", "eth1", "ens3", "ens18", "enp1s0", "eno1", "enx525400123456", "enX0")


def configure(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Write one ``.network`` file per NIC and have networkd, and resolved if it is there, start at boot."""
    move_rivals(guest, interfaces)
    wanted = {_file_name(interface): network_file(interface) for interface in interfaces}
    _write(guest, wanted)
    if not services.is_enabled(guest.root, SERVICE) and not services.enable(guest.root, SERVICE):
        guest.warn("systemd-networkd is not installed in the image: nothing reads its configuration")
    services.enable(guest.root, RESOLVER)


def ignore(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Tell networkd that another service manages the NICs (R-NET-15)."""
    wanted = {
        _file_name(interface): f"{MADE_BY}: another service manages this interface\n"
        f"[Match]\nMACAddress={interface.mac}\n\n[Link]\nUnmanaged=yes\n"
        for interface in interfaces
    }
    _write(guest, wanted)


def _file_name(interface: Interface) -> str:
    return f"05-snf-{interface.label}.network"


def _write(guest: Guest, wanted: dict[str, str]) -> None:
    remove_leftovers(guest, DIRECTORY, _OUR_FILES, keep=wanted)
    guest.root.mkdir(DIRECTORY)
    for name, text in wanted.items():
        guest.root.write(f"{DIRECTORY}/{name}", text.encode("ascii"), mode=0o644)


def network_file(interface: Interface) -> str:
    """The ``.network`` file of one NIC."""
    sections = [
        ["[Match]", f"MACAddress={interface.mac}"],
        ["[Link]", "RequiredForOnline=no"] if interface.unconfigured else [],
        ["[Network]", *_network_section(interface)],
        ["[Route]", f"Gateway={interface.gateway}", "GatewayOnLink=yes"] if interface.on_link else [],
        _router_advertisements(interface),
    ]
    return MADE_BY + "\n" + "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _network_section(interface: Interface) -> Iterator[str]:
    nic = interface.nic
    families = (nic.ipv4 == "dhcp", nic.ipv6 == "dhcp")
    if any(families):
        yield "DHCP=" + {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6"}[families]
    if interface.static is not None:
        yield f"Address={interface.static}"
        if interface.gateway and not interface.on_link:
            yield f"Gateway={interface.gateway}"
        yield from (f"DNS={server}" for server in interface.dns_servers)
        if interface.dns_search:
            yield "Domains=" + " ".join(interface.dns_search)
    if nic.ipv6 == "none":
        yield "IPv6AcceptRA=no"
        yield "LinkLocalAddressing=no"
    else:
        yield "IPv6AcceptRA=yes"
        yield "IPv6PrivacyExtensions=no"


def _router_advertisements(interface: Interface) -> list[str]:
    # slaac_dhcp is the default: the router's flags say whether DHCPv6 is asked for anything.
    choice = {"dhcp": "always", "slaac": "no"}.get(interface.nic.ipv6)
    return ["[IPv6AcceptRA]", f"DHCPv6Client={choice}"] if choice else []


def move_rivals(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Move aside ``.network`` files that match our NICs and are not ours (R-NET-10)."""
    for name in guest.root.list(DIRECTORY) if guest.root.is_dir(DIRECTORY) else []:
        path = f"{DIRECTORY}/{name}"
        if not name.endswith(".network") or not guest.root.is_file(path) or is_ours(guest, path):
            continue
        if _matches(parse(guest.root.read(path)), interfaces):
            move_aside(guest, path)


def _matches(sections: Sections, interfaces: tuple[Interface, ...]) -> bool:
    match = sections.get("Match", {})
    macs = match.get("MACAddress") or match.get("PermanentMACAddress")
    if macs:
        return any(interface.mac in macs.lower().replace("-", ":").split() for interface in interfaces)
    if "Kind" in match:  # bridges, tunnels and their like
        return False
    kinds = match.get("Type", "ether").split()
    if "ether" not in kinds:
        return False
    names = [*_ETHERNET_NAMES, *(interface.name for interface in interfaces)]
    patterns = match.get("Name", "*").split()
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
