"""What each network interface gets (R-NET-1 to R-NET-5)."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable
from typing import Final, Literal, TypeVar

from snf_image_contract.job import Nic
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.parameters.problems import Problems
from snf_image_host.parameters.values import (
    parse_ipv4,
    parse_ipv4_network,
    parse_ipv6,
    parse_ipv6_network,
    parse_mac,
)
from snf_image_host.planning.request import AskedNic

T = TypeVar("T")
Ipv6 = Literal["none", "dhcp", "slaac", "slaac_dhcp"]
DHCP_WORD: Final = "dhcp"
"""``--nic ip=dhcp``: DHCP without a network that says so."""
NIC_VARIABLES: Final = {
    "mac": "MAC",
    "ip": "IP",
    "subnet": "NETWORK_SUBNET",
    "gateway": "NETWORK_GATEWAY",
    "subnet6": "NETWORK_SUBNET6",
    "gateway6": "NETWORK_GATEWAY6",
    "tags": "NETWORK_TAGS",
    "model": "FRONTEND_TYPE",
    "name": "NAME",
    "mode": "MODE",
    "link": "LINK",
    "network": "NETWORK_NAME",
}
"""Fields of an asked NIC and what they are called behind ``NIC_<n>_``."""


def decide_nics(asked: tuple[AskedNic, ...], config: NodeConfig, problems: Problems) -> tuple[Nic, ...]:
    """One decided NIC for each asked one that can be read."""
    nics: list[Nic] = []
    for index, nic in enumerate(asked):
        decided = _decide(index, nic, config, problems)
        if decided is not None:
            nics.append(decided)
    if len({nic.mac for nic in nics}) < len(nics):
        problems.warn("two network interfaces have the same MAC address")
    return _one_default_route(_default_nic(nics, config, problems), problems)


def nic_variables(asked: tuple[AskedNic, ...]) -> dict[str, str]:
    """``NIC_COUNT`` and ``NIC_<n>_*`` for custom tasks; fields that were not given are absent."""
    variables = {"NIC_COUNT": str(len(asked))}
    for index, nic in enumerate(asked):
        for field, name in NIC_VARIABLES.items():
            if getattr(nic, field):
                variables[f"NIC_{index}_{name}"] = getattr(nic, field)
    return variables


def _named(index: int, nic: AskedNic, field: str) -> str:
    return (
        f"NIC_{index}_{NIC_VARIABLES[field]}"
        if nic.origin == "environment"
        else f"--nic {index + 1}: {field}"
    )


def _decide(index: int, nic: AskedNic, config: NodeConfig, problems: Problems) -> Nic | None:
    before = len(problems.errors)
    mac = problems.parse(_named(index, nic, "mac"), parse_mac, nic.mac)
    # Malformed values are errors even where DHCP makes them unnecessary.
    subnet = _optional(index, nic, "subnet", parse_ipv4_network, problems)
    gateway = _optional(index, nic, "gateway", parse_ipv4, problems)
    _optional(index, nic, "subnet6", parse_ipv6_network, problems)
    gateway6 = _optional(index, nic, "gateway6", parse_ipv6, problems)
    dhcp = nic.origin == "option" and nic.ip == DHCP_WORD
    ip = None if dhcp else _optional(index, nic, "ip", parse_ipv4, problems)
    if mac is None or len(problems.errors) > before:
        return None
    tags = nic.tags.split()
    decided = Nic(
        mac=mac,
        ipv6=_ipv6(tags, config) if gateway6 else "none",
        model=nic.model or "paravirtual",
    )
    if dhcp or (ip and (subnet is None or set(tags) & set(config.dhcp_tags))):
        return dataclasses.replace(decided, ipv4="dhcp")
    if ip is None or subnet is None:
        return decided
    if ip not in subnet:
        problems.warn(f"{_named(index, nic, 'ip')}: {ip} is not in the subnet {subnet}")
    address = ipaddress.IPv4Interface(f"{ip}/{subnet.prefixlen}")
    return dataclasses.replace(
        decided,
        ipv4="static",
        address=str(address),
        gateway=str(gateway) if gateway else None,
        gateway_on_link=gateway is not None and gateway not in address.network,
    )


def _optional(
    index: int, nic: AskedNic, field: str, parse: Callable[[str], T], problems: Problems
) -> T | None:
    text: str = getattr(nic, field)
    return problems.parse(_named(index, nic, field), parse, text) if text else None


def _ipv6(tags: list[str], config: NodeConfig) -> Ipv6:
    """The last tag that is in a list decides; one that is in both means stateless (R-NET-3)."""
    for tag in reversed(tags):
        if tag in config.stateless_dhcpv6_tags:
            return "slaac_dhcp"
        if tag in config.stateful_dhcpv6_tags:
            return "dhcp"
    return "slaac"


def _default_nic(nics: list[Nic], config: NodeConfig, problems: Problems) -> list[Nic]:
    """DEFAULT_NIC_CONFIG for the only interface, if nothing else configures it (R-NET-4)."""
    if len(nics) != 1 or nics[0].ipv4 != "none" or nics[0].ipv6 != "none":
        return nics
    default = config.default_nic_config
    if not default:
        problems.warn("the network interface gets no address: none is given and DEFAULT_NIC_CONFIG is empty")
        return nics
    problems.warn(f"no address is given for the network interface: it gets {default} (DEFAULT_NIC_CONFIG)")
    words = default.split("+")
    ipv6: Ipv6 = "none"
    for word in ("dhcpv6", "slaac", "slaac_dhcp"):
        if word in words:
            ipv6 = _IPV6_OF_WORD[word]
    return [dataclasses.replace(nics[0], ipv4="dhcp" if "dhcp" in words else "none", ipv6=ipv6)]


_IPV6_OF_WORD: Final[dict[str, Ipv6]] = {"dhcpv6": "dhcp", "slaac": "slaac", "slaac_dhcp": "slaac_dhcp"}


def _one_default_route(nics: list[Nic], problems: Problems) -> tuple[Nic, ...]:
    """The first gateway stays, the others go, with a warning (R-NET-5)."""
    result: list[Nic] = []
    first: Nic | None = None
    for nic in nics:
        if nic.gateway is None:
            result.append(nic)
        elif first is None:
            first = nic
            result.append(nic)
        else:
            problems.warn(
                f"the gateway {nic.gateway} of interface {nic.mac} is left out: "
                f"the default route is that of {first.mac}"
            )
            result.append(dataclasses.replace(nic, gateway=None, gateway_on_link=False))
    return tuple(result)
