"""ifupdown: ``/etc/network/interfaces`` of Debian and Alpine (R-NET-IFUP-1, R-NET-IFUP-2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from snf_image_helper import services
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.aside import is_ours, move_aside
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface
from snf_image_helper.linux.network.resolver import write_resolv_conf

INTERFACES: Final = "/etc/network/interfaces"
INCLUDED: Final = "/etc/network/interfaces.d"
_LOOPBACK: Final = "auto lo\niface lo inet loopback\n"
_NAMES: Final = re.compile(rb"^[ \t]*(?:auto|allow-\S+|iface|mapping)[ \t]+(.*)$", re.MULTILINE)
_SOURCES: Final = re.compile(rb"^[ \t]*source(?:-directory|-dir)?[ \t]+\S*interfaces\.d\b.*$", re.MULTILINE)
_ETHERNET: Final = re.compile(r"(?:eth[0-9]+|en[opsxX]\w*|nic[0-9]+)(?::.*)?")


def configure(guest: Guest, interfaces: tuple[Interface, ...], *, alpine: bool = False) -> None:
    """Replace ``/etc/network/interfaces`` and have it read at boot. ``alpine``: for BusyBox and OpenRC."""
    old = guest.root.read_optional(INTERFACES) or b""
    text = interfaces_file(interfaces, hotplug=not alpine)
    if _SOURCES.search(old) and not _included_files_name(guest, interfaces):
        text = text.replace(_LOOPBACK, f"source {INCLUDED}/*\n\n{_LOOPBACK}", 1)
    if old and not is_ours(guest, INTERFACES):
        move_aside(guest, INTERFACES)
    guest.root.mkdir("/etc/network")
    guest.root.write(INTERFACES, text.encode("ascii"), mode=0o644)
    write_resolv_conf(guest, interfaces)
    _enable(guest)


def interfaces_file(interfaces: tuple[Interface, ...], *, hotplug: bool = True) -> str:
    """The text of interfaces(5)."""
    blocks = [f"{MADE_BY}\n{_LOOPBACK}"]
    for interface in interfaces:
        start = f"auto {interface.name}\n" + (f"allow-hotplug {interface.name}\n" if hotplug else "")
        blocks.append(start + "".join(f"{line}\n" for line in stanzas(interface)))
    return "\n".join(blocks)


def stanzas(interface: Interface) -> Iterator[str]:
    """The ``iface`` stanzas of one NIC, line by line."""
    nic = interface.nic
    yield f"iface {interface.name} inet {'manual' if nic.ipv4 == 'none' else nic.ipv4}"
    if interface.static is not None:
        yield from (f"    {line}" for line in _static(interface))
    if nic.ipv6 != "none":
        yield f"iface {interface.name} inet6 {'dhcp' if nic.ipv6 == 'dhcp' else 'auto'}"
        yield "    privext 0"
    if nic.ipv6 == "slaac_dhcp":
        yield "    dhcp 1"


def _static(interface: Interface) -> Iterator[str]:
    assert interface.static is not None  # noqa: S101 - the caller's condition, for the type checker
    yield f"address {interface.static.ip}"
    yield f"netmask {interface.static.netmask}"
    if interface.gateway and not interface.on_link:
        yield f"gateway {interface.gateway}"
    if interface.gateway and interface.on_link:
        yield f"up ip route replace {interface.gateway}/32 dev {interface.name}"
        yield f"up ip route replace default via {interface.gateway} dev {interface.name}"
    if interface.dns_servers:
        yield "dns-nameservers " + " ".join(interface.dns_servers)
    if interface.dns_search:
        yield "dns-search " + " ".join(interface.dns_search)


def names_in(data: bytes) -> set[str]:
    """The interfaces that a file in the format of interfaces(5) speaks of."""
    names: set[str] = set()
    for match in _NAMES.finditer(data):
        words = match[1].decode("utf-8", "replace").split()
        names.update(words[:1] if match[0].lstrip().startswith(b"iface") else words)
    return names


def is_ethernet(name: str) -> bool:
    """Whether a kernel calls Ethernet NICs like this."""
    return _ETHERNET.fullmatch(name) is not None


def _included_files_name(guest: Guest, interfaces: tuple[Interface, ...]) -> bool:
    """Whether a file of interfaces.d is about our NICs, by our names or by the kernel's."""
    ours = {interface.name for interface in interfaces}
    for file in guest.root.list(INCLUDED) if guest.root.is_dir(INCLUDED) else []:
        if guest.root.is_file(f"{INCLUDED}/{file}"):
            names = names_in(guest.root.read(f"{INCLUDED}/{file}"))
            if names & ours or any(map(is_ethernet, names)):
                return True
    return False


def _enable(guest: Guest) -> None:
    root = guest.root
    if services.openrc_installed(root, "networking"):
        services.openrc_enable(root, "networking", "boot")
    elif services.unit_file(root, "networking.service"):
        if not services.is_enabled(root, "networking.service"):
            services.enable(root, "networking.service")
    elif services.sysv_script(root, "networking"):
        services.sysv_enable(root, "networking", "13")
    else:
        guest.warn(f"nothing in the image reads {INTERFACES} at boot: ifupdown is not installed")
