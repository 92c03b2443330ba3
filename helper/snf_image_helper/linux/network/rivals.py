"""Services that would manage the NICs besides the chosen one are told to ignore them (R-NET-15)."""

from __future__ import annotations

from typing import Final

from snf_image_contract.job import NetworkBackend
from snf_image_contract.names import TaskName
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init
from snf_image_helper.linux.network import ifcfg, ifupdown, installed, netplan, networkd, nm, wicked
from snf_image_helper.linux.network.aside import is_ours, move_aside, remove_leftovers
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface

_READ_BY_NETWORK_MANAGER: Final = ("nm", "ifcfg", "netplan")
_READ_BY_NETWORKD: Final = ("networkd", "netplan")


def silence(guest: Guest, backend: NetworkBackend, interfaces: tuple[Interface, ...]) -> None:
    """Keep other services off the NICs that ``backend`` configures."""
    root = guest.root
    if backend not in _READ_BY_NETWORK_MANAGER and installed.network_manager_enabled(root):
        nm.ignore(guest, interfaces)
    if backend not in _READ_BY_NETWORKD and installed.networkd_enabled(root):
        networkd.ignore(guest, interfaces)
    # NetworkManager on Debian leaves alone what this file speaks of, whether or not ifupdown is there.
    if backend != "ifupdown" and (installed.ifupdown_enabled(root) or backend == "nm"):
        _empty_interfaces(guest)
    if backend != "cloud-init" and cloud_init.is_installed(guest):
        # Without this, cloud-init asks every NIC for DHCP when it finds no configuration of its own.
        cloud_init.write_config(guest, TaskName.CONFIGURE_NETWORK, {"network": {"config": "disabled"}})
    _move_files(guest, backend)


def _move_files(guest: Guest, backend: NetworkBackend) -> None:
    """Move aside what other back-ends would be told about the same NICs (R-NET-10)."""
    if backend != "netplan" and installed.netplan(guest.root):
        netplan.move_rivals(guest)
        if guest.root.lstat(netplan.FILE) is not None:
            move_aside(guest, netplan.FILE)
    if backend != "ifcfg":
        ifcfg.move_rivals(guest)
        remove_leftovers(guest, ifcfg.DIRECTORY, ifcfg.OUR_FILES, keep=())
    else:
        nm.move_rivals(guest)
        remove_leftovers(guest, nm.DIRECTORY, nm.OUR_FILES, keep=())
    if backend != "wicked" and installed.wicked(guest.root):
        wicked.move_rivals(guest)


def _empty_interfaces(guest: Guest) -> None:
    """Leave ifupdown the loopback interface only, unless it has more than Ethernet to configure."""
    path = ifupdown.INTERFACES
    if not guest.root.is_file(path) or is_ours(guest, path):
        return
    names = ifupdown.names_in(guest.root.read(path)) - {"lo"}
    if not names:
        return
    if not all(map(ifupdown.is_ethernet, names)):
        guest.warn(f"{path}: configures {', '.join(sorted(names))} besides what is configured here")
        return
    move_aside(guest, path)
    guest.root.write(path, f"{MADE_BY}\nauto lo\niface lo inet loopback\n".encode("ascii"), mode=0o644)
