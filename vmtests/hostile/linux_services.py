"""Configuration of networks, SSH and cloud-init that is meant to exhaust who reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostile.image import EITHER, REFUSED, HostileImage
from hostile.linux_trees import directory, has, many_names, node
from hostile.region import MIB, ImageFile

_NETPLAN: Final = "/etc/netplan/50-cloud-init.yaml"
_UBUNTU: Final = "ubuntu-gpt-ext4"
_ANCHORS: Final = 26


def alias_bomb() -> bytes:
    """YAML in which each of 26 anchors has the one before nine times: 9²⁶ values if written out."""
    lines = ['a0: &a0 ["lol"]']
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, _ANCHORS)]
    return "\n".join([*lines, f"network: {{version: 2, ethernets: *a{_ANCHORS - 1}}}", ""]).encode()


def nested(depth: int) -> bytes:
    """YAML of lists in lists."""
    return b"network: " + b"[" * depth + b"]" * depth + b"\n"


_ITSELF: Final = b"network: &self\n  version: 2\n  ethernets: *self\n"
_INCLUDES: Final = b"Include /etc/ssh/sshd_config\n" * 100
_SOURCES: Final = b"source /etc/network/interfaces\nsource /etc/network/*\n" * 100
_LONG: Final = b"config_eth0=" + b"(" * (32 * MIB) + b"\n"
_MANY_KEYS: Final = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA x\n" * 500_000


def _file_in_the_place_of(path: str) -> Callable[[ImageFile], None]:
    """A file where a directory should be, which is elsewhere then."""

    def damage(image: ImageFile) -> None:
        image.ext.debug(f"ln {path} {path}.away", f"unlink {path}", write=True)
        image.ext.replace(path, b"not a directory\n")

    return damage


def _many_interfaces(image: ImageFile) -> None:
    """500 names of one configuration of an interface."""
    where = "/etc/sysconfig/network-scripts"
    image.ext.replace(f"{where}/ifcfg-eth9", b'DEVICE="eth9\nHWADDR=\nBOOTPROTO=$(reboot)\n')
    many_names(f"{where}/ifcfg-eth9", where, 500)(image)


def _keys(content: bytes) -> Callable[[ImageFile], None]:
    def damage(image: ImageFile) -> None:
        image.ext.debug("mkdir /root/.ssh", write=True)
        image.ext.replace("/root/.ssh/authorized_keys", content)

    return damage


def _keys_are_a_pipe(image: ImageFile) -> None:
    image.ext.debug("mkdir /root/.ssh", write=True)
    image.ext.node("/root/.ssh/authorized_keys", "p")


def _row(
    name: str,
    what: str,
    damage: Callable[[ImageFile], None],
    *,
    base: str,
    ends: frozenset[int] = EITHER,
    words: str = "",
    options: tuple[str, ...] = (),
    sampled: bool = False,
) -> HostileImage:
    return HostileImage(
        id=f"tree-{name}", base=base, structure=f"tree: {what}", damage=damage, ends=ends, words=words,
        options=options, sampled=sampled,
    )  # fmt: skip


IMAGES: Final = (
    _row("netplan-alias-bomb", "network", has(_NETPLAN, alias_bomb()), base=_UBUNTU, sampled=True),
    _row("netplan-in-itself", "network", has(_NETPLAN, _ITSELF), base=_UBUNTU),
    _row("netplan-nested-100000-deep", "network", has(_NETPLAN, nested(100_000)), base=_UBUNTU),
    _row("netplan-of-no-text", "network", has(_NETPLAN, bytes(range(256))), base=_UBUNTU),
    _row("cloud-cfg-alias-bomb", "network", has("/etc/cloud/cloud.cfg", alias_bomb()),
         base="ubuntu-cloud-gpt-ext4", options=("--property", "CLOUD_INIT=yes")),
    _row("cloud-cfg-nested-100000-deep", "network", has("/etc/cloud/cloud.cfg", nested(100_000)),
         base="ubuntu-cloud-gpt-ext4", options=("--property", "CLOUD_INIT=yes")),
    _row("interfaces-source-themselves", "network", has("/etc/network/interfaces", _SOURCES),
         base="alpine-mbr-ext4"),
    _row("netifrc-of-one-line-of-32-mib", "network", has("/etc/conf.d/net", _LONG), base="gentoo-mbr-ext2"),
    _row("inet1-is-a-pipe", "network", node("/etc/rc.d/rc.inet1.conf", "p"),
         base="slackware-mbr-logical-ext4", ends=REFUSED, words="/etc/rc.d/rc.inet1.conf"),
    _row("networks-are-a-file", "network", _file_in_the_place_of("/etc/sysconfig/network"),
         base="opensuse-mbr-logical-ext4"),
    _row("500-interfaces", "network", _many_interfaces, base="centos7-mbr-ext3"),
    _row("connection-is-a-directory", "network",
         directory("/etc/NetworkManager/system-connections/snf-nic0.nmconnection"), base="rhel9-mbr-ext4"),
    _row("sshd-config-includes-itself", "ssh", has("/etc/ssh/sshd_config", _INCLUDES),
         base="alpine-mbr-ext4"),
    _row("authorized-keys-are-a-pipe", "ssh", _keys_are_a_pipe, base="alpine-mbr-ext4", ends=REFUSED,
         words="authorized_keys"),
    _row("500000-authorized-keys", "ssh", _keys(_MANY_KEYS), base="alpine-mbr-ext4"),
    _row("host-key-is-a-disk", "ssh", node("/etc/ssh/ssh_host_ed25519_key", "b", "254", "0"),
         base="alpine-mbr-ext4"),
)  # fmt: skip
