"""Trees with just enough of each distribution for the network's back-ends, and NICs of every kind."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Final

import trees
from snf_image_contract.job import ConfigureNetwork, Nic
from snf_image_helper.guest import Guest
from trees import Directory, File, Link, Tree

MACS: Final = ("aa:00:00:12:34:56", "aa:00:00:12:34:57")
PROGRAM: Final = File(b"\x7fELF", mode=0o755)


def unit(install: str = "WantedBy=multi-user.target\n") -> str:
    return f"[Unit]\nDescription=some service\n[Service]\nExecStart=/bin/x\n[Install]\n{install}"


SYSTEMD: Final[Tree] = {
    "/usr/lib/systemd/systemd": PROGRAM,
    "/usr/lib/systemd/systemd-udevd": PROGRAM,
    "/usr/lib/systemd/network/99-default.link": "[Link]\nNamePolicy=keep kernel\n",
    "/lib": Link("usr/lib"),
    "/etc/systemd/system": Directory(),
}
DEBIAN: Final[Tree] = {
    **SYSTEMD,
    "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "/sbin/ifup": PROGRAM,
    "/usr/lib/systemd/system/networking.service": unit(),
    "/etc/network/interfaces": "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n",
}
UBUNTU: Final[Tree] = {
    **SYSTEMD,
    "/etc/os-release": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "/usr/libexec/netplan/generate": PROGRAM,
    "/usr/lib/systemd/system/systemd-networkd.service": unit(),
}
ARCH: Final[Tree] = {
    **SYSTEMD,
    "/etc/os-release": "ID=arch\n",
    "/usr/lib/systemd/system/systemd-networkd.service": unit(
        "WantedBy=multi-user.target\nAlso=systemd-networkd.socket\n"
    ),
    "/usr/lib/systemd/system/systemd-networkd.socket": unit("WantedBy=sockets.target\n"),
    "/usr/lib/systemd/system/systemd-resolved.service": unit(
        "Alias=dbus-org.freedesktop.resolve1.service\nWantedBy=sysinit.target\n"
    ),
}
ROCKY_9: Final[Tree] = {
    **SYSTEMD,
    "/etc/os-release": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
    "/usr/sbin/NetworkManager": PROGRAM,
    "/usr/lib/systemd/system/NetworkManager.service": unit(),
    "/usr/lib64/NetworkManager/1.46.0-1.el9/libnm-device-plugin-team.so": b"",
}
CENTOS_7: Final[Tree] = {
    **SYSTEMD,
    "/etc/os-release": 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n',
    "/etc/sysconfig/network": "# Created by anaconda\nGATEWAY=203.0.113.1\nNOZEROCONF=yes\n",
    "/etc/sysconfig/network-scripts/ifup-eth": PROGRAM,
    "/etc/sysconfig/network-scripts/ifcfg-lo": "DEVICE=lo\nIPADDR=127.0.0.1\n",
    "/etc/rc.d/init.d/network": PROGRAM,
    "/etc/init.d": Link("rc.d/init.d"),
    "/etc/rc.d/rc3.d": Directory(),
}
CENTOS_6: Final[Tree] = {
    "/etc/redhat-release": "CentOS release 6.10 (Final)\n",
    "/sbin/udevd": PROGRAM,
    "/etc/sysconfig/network": "NETWORKING=yes\nHOSTNAME=localhost.localdomain\n",
    "/etc/sysconfig/network-scripts/ifup-eth": PROGRAM,
    "/etc/rc.d/init.d/network": PROGRAM,
    "/etc/rc.d/rc3.d/S10network": Link("../init.d/network"),
}
SLES_15: Final[Tree] = {
    **SYSTEMD,
    "/etc/os-release": 'ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.5"\n',
    "/usr/lib/systemd/system/wicked.service": unit("WantedBy=multi-user.target\nAlias=network.service\n"),
    "/etc/systemd/system/network.service": Link("/usr/lib/systemd/system/wicked.service"),
    "/etc/sysconfig/network/config": 'NETCONFIG_DNS_STATIC_SERVERS=""\nNETCONFIG_DNS_POLICY="auto"\n',
}
GENTOO: Final[Tree] = {
    "/etc/os-release": "ID=gentoo\n",
    "/usr/sbin/udevd": PROGRAM,
    "/lib/udev/rules.d/80-net-name-slot.rules": "# predictable names\n",
    "/etc/init.d/net.lo": PROGRAM,
    "/etc/runlevels/default": Directory(),
}
SLACKWARE: Final[Tree] = {
    "/etc/os-release": "ID=slackware\nVERSION_ID=15.0\n",
    "/sbin/udevd": PROGRAM,
    "/etc/rc.d/rc.inet1": PROGRAM,
    "/etc/rc.d/rc.inet1.conf": File(
        '# /etc/rc.d/rc.inet1.conf\nIFNAME[0]="eth0"\nIPADDRS[0]=""\nUSE_DHCP[0]="yes"\nIP6ADDRS[0]=""\n'
        'USE_SLAAC[0]=""\nUSE_DHCP6[0]=""\nDHCP_HOSTNAME[0]="darkstar"\n\nUSE_DHCP[1]="yes"\nGATEWAY=""\n'
        'DEBUG_ETH_UP="no"\n',
        mode=0o600,
    ),
}
ALPINE: Final[Tree] = {
    "/etc/os-release": "ID=alpine\nVERSION_ID=3.19.1\n",
    "/sbin/ifup": PROGRAM,
    "/etc/init.d/networking": PROGRAM,
    "/etc/runlevels/boot": Directory(),
}
FLATCAR: Final[Tree] = {**ARCH, "/etc/os-release": "ID=flatcar\nID_LIKE=coreos\n"}


def dpkg_status(version: str) -> str:
    return (
        "Package: cloud-init-doc\nStatus: install ok installed\nVersion: 1.0\n\n"
        f"Package: cloud-init\nStatus: install ok installed\nVersion: {version}\n\n"
        "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2.13\n"
    )


def with_cloud_init(version: str) -> Tree:
    return {"/etc/cloud/cloud.cfg.d": Directory(), "/var/lib/dpkg/status": dpkg_status(version)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    tree: Tree
    backend: str
    fields: dict[str, object] = dataclasses.field(default_factory=dict)


IMAGES: Final = {
    "ifupdown": Image(tree=DEBIAN, backend="ifupdown"),
    "ifupdown-alpine": Image(tree=ALPINE, backend="ifupdown"),
    "netplan": Image(tree=UBUNTU, backend="netplan"),
    "networkd": Image(tree=ARCH, backend="networkd"),
    "nm": Image(tree=ROCKY_9, backend="nm"),
    "ifcfg": Image(tree=CENTOS_7, backend="ifcfg"),
    "ifcfg-el6": Image(tree=CENTOS_6, backend="ifcfg"),
    "wicked": Image(tree=SLES_15, backend="wicked"),
    "netifrc": Image(tree=GENTOO, backend="netifrc"),
    "rc.inet1": Image(tree=SLACKWARE, backend="rc.inet1"),
    "cloud-init-v2": Image(
        tree={"/etc/os-release": "ID=void\n", **with_cloud_init("23.1.2-0ubuntu0~22.04.1")},
        backend="cloud-init",
        fields={"cloud_init": True},
    ),
    "cloud-init-v1": Image(
        tree={"/etc/os-release": "ID=void\n", **with_cloud_init("0.7.9-2")},
        backend="cloud-init",
        fields={"cloud_init": True},
    ),
    "cloud-init-eni": Image(
        tree={"/etc/os-release": "ID=void\n", **with_cloud_init("0.7.6~bzr976-2")},
        backend="cloud-init",
        fields={"cloud_init": True},
    ),
}

_STATIC: Final = Nic(mac=MACS[0], ipv4="static", address="192.0.2.10/24", gateway="192.0.2.1")


def _like(nic: Nic, **values: object) -> Nic:
    return dataclasses.replace(nic, **values)  # type: ignore[arg-type] # values of the dataclass's own fields


CASES: Final = {
    "static": ConfigureNetwork(nics=(_STATIC,)),
    "static-slaac": ConfigureNetwork(nics=(_like(_STATIC, ipv6="slaac"),)),
    "static-slaac-dhcp": ConfigureNetwork(nics=(_like(_STATIC, ipv6="slaac_dhcp"),)),
    "static-stateful": ConfigureNetwork(nics=(_like(_STATIC, ipv6="dhcp"),)),
    "dhcp": ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv4="dhcp"),)),
    "dhcp-stateful": ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv4="dhcp", ipv6="dhcp"),)),
    "slaac": ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv6="slaac"),)),
    "slaac-dhcp": ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv6="slaac_dhcp"),)),
    "stateful": ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv6="dhcp"),)),
    "no-address": ConfigureNetwork(nics=(Nic(mac=MACS[0]),)),
    "off-link": ConfigureNetwork(nics=(_like(_STATIC, gateway="198.51.100.1", gateway_on_link=True),)),
    "host-route": ConfigureNetwork(nics=(_like(_STATIC, address="192.0.2.10/32", gateway_on_link=True),)),
    "dns": ConfigureNetwork(
        nics=(_like(_STATIC, ipv6="slaac"),),
        dns_servers=("192.0.2.53", "2001:db8::53"),
        dns_search=("example.org", "example.net"),
    ),
    "two": ConfigureNetwork(
        nics=(_STATIC, Nic(mac=MACS[1], ipv4="static", address="198.51.100.7/26", ipv6="slaac_dhcp"))
    ),
    "none": ConfigureNetwork(),
}
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def written(guest: Guest) -> str:
    """Every change a guest saw, with the contents of the files, as one text."""
    blocks = []
    for change, path in dict.fromkeys(trees.changes(guest)):
        if change in ("created", "modified"):
            text = _UUID.sub("<uuid>", trees.text(guest, path))
            blocks.append(f"--- {path} {trees.mode(guest, path):04o}\n{text}")
        elif change == "link":
            blocks.append(f"--- {path} -> {os.readlink(guest.target + path)}\n")
        elif change != "directory":
            blocks.append(f"--- {path} {change}\n")
    blocks += [f"--- warning: {warning}\n" for warning in trees.warnings(guest)]
    return "".join(blocks)
