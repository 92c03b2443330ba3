"""``/etc/rc.d/rc.inet1.conf`` of Slackware (R-NET-SL-1), as rc.inet1.conf(5) has it."""

from __future__ import annotations

import re
from typing import Final

from snf_image_helper.edit import Lines
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface
from snf_image_helper.linux.network.resolver import write_resolv_conf

CONFIG: Final = "/etc/rc.d/rc.inet1.conf"
SCRIPT: Final = "/etc/rc.d/rc.inet1"
_ASSIGNMENT: Final = re.compile(rb"[ \t]*([A-Za-z0-9_]+(?:\[[0-9]+\])?)=")
# Slackware 15 and later; before, the kernel's own autoconfiguration is all there is.
_SLAAC: Final = "USE_SLAAC"
_DHCP6: Final = "USE_DHCP6"


def configure(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Set the keys of our NICs, empty those of other numbers, keep everything else."""
    old = guest.root.read_optional(CONFIG) or f"{MADE_BY}\n".encode("ascii")
    knows = {name: re.search(rb"^[ \t#]*" + name.encode() + rb"\[", old, re.MULTILINE) is not None
             for name in (_SLAAC, _DHCP6, "IPADDRS")}  # fmt: skip
    for interface in interfaces:
        if interface.nic.ipv6 in ("dhcp", "slaac_dhcp") and not knows[_DHCP6]:
            guest.warn(f"{CONFIG}: this release cannot do DHCPv6; {interface.label} is left without")
        if interface.on_link:
            guest.warn(f"{CONFIG}: cannot say that the gateway of {interface.label} is outside its subnet")
    guest.root.mkdir("/etc/rc.d")
    guest.root.write(CONFIG, rc_inet1_conf(old, interfaces, knows), mode=0o600)
    if guest.root.is_file(SCRIPT) and not guest.root.is_executable(SCRIPT):
        guest.root.set_attributes(SCRIPT, mode=0o755)
    write_resolv_conf(guest, interfaces)


def rc_inet1_conf(old: bytes, interfaces: tuple[Interface, ...], knows: dict[str, bool]) -> bytes:
    """The file with our values. ``knows``: which of the later keys the file speaks of."""
    values: dict[str, str] = {}
    for interface in interfaces:
        values |= {f"{key}[{interface.index}]": value for key, value in _settings(interface, knows).items()}
    gateway = next((interface.gateway for interface in interfaces if interface.gateway), None)
    values["GATEWAY"] = gateway or ""
    lines = Lines(old)
    for index in range(len(lines)):
        key = _key(lines[index])
        if key in values:
            lines.replace(index, f'{key}="{values.pop(key)}"'.encode("ascii"))
        elif key is not None and _is_of_another_nic(key, len(interfaces)):
            lines.replace(index, f'{key}=""'.encode("ascii"))
    for key, value in values.items():
        lines.append(f'{key}="{value}"'.encode("ascii"))
    return lines.data()


def _settings(interface: Interface, knows: dict[str, bool]) -> dict[str, str]:
    nic, static = interface.nic, interface.static
    settings = {} if interface.name == f"eth{interface.index}" else {"IFNAME": interface.name}
    settings |= {
        "IPADDR": str(static.ip) if static is not None else "",
        "NETMASK": str(static.netmask) if static is not None else "",
        "USE_DHCP": "yes" if nic.ipv4 == "dhcp" else "",
    }
    if knows["IPADDRS"]:
        settings["IPADDRS"] = ""
    if knows[_SLAAC]:
        settings[_SLAAC] = "yes" if nic.ipv6 in ("slaac", "slaac_dhcp") else ""
    if knows[_DHCP6]:
        settings[_DHCP6] = "yes" if nic.ipv6 in ("dhcp", "slaac_dhcp") else ""
    return settings


def _key(line: bytes) -> str | None:
    match = _ASSIGNMENT.match(line)
    return match[1].decode("ascii") if match else None


def _is_of_another_nic(key: str, count: int) -> bool:
    match = re.fullmatch(r"(?:IPADDRS?|NETMASK|USE_DHCP|USE_SLAAC|USE_DHCP6|IP6ADDRS)\[([0-9]{1,4})\]", key)
    return match is not None and int(match[1]) >= count
