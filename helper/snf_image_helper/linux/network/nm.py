"""NetworkManager keyfiles (R-NET-NM-1, R-NET-NM-2), as nm-settings-keyfile(5) has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from snf_image_helper import services, uuids
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network import installed
from snf_image_helper.linux.network.aside import is_ours, move_aside, remove_leftovers
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface
from snf_image_helper.linux.network.keyfile import parse

DIRECTORY: Final = "/etc/NetworkManager/system-connections"
VENDOR_DIRECTORY: Final = "/usr/lib/NetworkManager/system-connections"
SERVICE: Final = "NetworkManager.service"
IGNORE_FILE: Final = "/etc/NetworkManager/conf.d/99-snf-image.conf"
RC_SCRIPT: Final = "/etc/rc.d/rc.networkmanager"
OUR_FILES: Final = r"snf-nic[0-9]+\.nmconnection"
_ETHERNET: Final = ("ethernet", "802-3-ethernet")


def configure(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Write one profile per NIC and have NetworkManager start at boot."""
    version = installed.network_manager_version(guest.root)
    disabled = "ignore" if version is not None and version < (1, 20) else "disabled"
    move_rivals(guest)
    wanted = {f"snf-{interface.label}.nmconnection": interface for interface in interfaces}
    remove_leftovers(guest, DIRECTORY, OUR_FILES, keep=wanted)
    guest.root.remove(IGNORE_FILE)
    guest.root.mkdir(DIRECTORY, mode=0o755)
    for name, interface in wanted.items():
        text = profile(interface, uuids.new(), ipv6_disabled=disabled)
        guest.root.write(f"{DIRECTORY}/{name}", text.encode("ascii"), mode=0o600, force=True)
        if interface.servers(6) and interface.nic.ipv6 == "none":
            guest.warn(f"{interface.label}: IPv6 name servers are left out, for it has no IPv6")
    _enable(guest)


def ignore(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Tell NetworkManager that another service manages the NICs (R-NET-15)."""
    macs = ";".join(f"mac:{interface.mac}" for interface in interfaces)
    text = f"{MADE_BY}: another service manages these interfaces\n[keyfile]\nunmanaged-devices+={macs}\n"
    guest.root.mkdir(IGNORE_FILE.rpartition("/")[0])
    guest.root.write(IGNORE_FILE, text.encode("ascii"), mode=0o644)


def profile(interface: Interface, identity: str, *, ipv6_disabled: str = "disabled") -> str:
    """One connection profile; ``identity`` is its UUID."""
    sections = [
        [
            "[connection]",
            f"id=snf-{interface.label}",
            f"uuid={identity}",
            "type=ethernet",
            "autoconnect=true",
        ],
        ["[ethernet]", f"mac-address={interface.mac.upper()}"],
        ["[ipv4]", *_ipv4(interface)],
        ["[ipv6]", *_ipv6(interface, ipv6_disabled)],
    ]
    return MADE_BY + "\n" + "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _ipv4(interface: Interface) -> Iterator[str]:
    if interface.static is None:
        yield "method=auto" if interface.nic.ipv4 == "dhcp" else "method=disabled"
        return
    yield "method=manual"
    # A gateway outside the subnet gets its own route from NetworkManager.
    gateway = f",{interface.gateway}" if interface.gateway else ""
    yield f"address1={interface.static}{gateway}"
    if servers := interface.servers(4):
        yield "dns=" + "".join(f"{server};" for server in servers)
    if interface.dns_search:
        yield "dns-search=" + "".join(f"{name};" for name in interface.dns_search)


def _ipv6(interface: Interface, disabled: str) -> Iterator[str]:
    if interface.nic.ipv6 == "none":
        yield f"method={disabled}"
        return
    # The router's flags tell NetworkManager which of SLAAC and DHCPv6 to use.
    yield "method=auto"
    yield "addr-gen-mode=eui64"
    yield "ip6-privacy=0"
    if servers := interface.servers(6):
        yield "dns=" + "".join(f"{server};" for server in servers)


def move_rivals(guest: Guest) -> None:
    """Move aside Ethernet profiles that are not ours, shipped ones as well; others are left alone."""
    for directory in (DIRECTORY, VENDOR_DIRECTORY):
        for name in guest.root.list(directory) if guest.root.is_dir(directory) else []:
            path = f"{directory}/{name}"
            if not guest.root.is_file(path) or is_ours(guest, path):
                continue
            if parse(guest.root.read(path)).get("connection", {}).get("type") in _ETHERNET:
                # NetworkManager reads files of nearly any name here.
                move_aside(guest, path, elsewhere=True)


def _enable(guest: Guest) -> None:
    root = guest.root
    if services.unit_file(root, SERVICE):
        if not services.is_enabled(root, SERVICE):
            services.enable(root, SERVICE)
        if services.alias_target(root, "network.service") == "wicked.service":
            services.set_alias(root, "network.service", SERVICE)
            guest.warn("NetworkManager becomes the network service of this image in place of wicked")
    elif services.openrc_installed(root, "NetworkManager"):
        services.openrc_enable(root, "NetworkManager", "default")
    elif root.is_file(RC_SCRIPT):
        if not root.is_executable(RC_SCRIPT):
            root.set_attributes(RC_SCRIPT, mode=0o755)
    else:
        guest.warn("NetworkManager is not installed in the image: nothing reads its profiles")
