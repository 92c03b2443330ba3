"""Which back-end configures an image's network (R-NET-11)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from snf_image_contract.job import NetworkBackend
from snf_image_helper.linux.distribution import Distribution, LinuxFamily
from snf_image_helper.linux.network import installed
from snf_image_helper.root import Root


def choose(root: Root, system: Distribution) -> NetworkBackend | None:
    """The back-end of a Linux image; None if nothing says which one is right."""
    return _BY_FAMILY[system.family](root, system)


def _debian(root: Root, _: Distribution) -> NetworkBackend | None:
    if installed.netplan(root):
        return "netplan"
    if installed.ifupdown(root):
        return "ifupdown"
    if installed.networkd_enabled(root):
        return "networkd"
    if installed.network_manager(root):
        return "nm"
    return "networkd" if installed.networkd(root) else None


def _redhat(root: Root, system: Distribution) -> NetworkBackend | None:
    major = _major(system.version)
    if system.id == "amzn" and major >= 2022:
        return "networkd"
    if not installed.network_manager(root) and not installed.ifcfg(root) and installed.networkd(root):
        return "networkd"
    manager = installed.network_manager_version(root)
    # Fedora's numbers run ahead of those of Enterprise Linux.
    keyfile_since = {"fedora": 36, "amzn": 2022, "openEuler": 22}.get(system.id, 9)
    if (manager is not None and manager >= (1, 36)) or major >= keyfile_since or not installed.ifcfg(root):
        return "nm"
    return "ifcfg"


def _suse(root: Root, _: Distribution) -> NetworkBackend | None:
    if installed.network_manager_is_active(root) or not installed.wicked(root):
        return "nm"
    return "wicked"


def _coreos(_root: Root, _: Distribution) -> NetworkBackend | None:
    return "networkd"


def _arch(root: Root, _: Distribution) -> NetworkBackend | None:
    return _enabled_daemon(root) or "networkd"


def _gentoo(root: Root, _: Distribution) -> NetworkBackend | None:
    return _enabled_daemon(root) or "netifrc"


def _alpine(_root: Root, _: Distribution) -> NetworkBackend | None:
    return "ifupdown"


def _slackware(root: Root, _: Distribution) -> NetworkBackend | None:
    return "nm" if root.is_executable("/etc/rc.d/rc.networkmanager") else "rc.inet1"


def _unknown(root: Root, _: Distribution) -> NetworkBackend | None:
    enabled: list[NetworkBackend] = []
    if installed.network_manager_enabled(root):
        enabled.append("nm")
    if installed.networkd_enabled(root):
        enabled.append("networkd")
    if installed.ifupdown_enabled(root):
        enabled.append("ifupdown")
    return enabled[0] if len(enabled) == 1 else None


def _enabled_daemon(root: Root) -> NetworkBackend | None:
    if installed.networkd_enabled(root):
        return "networkd"
    return "nm" if installed.network_manager_enabled(root) else None


def _major(version: str) -> int:
    match = re.match(r"[0-9]{1,9}", version)
    return int(match[0]) if match else 0


_BY_FAMILY: Final[dict[LinuxFamily, Callable[[Root, Distribution], NetworkBackend | None]]] = {
    LinuxFamily.COREOS: _coreos,
    LinuxFamily.DEBIAN: _debian,
    LinuxFamily.REDHAT: _redhat,
    LinuxFamily.SUSE: _suse,
    LinuxFamily.SLACKWARE: _slackware,
    LinuxFamily.GENTOO: _gentoo,
    LinuxFamily.ARCH: _arch,
    LinuxFamily.ALPINE: _alpine,
    LinuxFamily.UNKNOWN: _unknown,
}
