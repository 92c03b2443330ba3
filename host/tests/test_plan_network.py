"""What each network interface gets."""

from __future__ import annotations

from typing import Any

import pytest

from snf_image_contract.job import Nic
from snf_image_host.configuration import NodeConfig
from snf_image_host.parameters.problems import Problems
from snf_image_host.planning.network import decide_nics
from snf_image_host.planning.request import AskedNic

MAC = "aa:00:00:12:34:56"
STATIC = {"ip": "192.0.2.10", "subnet": "192.0.2.0/24"}


def decide(*nics: dict[str, Any], config: NodeConfig | None = None) -> tuple[tuple[Nic, ...], Problems]:
    problems = Problems()
    asked = tuple(AskedNic(**{"mac": f"aa:00:00:00:00:{index:02x}", **nic}) for index, nic in enumerate(nics))
    return decide_nics(asked, config or NodeConfig.defaults(default_nic_config=""), problems), problems


def one(config: NodeConfig | None = None, /, **nic: Any) -> Nic:
    nics, problems = decide(nic, config=config)
    assert problems.errors == []
    return nics[0]


def wrong(**nic: Any) -> str:
    _, problems = decide(nic)
    assert len(problems.errors) == 1
    return problems.errors[0]


def test_a_static_address() -> None:
    """R-NET-2: with the prefix of the subnet."""
    nic = one(mac="AA-00-00-12-34-56", **STATIC, gateway="192.0.2.1", model="e1000")
    assert nic == Nic(mac=MAC, ipv4="static", address="192.0.2.10/24", gateway="192.0.2.1", model="e1000")


def test_dhcp_by_tag_or_without_a_subnet() -> None:
    """R-NET-2"""
    assert one(**STATIC, tags="a nfdhcpd").ipv4 == "dhcp"
    assert one(ip="192.0.2.10").ipv4 == "dhcp"
    assert one(**STATIC, tags="dhcp-not").ipv4 == "static"
    assert one(NodeConfig.defaults(dhcp_tags=("mine",)), **STATIC, tags="dhcp").ipv4 == "static"
    assert one(NodeConfig.defaults(dhcp_tags=("mine",)), **STATIC, tags="mine").ipv4 == "dhcp"


def test_no_address_is_no_ipv4() -> None:
    """R-NET-2: whatever the tags say."""
    assert one(subnet="192.0.2.0/24", tags="dhcp").ipv4 == "none"


@pytest.mark.parametrize(
    ("tags", "ipv6"),
    [
        ("", "slaac"),
        ("other", "slaac"),
        ("dhcpv6", "dhcp"),
        ("stateful_dhcpv6", "dhcp"),
        ("nfdhcpd", "slaac_dhcp"),
        ("dhcpv6 nfdhcpd", "slaac_dhcp"),
        ("nfdhcpd dhcpv6", "dhcp"),
        ("nfdhcpd dhcpv6 other", "dhcp"),
    ],
)
def test_ipv6_by_the_last_tag(tags: str, ipv6: str) -> None:
    """R-NET-3"""
    assert one(gateway6="2001:db8::1", tags=tags).ipv6 == ipv6


def test_ipv6_of_a_tag_in_both_lists() -> None:
    """R-NET-3"""
    config = NodeConfig.defaults(stateful_dhcpv6_tags=("x",), stateless_dhcpv6_tags=("x",))
    assert one(config, gateway6="2001:db8::1", tags="x").ipv6 == "slaac_dhcp"


def test_ipv6_needs_a_gateway() -> None:
    """R-NET-3"""
    assert one(subnet6="2001:db8::/64", tags="dhcpv6").ipv6 == "none"


@pytest.mark.parametrize(
    ("default", "ipv4", "ipv6"),
    [
        ("", "none", "none"),
        ("dhcp", "dhcp", "none"),
        ("dhcpv6", "none", "dhcp"),
        ("slaac", "none", "slaac"),
        ("slaac_dhcp", "none", "slaac_dhcp"),
        ("dhcp+dhcpv6", "dhcp", "dhcp"),
        ("dhcp+slaac", "dhcp", "slaac"),
        ("dhcp+slaac_dhcp", "dhcp", "slaac_dhcp"),
    ],
)
def test_the_only_interface_without_configuration(default: str, ipv4: str, ipv6: str) -> None:
    """R-NET-4: a warning both ways."""
    [nic], problems = decide({}, config=NodeConfig.defaults(default_nic_config=default))
    assert (nic.ipv4, nic.ipv6) == (ipv4, ipv6)
    assert len(problems.warnings) == 1
    assert "DEFAULT_NIC_CONFIG" in problems.warnings[0]


def test_the_default_is_for_one_bare_interface_only() -> None:
    """R-NET-4, R-NET-7"""
    config = NodeConfig.defaults(default_nic_config="dhcp+slaac")
    nics, problems = decide({}, {}, config=config)
    assert [(nic.ipv4, nic.ipv6) for nic in nics] == [("none", "none")] * 2
    assert problems.warnings == []
    [nic], _ = decide({"gateway6": "2001:db8::1"}, config=config)
    assert (nic.ipv4, nic.ipv6) == ("none", "slaac")
    assert decide(config=config)[0] == ()


def test_a_gateway_outside_the_subnet() -> None:
    """R-NET-5: an on-link route; /32 works."""
    assert one(**STATIC, gateway="192.0.3.1").gateway_on_link is True
    assert one(**STATIC, gateway="192.0.2.1").gateway_on_link is False
    host = one(ip="192.0.2.10", subnet="192.0.2.10/32", gateway="192.0.2.1")
    assert (host.address, host.gateway_on_link) == ("192.0.2.10/32", True)


def test_one_default_route() -> None:
    """R-NET-5: the first with a gateway."""
    bare = {"ip": "198.51.100.2", "subnet": "198.51.100.0/24"}
    nics, problems = decide(bare, STATIC | {"gateway": "192.0.2.1"}, bare | {"gateway": "198.51.200.1"})
    assert [nic.gateway for nic in nics] == [None, "192.0.2.1", None]
    assert nics[2].gateway_on_link is False
    assert len(problems.warnings) == 1
    assert "198.51.200.1" in problems.warnings[0]


@pytest.mark.parametrize(
    ("field", "variable", "text"),
    [
        ("mac", "NIC_0_MAC", "aa:bb"),
        ("ip", "NIC_0_IP", "192.0.2"),
        ("ip", "NIC_0_IP", "2001:db8::1"),
        ("ip", "NIC_0_IP", "dhcp"),
        ("subnet", "NIC_0_NETWORK_SUBNET", "192.0.2.0/99"),
        ("gateway", "NIC_0_NETWORK_GATEWAY", "x"),
        ("subnet6", "NIC_0_NETWORK_SUBNET6", "2001:db8::"),
        ("gateway6", "NIC_0_NETWORK_GATEWAY6", "192.0.2.1"),
    ],
)
def test_malformed_fields_name_the_variable(field: str, variable: str, text: str) -> None:
    """R-NET-1"""
    assert wrong(**{field: text}).startswith(f"{variable}: must be ")
    assert wrong(**{field: text}, tags="dhcp").startswith(f"{variable}: must be ")


def test_options_are_named_as_options() -> None:
    """R-NET-1, D-33"""
    assert wrong(gateway="x", origin="option").startswith("--nic 1: gateway: must be ")
    assert one(ip="dhcp", origin="option").ipv4 == "dhcp"


def test_odd_but_possible() -> None:
    _, problems = decide({"mac": MAC, "ip": "10.0.0.1", "subnet": "192.0.2.0/24"}, {"mac": MAC})
    assert len(problems.warnings) == 2
    assert "not in the subnet" in problems.warnings[0]
    assert "same MAC" in problems.warnings[1]


def test_every_wrong_interface_is_named() -> None:
    """R-OSP-16"""
    bad: Any = {"mac": "x", "ip": "y"}
    nics, problems = decide(bad, {}, bad)
    assert len(nics) == 1
    assert [line.partition(":")[0] for line in problems.errors] == [
        "NIC_0_MAC",
        "NIC_0_IP",
        "NIC_2_MAC",
        "NIC_2_IP",
    ]
