"""What the guest's kernel calls each NIC, for back-ends that must name it (R-NET-9).

An image without predictable names has ``eth0``, ``eth1``, … in the order of its NICs. In any other image
a NIC's name depends on the slot it sits in, so that it is given one of ours by its MAC address.
"""

from __future__ import annotations

import re
from typing import Final

from snf_image_contract.job import Nic
from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.aside import is_ours, move_aside, remove_leftovers
from snf_image_helper.linux.network.interfaces import MADE_BY
from snf_image_helper.root import Root

LINK_DIRECTORY: Final = "/etc/systemd/network"
PERSISTENT_RULES: Final = "/etc/udev/rules.d/70-persistent-net.rules"

_UDEV: Final = (
    "/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd", "/sbin/udevd", "/usr/sbin/udevd",
    "/lib/udev/udevd", "/usr/lib/udev/udevd", "/usr/bin/udevd", "/bin/udevd",
)  # fmt: skip
_DEFAULT_POLICIES: Final = (
    "/usr/lib/systemd/network/99-default.link",
    "/lib/systemd/network/99-default.link",
)
_LINK_RULES: Final = "80-net-setup-link.rules"
_SLOT_RULES: Final = "80-net-name-slot.rules"
_RULE_DIRECTORIES: Final = ("/usr/lib/udev/rules.d", "/lib/udev/rules.d")
_MASKS: Final = (
    "/etc/systemd/network/99-default.link",
    f"/etc/udev/rules.d/{_LINK_RULES}",
    f"/etc/udev/rules.d/{_SLOT_RULES}",
)
_BOOT_FILES: Final = (
    "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/grub2/grubenv", "/boot/grub/menu.lst",
    "/boot/grub/grub.conf", "/boot/extlinux.conf", "/boot/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg", "/etc/kernel/cmdline", "/etc/lilo.conf",
)  # fmt: skip
_BOOT_ENTRIES: Final = "/boot/loader/entries"
_SWITCHED_OFF: Final = re.compile(rb"(?<![^\s\"'])net\.ifnames=0(?![^\s\"'])")
_NAME_RULE: Final = re.compile(rb"\bNAME\s*=")
_ADDRESS: Final = re.compile(rb"ATTR\{address\}==\"([^\"]*)\"", re.IGNORECASE)


def uses_eth_names(root: Root) -> bool:
    """Whether the image boots with ``eth<i>``: no udev, no naming policy, or one that is switched off."""
    if not any(root.is_file(path) for path in _UDEV):
        return True
    if not _knows_links(root) and not _has_rules(root, _SLOT_RULES):
        return True
    return any(_is_masked(root, path) for path in _MASKS) or _boots_without_predictable_names(root)


def kernel_names(guest: Guest, nics: tuple[Nic, ...]) -> tuple[str, ...]:
    """The names NICs will have: the kernel's own, or ours. Nothing is written."""
    prefix = "eth" if uses_eth_names(guest.root) else "nic"
    return tuple(f"{prefix}{index}" for index in range(len(nics)))


def write_renames(guest: Guest, nics: tuple[Nic, ...]) -> None:
    """Have udev give NICs our names, unless they keep the kernel's."""
    if uses_eth_names(guest.root):
        wanted: dict[str, str] = {}
    elif _knows_links(guest.root):
        wanted = {f"10-snf-nic{i}.link": _link_file(nic.mac, f"nic{i}") for i, nic in enumerate(nics)}
    else:
        lines = "".join(_rule(nic.mac, f"nic{i}") for i, nic in enumerate(nics))
        if guest.root.lstat(PERSISTENT_RULES) is not None and not is_ours(guest, PERSISTENT_RULES):
            move_aside(guest, PERSISTENT_RULES)
        guest.root.mkdir("/etc/udev/rules.d")
        guest.root.write(PERSISTENT_RULES, f"{MADE_BY}\n{lines}".encode("ascii"), mode=0o644)
        wanted = {}
    remove_leftovers(guest, LINK_DIRECTORY, r"10-snf-nic[0-9]+\.link", keep=wanted)
    if wanted:
        guest.root.mkdir(LINK_DIRECTORY)
    for name, text in wanted.items():
        guest.root.write(f"{LINK_DIRECTORY}/{name}", text.encode("ascii"), mode=0o644)


def move_stale_rules(guest: Guest, nics: tuple[Nic, ...]) -> None:
    """Move aside rules that name another machine's NICs: they keep ``eth0`` from ours (R-NET-10)."""
    if not guest.root.is_file(PERSISTENT_RULES):
        return
    if is_ours(guest, PERSISTENT_RULES):
        guest.root.remove(PERSISTENT_RULES)
        return
    macs = {nic.mac.encode("ascii") for nic in nics}
    for line in guest.root.read(PERSISTENT_RULES).splitlines():
        if line.lstrip().startswith(b"#") or not _NAME_RULE.search(line):
            continue
        match = _ADDRESS.search(line)
        if match is None or match[1].lower() not in macs:
            move_aside(guest, PERSISTENT_RULES)
            return


def _link_file(mac: str, name: str) -> str:
    return f"{MADE_BY}\n[Match]\nMACAddress={mac}\n\n[Link]\nName={name}\n"


def _rule(mac: str, name: str) -> str:
    return f'SUBSYSTEM=="net", ACTION=="add", ATTR{{address}}=="{mac}", ATTR{{type}}=="1", NAME="{name}"\n'


def _knows_links(root: Root) -> bool:
    """Whether udev reads ``.link`` files: that of systemd 209 and later does, eudev does not."""
    return any(root.is_file(path) for path in _DEFAULT_POLICIES) or _has_rules(root, _LINK_RULES)


def _has_rules(root: Root, name: str) -> bool:
    return any(root.is_file(f"{directory}/{name}") for directory in _RULE_DIRECTORIES)


def _is_masked(root: Root, path: str) -> bool:
    status = root.lstat(path)
    if status is None:
        return False
    try:
        return root.readlink(path) == "/dev/null"
    except ImageError:
        return status.st_size == 0


def _boots_without_predictable_names(root: Root) -> bool:
    entries = root.list(_BOOT_ENTRIES) if root.is_dir(_BOOT_ENTRIES) else []
    files = (*_BOOT_FILES, *(f"{_BOOT_ENTRIES}/{name}" for name in entries if name.endswith(".conf")))
    return any(
        _SWITCHED_OFF.search(line)
        for path in files
        if root.is_file(path)
        for line in root.read(path).splitlines()
        if not line.lstrip().startswith(b"#")
    )
