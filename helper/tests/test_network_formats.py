"""What back-ends write, read by the parsers of the formats: values, not just text."""

from __future__ import annotations

import configparser
import dataclasses
import json
from typing import Any

import pytest
import yaml

import network_images as images
import trees
from network_images import CASES, IMAGES, MACS
from snf_image_contract.job import ConfigureNetwork, Nic
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network import configure_network
from snf_image_process import run
from trees import GuestOf

BOTH = "static-slaac-dhcp"


def configured(guest_of: GuestOf, backend: str, case: str, **tree: Any) -> Guest:
    image = IMAGES[backend]
    guest = guest_of({**image.tree, **tree}, configure_network=CASES[case], **image.fields)
    configure_network(guest)
    return guest


def ini(guest: Guest, path: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # keys keep their case
    parser.read_string(trees.text(guest, path))
    return {name: dict(parser[name]) for name in parser.sections()}


def shell(guest: Guest, path: str) -> dict[str, str]:
    """The variables that a shell has after it read a file that we wrote; arrays by ``NAME[0]``."""
    text = run(["/bin/bash", "-c", 'set -eu; . "$1"; declare -p', "-", guest.target + path], timeout=20).text
    found: dict[str, str] = {}
    for line in text.splitlines():
        head, _, value = line.partition("=")
        name = head.split()[-1] if head.startswith("declare ") else ""
        if value.startswith("("):
            for part in value.strip("()").split(" ["):
                index, _, item = part.strip("[] ").partition("]=")
                found[f"{name}[{index}]"] = item.strip('"')
        elif name:
            found[name] = value.strip('"')
    return found


# -- INI -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_profiles_of_networkmanager(case: str, guest_of: GuestOf) -> None:
    """R-NET-NM-1, R-NET-5, R-NET-6, R-NET-7, R-NET-8."""
    guest = configured(guest_of, "nm", case)
    identities = set()
    for index, nic in enumerate(CASES[case].nics):
        path = f"/etc/NetworkManager/system-connections/snf-nic{index}.nmconnection"
        assert (trees.mode(guest, path), trees.owner(guest, path)) == (0o600, (0, 0))
        profile = ini(guest, path)
        identities.add(profile["connection"]["uuid"])
        assert profile["connection"]["type"] == "ethernet"
        assert "interface-name" not in profile["connection"]
        assert profile["ethernet"] == {"mac-address": nic.mac.upper()}
        methods = {"none": "disabled", "dhcp": "auto", "static": "manual"}
        assert profile["ipv4"]["method"] == methods[nic.ipv4]
        assert profile["ipv6"]["method"] == ("disabled" if nic.ipv6 == "none" else "auto")
        if nic.ipv4 == "static":
            gateway = f",{nic.gateway}" if nic.gateway else ""
            assert profile["ipv4"]["address1"] == f"{nic.address}{gateway}"
    assert len(identities) == len(CASES[case].nics)


def test_an_old_networkmanager_knows_no_disabled_ipv6(guest_of: GuestOf) -> None:
    """R-NET-NM-1."""
    tree = {path: node for path, node in images.ROCKY_9.items() if "1.46" not in path}
    old = {**tree, "/usr/lib64/NetworkManager/1.18.8-1.el7": None}
    guest = guest_of(old, configure_network=dataclasses.replace(CASES["static"], backend="nm"))
    configure_network(guest)
    path = "/etc/NetworkManager/system-connections/snf-nic0.nmconnection"
    assert ini(guest, path)["ipv6"] == {"method": "ignore"}


def test_uuids_are_new_each_time(guest_of: GuestOf) -> None:
    """R-NET-NM-1, R-NET-14."""
    path = "/etc/NetworkManager/system-connections/snf-nic0.nmconnection"
    first, second = (ini(configured(guest_of, "nm", "static"), path) for _ in range(2))
    assert first["connection"].pop("uuid") != second["connection"].pop("uuid")
    assert first == second


def test_ipv6_servers_without_ipv6_are_a_warning(guest_of: GuestOf) -> None:
    """R-NET-6."""
    asked = ConfigureNetwork(nics=CASES["static"].nics, dns_servers=("2001:db8::53",))
    guest = guest_of(images.ROCKY_9, configure_network=asked)
    configure_network(guest)
    assert any("IPv6 name servers" in warning for warning in trees.warnings(guest))


@pytest.mark.parametrize(
    ("case", "network", "advertisements"),
    [
        ("static", {"Address": "192.0.2.10/24", "Gateway": "192.0.2.1", "IPv6AcceptRA": "no",
                    "LinkLocalAddressing": "no"}, {}),
        ("dhcp", {"DHCP": "ipv4", "IPv6AcceptRA": "no", "LinkLocalAddressing": "no"}, {}),
        ("dhcp-stateful", {"DHCP": "yes", "IPv6AcceptRA": "yes", "IPv6PrivacyExtensions": "no"},
         {"DHCPv6Client": "always"}),
        ("stateful", {"DHCP": "ipv6", "IPv6AcceptRA": "yes", "IPv6PrivacyExtensions": "no"},
         {"DHCPv6Client": "always"}),
        ("slaac", {"IPv6AcceptRA": "yes", "IPv6PrivacyExtensions": "no"}, {"DHCPv6Client": "no"}),
        ("slaac-dhcp", {"IPv6AcceptRA": "yes", "IPv6PrivacyExtensions": "no"}, {}),
        ("no-address", {"IPv6AcceptRA": "no", "LinkLocalAddressing": "no"}, {}),
    ],
)  # fmt: skip
def test_networks_of_networkd(
    case: str, network: dict[str, str], advertisements: dict[str, str], guest_of: GuestOf
) -> None:
    """R-NET-ND-1, R-NET-7, R-NET-8."""
    found = ini(configured(guest_of, "networkd", case), "/etc/systemd/network/05-snf-nic0.network")
    assert found["Match"] == {"MACAddress": MACS[0]}
    assert found["Network"] == network
    assert found.get("IPv6AcceptRA", {}) == advertisements


def test_a_gateway_off_the_subnet_gets_its_own_route(guest_of: GuestOf) -> None:
    """R-NET-5: /32 addresses too, in each back-end that can say it."""
    route = {"Gateway": "192.0.2.1", "GatewayOnLink": "yes"}
    networkd = ini(configured(guest_of, "networkd", "host-route"), "/etc/systemd/network/05-snf-nic0.network")
    assert networkd["Route"] == route
    assert "Gateway" not in networkd["Network"]
    netplan = yaml.safe_load(
        trees.text(configured(guest_of, "netplan", "off-link"), "/etc/netplan/90-snf-image.yaml")
    )["network"]["ethernets"]["nic0"]
    assert netplan["routes"] == [{"to": "0.0.0.0/0", "via": "198.51.100.1", "on-link": True}]
    guest = configured(guest_of, "rc.inet1", "off-link")
    assert any("outside its subnet" in warning for warning in trees.warnings(guest))


# -- YAML ------------------------------------------------------------------------------------------


def test_netplan_says_what_the_sample_says(guest_of: GuestOf) -> None:
    """R-NET-NP-1, R-NET-NP-2, R-NET-8."""
    guest = configured(guest_of, "netplan", "static-slaac-dhcp")
    assert trees.mode(guest, "/etc/netplan/90-snf-image.yaml") == 0o600
    assert yaml.safe_load(trees.text(guest, "/etc/netplan/90-snf-image.yaml")) == {
        "network": {
            "version": 2,
            "renderer": "networkd",
            "ethernets": {
                "nic0": {
                    "match": {"macaddress": "aa:00:00:12:34:56"},
                    "addresses": ["192.0.2.10/24"],
                    "routes": [{"to": "0.0.0.0/0", "via": "192.0.2.1"}],
                    "accept-ra": True,
                }
            },
        }
    }


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("stateful", {"dhcp6": True}),
        ("slaac", {"accept-ra": True, "dhcp6": False}),
        ("slaac-dhcp", {"accept-ra": True}),
        ("no-address", {"accept-ra": False, "link-local": []}),
    ],
)
def test_ipv6_of_netplan(case: str, expected: dict[str, object], guest_of: GuestOf) -> None:
    """R-NET-NP-2."""
    guest = configured(guest_of, "netplan", case)
    document = yaml.safe_load(trees.text(guest, "/etc/netplan/90-snf-image.yaml"))
    ethernet = document["network"]["ethernets"]["nic0"]
    del ethernet["match"]
    assert ethernet == expected


def test_version_2_of_cloud_init(guest_of: GuestOf) -> None:
    """R-NET-CI-1, R-NET-8: one document for all NICs, by MAC, with no key around it."""
    path = "/var/lib/cloud/seed/nocloud-net/network-config"
    guest = configured(guest_of, "cloud-init-v2", "two", **{path: "version: 1\nold: true\n"})
    document = yaml.safe_load(trees.text(guest, path))
    assert sorted(document) == ["ethernets", "version"]
    assert document["version"] == 2
    assert [ethernet["match"] for ethernet in document["ethernets"].values()] == [
        {"macaddress": mac} for mac in MACS
    ]
    assert trees.mode(guest, path) == 0o600


@pytest.mark.parametrize(("version", "document"), [("18.3", 2), ("18.2", 1), ("0.7.7", 1), ("24.1", 2)])
def test_the_version_decides(version: str, document: int, guest_of: GuestOf) -> None:
    """R-NET-CI-1."""
    tree = {"/etc/os-release": "ID=void\n", **images.with_cloud_init(version)}
    guest = guest_of(tree, cloud_init=True, configure_network=CASES["static"])
    configure_network(guest)
    text = trees.text(guest, "/var/lib/cloud/seed/nocloud-net/network-config")
    assert yaml.safe_load(text)["version"] == document


def test_version_1_of_cloud_init_keeps_type_address_and_ipv6(guest_of: GuestOf) -> None:
    """T-116, R-NET-CI-2: the types as the version knows them."""
    path = "/var/lib/cloud/seed/nocloud-net/network-config"
    static = {"type": "static", "address": "192.0.2.10", "netmask": "255.255.255.0", "gateway": "192.0.2.1"}
    guest = configured(guest_of, "cloud-init-v1", BOTH)
    (physical,) = yaml.safe_load(trees.text(guest, path))["config"]
    assert physical == {
        "type": "physical",
        "name": "eth0",
        "mac_address": MACS[0],
        "subnets": [static, {"type": "dhcp6"}],
    }
    unknown = guest_of(
        {"/etc/os-release": "ID=void\n", "/etc/cloud/cloud.cfg.d": None},
        cloud_init=True,
        configure_network=ConfigureNetwork(nics=(*CASES[BOTH].nics, Nic(mac=MACS[1], ipv6="slaac"))),
    )
    configure_network(unknown)
    first, second = yaml.safe_load(trees.text(unknown, path))["config"]
    assert first["subnets"] == [static, {"type": "ipv6_dhcpv6-stateless"}]
    assert second["subnets"] == [{"type": "ipv6_slaac"}]


def test_two_nics_of_an_old_cloud_init_share_one_key(guest_of: GuestOf) -> None:
    """T-117, R-NET-CI-3."""
    guest = configured(guest_of, "cloud-init-eni", "two")
    text = trees.text(guest, "/var/lib/cloud/seed/nocloud-net/meta-data")
    assert text.count("network-interfaces") == 1
    assert "network-interfaces: |" in text
    block = yaml.safe_load(text)["network-interfaces"]
    assert [line for line in block.splitlines() if line.startswith("iface ")] == [
        "iface lo inet loopback",
        "iface eth0 inet static",
        "iface eth1 inet static",
        "iface eth1 inet6 auto",
    ]
    assert not trees.exists(guest, "/var/lib/cloud/seed/nocloud-net/network-config")


# -- files that shells read ------------------------------------------------------------------------


def test_ifcfg_read_by_a_shell(guest_of: GuestOf) -> None:
    """R-NET-IFCFG-1, R-NET-IFCFG-2, T-115."""
    guest = configured(guest_of, "ifcfg", "dns")
    values = shell(guest, "/etc/sysconfig/network-scripts/ifcfg-nic0")
    expected = {
        "NAME": "nic0", "TYPE": "Ethernet", "HWADDR": MACS[0], "ONBOOT": "yes", "BOOTPROTO": "none",
        "IPADDR": "192.0.2.10", "PREFIX": "24", "GATEWAY": "192.0.2.1", "IPV6INIT": "yes",
        "IPV6_AUTOCONF": "yes", "DNS1": "192.0.2.53", "DNS2": "2001:db8::53",
        "DOMAIN": "example.org example.net",
    }  # fmt: skip
    assert {key: values.get(key) for key in expected} == expected
    stateful = shell(
        configured(guest_of, "ifcfg", "dhcp-stateful"), "/etc/sysconfig/network-scripts/ifcfg-nic0"
    )
    assert (stateful["IPV4_FAILURE_FATAL"], stateful["IPV6_FAILURE_FATAL"]) == ("no", "no")
    assert (stateful["IPV6_AUTOCONF"], stateful["DHCPV6C"]) == ("no", "yes")


def test_wicked_read_by_a_shell(guest_of: GuestOf) -> None:
    """R-NET-WI-1."""
    values = shell(configured(guest_of, "wicked", BOTH), "/etc/sysconfig/network/ifcfg-nic0")
    assert (values["STARTMODE"], values["BOOTPROTO"], values["IPADDR"], values["DHCLIENT6_MODE"]) == (
        "auto", "dhcp6", "192.0.2.10/24", "info",
    )  # fmt: skip


def test_netifrc_read_by_a_shell(guest_of: GuestOf) -> None:
    """R-NET-GE-1."""
    guest = configured(guest_of, "netifrc", "two")
    values = shell(guest, "/etc/conf.d/net")
    assert values["config_nic0"] == "192.0.2.10/24"
    assert values["routes_nic0"] == "default via 192.0.2.1"
    assert values["config_nic1"] == "198.51.100.7/26 dhcpv6"
    assert trees.exists(guest, "/etc/runlevels/default/net.nic1")


def test_rc_inet1_read_by_a_shell(guest_of: GuestOf) -> None:
    """R-NET-SL-1: other keys are kept, those of NICs that are not there are emptied."""
    values = shell(configured(guest_of, "rc.inet1", BOTH), "/etc/rc.d/rc.inet1.conf")
    expected = {
        "IPADDR[0]": "192.0.2.10", "NETMASK[0]": "255.255.255.0", "USE_DHCP[0]": "", "USE_SLAAC[0]": "yes",
        "USE_DHCP6[0]": "yes", "USE_DHCP[1]": "", "GATEWAY": "192.0.2.1", "DHCP_HOSTNAME[0]": "darkstar",
        "DEBUG_ETH_UP": "no",
    }  # fmt: skip
    assert {key: values.get(key) for key in expected} == expected


def test_an_old_rc_inet1_knows_no_dhcpv6(guest_of: GuestOf) -> None:
    """R-NET-SL-1: IPv6 where the file knows the keys, else a warning."""
    tree = {**images.SLACKWARE, "/etc/rc.d/rc.inet1.conf": 'IPADDR[0]=""\nUSE_DHCP[0]="yes"\n'}
    guest = guest_of(tree, configure_network=CASES["stateful"])
    configure_network(guest)
    assert trees.text(guest, "/etc/rc.d/rc.inet1.conf") == (
        'IPADDR[0]=""\nUSE_DHCP[0]=""\nNETMASK[0]=""\nGATEWAY=""\n'
    )
    assert any("DHCPv6" in warning for warning in trees.warnings(guest))


def test_the_resolver_file_is_left_to_who_keeps_it(guest_of: GuestOf) -> None:
    """R-NET-6."""
    for extra, written, warned in (
        ({"/etc/resolv.conf": "nameserver 203.0.113.1\n"}, True, 0),
        ({"/etc/resolv.conf": trees.Link("/run/systemd/resolve/stub-resolv.conf")}, False, 1),
        ({"/etc/resolv.conf": "nameserver 203.0.113.1\n", "/sbin/resolvconf": images.PROGRAM}, False, 0),
    ):
        guest = configured(guest_of, "ifupdown", "dns", **extra)
        changed = [path for _, path in trees.changes(guest)]
        assert ("/etc/resolv.conf" in changed) is written
        assert len(trees.warnings(guest)) == warned


def test_no_nics_need_no_more_than_loopback(guest_of: GuestOf) -> None:
    """R-NET-7."""
    for backend in IMAGES:
        guest = configured(guest_of, backend, "none")
        paths = {path for change, path in trees.changes(guest) if change in ("created", "modified")}
        expected = {"/etc/network/interfaces"} if backend.startswith("ifupdown") else set()
        assert paths == expected, json.dumps(sorted(paths))
