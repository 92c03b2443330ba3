"""ifcfg files of Enterprise Linux up to 8 (R-NET-IFCFG-1, R-NET-IFCFG-2).

They are read by the network scripts (``sysconfig.txt`` of package initscripts) and by NetworkManager's
plugin ifcfg-rh (nm-settings-ifcfg-rh(5)); what is written here means the same to both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from snf_image_helper import services
from snf_image_helper.edit import Lines, assignments, parse_assignment, set_assignments
from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.aside import is_ours, move_aside, remove_leftovers
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface

DIRECTORY: Final = "/etc/sysconfig/network-scripts"
GLOBAL: Final = "/etc/sysconfig/network"
OUR_FILES: Final = r"(?:ifcfg|route)-(?:nic|eth)[0-9]+"
_BACKUPS: Final = re.compile(r"~$|\.(?:bak|orig|rpmnew|rpmorig|rpmsave)$")
_OTHER_DEVICES: Final = re.compile(
    r"(?:lo|br|virbr|docker|bond|team|vlan|wl|ww|tun|tap|ppp|ib|sit|gre|veth|dummy)[0-9a-zA-Z_-]*|.*\..*"
)
_STALE: Final = (b"GATEWAY", b"GATEWAYDEV")

_IPV6: Final = {
    "none": ("IPV6INIT=no",),
    "dhcp": ("IPV6INIT=yes", "IPV6_AUTOCONF=no", "DHCPV6C=yes", "IPV6_FAILURE_FATAL=no"),
    "slaac": ("IPV6INIT=yes", "IPV6_AUTOCONF=yes"),
    "slaac_dhcp": (
        "IPV6INIT=yes",
        "IPV6_AUTOCONF=yes",
        "DHCPV6C=yes",
        "DHCPV6C_OPTIONS=-S",
        "IPV6_FAILURE_FATAL=no",
    ),
}


def configure(guest: Guest, interfaces: tuple[Interface, ...], *, by_device: bool) -> None:
    """Write one file per NIC. ``by_device``: EL 6, whose files are named and matched by device name."""
    move_rivals(guest)
    wanted: dict[str, str] = {}
    for interface in interfaces:
        name = interface.name if by_device else interface.label
        wanted[f"ifcfg-{name}"] = ifcfg_file(interface, device=interface.name if by_device else None)
        if interface.on_link:
            wanted[f"route-{name}"] = route_file(interface)
    remove_leftovers(guest, DIRECTORY, OUR_FILES, keep=wanted)
    guest.root.mkdir(DIRECTORY)
    for name, text in wanted.items():
        guest.root.write(f"{DIRECTORY}/{name}", text.encode("ascii"), mode=0o644, force=True)
    _edit_global(guest, ipv6=any(interface.nic.ipv6 != "none" for interface in interfaces))
    _enable(guest)


def ifcfg_file(interface: Interface, *, device: str | None = None) -> str:
    """The file of one NIC, found by its MAC address; ``device`` names the kernel's interface too."""
    return "".join(f"{line}\n" for line in _lines(interface, device))


def _lines(interface: Interface, device: str | None) -> Iterator[str]:
    nic = interface.nic
    yield MADE_BY
    yield f"DEVICE={device}" if device else f"NAME={interface.label}"
    yield "TYPE=Ethernet"
    yield f"HWADDR={interface.mac}"
    yield "ONBOOT=yes"
    yield f"BOOTPROTO={'dhcp' if nic.ipv4 == 'dhcp' else 'none'}"
    if nic.ipv4 == "dhcp":
        yield "IPV4_FAILURE_FATAL=no"
    if interface.static is not None:
        yield f"IPADDR={interface.static.ip}"
        yield f"PREFIX={interface.static.network.prefixlen}"
        if interface.gateway and not interface.on_link:
            yield f"GATEWAY={interface.gateway}"
        yield from (f"DNS{i}={server}" for i, server in enumerate(interface.dns_servers, 1))
        if interface.dns_search:
            yield f'DOMAIN="{" ".join(interface.dns_search)}"'
    yield from _IPV6[nic.ipv6]


def route_file(interface: Interface) -> str:
    """Routes to a gateway outside the subnet and through it, without the name of a device."""
    gateway = interface.gateway
    return (
        f"{MADE_BY}\n"
        f"ADDRESS0={gateway}\nNETMASK0=255.255.255.255\n"
        f"ADDRESS1=0.0.0.0\nNETMASK1=0.0.0.0\nGATEWAY1={gateway}\n"
    )


def move_rivals(guest: Guest) -> None:
    """Move aside files of Ethernet NICs, with their routes; ``lo``, bridges, wifi and the like stay."""
    for name in guest.root.list(DIRECTORY) if guest.root.is_dir(DIRECTORY) else []:
        path = f"{DIRECTORY}/{name}"
        if not name.startswith("ifcfg-") or _BACKUPS.search(name) or is_ours(guest, path):
            continue
        if not guest.root.is_file(path) or not _is_ethernet(name, assignments(guest.root.read(path))):
            continue
        for kind in ("ifcfg-", "route-", "route6-", "rule-", "rule6-"):
            other = f"{DIRECTORY}/{kind}{name.removeprefix('ifcfg-')}"
            if guest.root.lstat(other) is not None:
                # The network scripts read ifcfg-* whatever follows.
                move_aside(guest, other, elsewhere=True)


def _is_ethernet(name: str, values: dict[bytes, bytes]) -> bool:
    device = values.get(b"DEVICE", name.removeprefix("ifcfg-").encode()).decode("utf-8", "replace")
    kind = values.get(b"TYPE", b"Ethernet").lower()
    other = {b"VLAN", b"BONDING_OPTS", b"TEAM_CONFIG", b"ESSID", b"WIRELESS_ENABLED"} & values.keys()
    return kind == b"ethernet" and not other and _OTHER_DEVICES.fullmatch(device) is None


def _edit_global(guest: Guest, *, ipv6: bool) -> None:
    data = guest.root.read_optional(GLOBAL) or b""
    lines = Lines(data)
    for index in range(len(lines) - 1, -1, -1):
        try:
            assignment = parse_assignment(lines[index])
        except ImageError:
            continue
        if assignment is not None and assignment.key in _STALE:
            lines.remove(index)
    values = {b"NETWORKING": b"yes"} | ({b"NETWORKING_IPV6": b"yes"} if ipv6 else {})
    guest.root.write(GLOBAL, set_assignments(lines.data(), values, path=GLOBAL), mode=0o644)


def _enable(guest: Guest) -> None:
    root = guest.root
    manager = "NetworkManager.service"
    if services.is_enabled(root, manager) or services.sysv_enabled(root, "NetworkManager"):
        return
    if services.sysv_enabled(root, "network") or services.sysv_enable(root, "network", "10"):
        return
    if not services.enable(root, manager):
        guest.warn("neither the network scripts nor NetworkManager is there to read ifcfg files")
