"""netplan (R-NET-NP-1, R-NET-NP-2)."""

from __future__ import annotations

from typing import Final

from snf_image_helper import services
from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.linux import yaml_text
from snf_image_helper.linux.network import networkd
from snf_image_helper.linux.network.aside import move_aside
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface

DIRECTORY: Final = "/etc/netplan"
FILE: Final = f"{DIRECTORY}/90-snf-image.yaml"
_DIRECTORIES: Final = (DIRECTORY, "/usr/lib/netplan", "/lib/netplan")
_RENDERERS: Final = ("networkd", "NetworkManager")
_SERVICES: Final = {"networkd": networkd.SERVICE, "NetworkManager": "NetworkManager.service"}


def configure(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Write one file for all NICs, in place of those that are there."""
    renderer = current_renderer(guest)
    move_rivals(guest)
    if renderer == "networkd":
        networkd.move_rivals(guest, interfaces)
    guest.root.mkdir(DIRECTORY)
    guest.root.write(FILE, netplan_file(interfaces, renderer).encode("ascii"), mode=0o600, force=True)
    service = _SERVICES[renderer]
    if not services.is_enabled(guest.root, service) and not services.enable(guest.root, service):
        guest.warn(f"netplan's renderer {renderer} is not installed in the image")


def netplan_file(interfaces: tuple[Interface, ...], renderer: str) -> str:
    """The YAML text."""
    network: dict[str, object] = {"version": 2, "renderer": renderer}
    if interfaces:
        network["ethernets"] = {interface.label: ethernet(interface) for interface in interfaces}
    return f"{MADE_BY}\n{yaml_text.dump({'network': network})}"


def ethernet(interface: Interface) -> dict[str, object]:
    """One NIC in netplan's words, which version 2 of cloud-init's format shares."""
    nic = interface.nic
    result: dict[str, object] = {"match": {"macaddress": interface.mac}}
    if nic.ipv4 == "dhcp":
        result["dhcp4"] = True
    if interface.static is not None:
        result["addresses"] = [str(interface.static)]
        if interface.gateway:
            on_link = {"on-link": True} if interface.on_link else {}
            # Netplan before 0.103 has no word "default".
            result["routes"] = [{"to": "0.0.0.0/0", "via": interface.gateway, **on_link}]
        servers = {"addresses": list(interface.dns_servers), "search": list(interface.dns_search)}
        if any(servers.values()):
            result["nameservers"] = {key: value for key, value in servers.items() if value}
    return result | _IPV6[nic.ipv6]


_IPV6: Final[dict[str, dict[str, object]]] = {
    "none": {"accept-ra": False, "link-local": []},
    "dhcp": {"dhcp6": True},
    "slaac": {"accept-ra": True, "dhcp6": False},
    "slaac_dhcp": {"accept-ra": True},
}


def current_renderer(guest: Guest) -> str:
    """The renderer that the image's files ask for; a later file wins, as netplan merges them."""
    chosen: dict[str, str] = {}
    for directory in reversed(_DIRECTORIES):
        for name in guest.root.list(directory) if guest.root.is_dir(directory) else []:
            if name.endswith(".yaml"):
                renderer = _network(guest, f"{directory}/{name}").get("renderer")
                if renderer in _RENDERERS:
                    chosen[name] = str(renderer)
    return chosen[max(chosen)] if chosen else "networkd"


def _network(guest: Guest, path: str) -> dict[str, object]:
    """What a file says below ``network``; nothing if it cannot be read as netplan's."""
    if not guest.root.is_file(path):
        return {}
    try:
        network = yaml_text.load_mapping(guest.root.read(path), path).get("network")
    except ImageError:
        return {}
    if not isinstance(network, dict) or not all(isinstance(key, str) for key in network):
        return {}
    return network


def move_rivals(guest: Guest) -> None:
    """Move aside files that configure Ethernet, or that nobody can read; wifi and bridges stay."""
    for name in guest.root.list(DIRECTORY) if guest.root.is_dir(DIRECTORY) else []:
        path = f"{DIRECTORY}/{name}"
        if not name.endswith(".yaml") or path == FILE:
            continue
        network = _network(guest, path)
        others = sorted(key for key in network if key not in ("version", "renderer", "ethernets"))
        if "ethernets" not in network and others:
            continue
        moved = move_aside(guest, path)
        if others:
            guest.warn(f"{path}: moved to {moved} with its {', '.join(others)}")
