"""Which network software an image has, told by its files (R-NET-11)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from snf_image_helper import services
from snf_image_helper.root import Root

NETPLAN_GENERATORS: Final = (
    "/usr/libexec/netplan/generate",
    "/usr/lib/netplan/generate",
    "/lib/netplan/generate",
)
_NETWORK_MANAGER: Final = ("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager", "/sbin/NetworkManager")
_LIBRARIES: Final = ("/usr/lib64", "/usr/lib", "/lib64", "/lib")
_PLUGIN_DIRECTORY: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})[0-9A-Za-z.~+-]*")
_IFUP: Final = ("/sbin/ifup", "/usr/sbin/ifup")
_NETWORK_SCRIPTS: Final = ("/etc/sysconfig/network-scripts/ifup-eth", "/etc/sysconfig/network-scripts/ifup")


def netplan(root: Root) -> bool:
    return any(root.is_executable(path) for path in NETPLAN_GENERATORS)


def ifupdown(root: Root) -> bool:
    """Whether ``ifup`` is there and something starts it at boot."""
    if not any(root.is_executable(path) for path in _IFUP):
        return False
    unit = "networking.service"
    if services.unit_file(root, unit) is not None:
        return not services.is_masked(root, unit)
    return services.sysv_script(root, "networking") is not None


def ifupdown_enabled(root: Root) -> bool:
    return ifupdown(root) and (
        services.is_enabled(root, "networking.service")
        or services.sysv_enabled(root, "networking")
        or services.openrc_enabled(root, "networking")
    )


def networkd(root: Root) -> bool:
    return services.unit_file(root, "systemd-networkd.service") is not None


def networkd_enabled(root: Root) -> bool:
    return services.is_enabled(root, "systemd-networkd.service")


def network_manager(root: Root) -> bool:
    return any(root.is_executable(path) for path in _NETWORK_MANAGER)


def network_manager_enabled(root: Root) -> bool:
    return network_manager(root) and (
        services.is_enabled(root, "NetworkManager.service")
        or services.openrc_enabled(root, "NetworkManager")
        or root.is_executable("/etc/rc.d/rc.networkmanager")
    )


def network_manager_version(root: Root) -> tuple[int, int] | None:
    """Major and minor version, from the name of the directory that holds its plugins; None if unknown."""
    versions = [
        (int(match[1]), int(match[2]))
        for directory in _plugin_parents(root)
        for name in root.list(directory)
        if (match := _PLUGIN_DIRECTORY.fullmatch(name)) and root.is_dir(f"{directory}/{name}")
    ]
    return max(versions, default=None)


def ifcfg(root: Root) -> bool:
    """Whether anything reads ``ifcfg-`` files: the network scripts, or NetworkManager's plugin for them."""
    if any(root.is_file(path) for path in _NETWORK_SCRIPTS):
        return True
    return any(
        root.is_file(f"{directory}/{name}/libnm-settings-plugin-ifcfg-rh.so")
        or root.is_file(f"{directory}/libnm-settings-plugin-ifcfg-rh.so")
        for directory in _plugin_parents(root)
        for name in root.list(directory)
    )


def wicked(root: Root) -> bool:
    return services.unit_file(root, "wicked.service") is not None


def wicked_enabled(root: Root) -> bool:
    return services.is_enabled(root, "wicked.service")


def network_manager_is_active(root: Root) -> bool:
    """SUSE: whether the network service is NetworkManager and not wicked."""
    active = services.alias_target(root, "network.service")
    if active is not None and services.unit_file(root, active) is not None:
        return active == "NetworkManager.service"
    return network_manager_enabled(root) and not wicked_enabled(root)


def _plugin_parents(root: Root) -> Iterator[str]:
    for library in _LIBRARIES:
        for name in ("", *(n for n in _names(root, library) if "-linux-" in n)):
            directory = f"{library}/{name}/NetworkManager".replace("//", "/")
            if root.is_dir(directory):
                yield directory


def _names(root: Root, directory: str) -> list[str]:
    return root.list(directory) if root.is_dir(directory) else []
