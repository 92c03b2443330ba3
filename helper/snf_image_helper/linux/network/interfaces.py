"""The NICs of a job as back-ends write them: with the names they get in the guest."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Final

from snf_image_contract.job import ConfigureNetwork, Nic
from snf_image_helper.errors import RequestError

MADE_BY: Final = "# Made by snf-image"
"""First line of every generated file (R-NET-14)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One NIC. ``label`` is free (``nic0``); ``name`` is what the guest's kernel calls it (R-NET-9).

    The name servers and search domains are those for static configuration, empty otherwise (R-NET-6).
    """

    index: int
    name: str
    nic: Nic
    static: ipaddress.IPv4Interface | None = None
    dns_servers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"nic{self.index}"

    @property
    def mac(self) -> str:
        """Lower case, with colons."""
        return self.nic.mac

    @property
    def gateway(self) -> str | None:
        """The IPv4 gateway, if this NIC has the default route."""
        return self.nic.gateway if self.static is not None else None

    @property
    def on_link(self) -> bool:
        """Whether the gateway can only be reached by a route of its own (R-NET-5)."""
        if self.static is None or self.nic.gateway is None:
            return False
        return self.nic.gateway_on_link or ipaddress.ip_address(self.nic.gateway) not in self.static.network

    @property
    def unconfigured(self) -> bool:
        """Whether neither family is configured: no address, and none by default either (R-NET-7)."""
        return self.nic.ipv4 == "none" and self.nic.ipv6 == "none"

    def servers(self, version: int) -> tuple[str, ...]:
        """The name servers of one address family."""
        return tuple(text for text in self.dns_servers if ipaddress.ip_address(text).version == version)


_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?")


def interfaces_of(asked: ConfigureNetwork, names: tuple[str, ...]) -> tuple[Interface, ...]:
    """The NICs of a job, named; :class:`RequestError` for an address the host should have refused."""
    return tuple(_interface(asked, index, name) for index, name in enumerate(names))


def _interface(asked: ConfigureNetwork, index: int, name: str) -> Interface:
    nic = asked.nics[index]
    if not _MAC.fullmatch(nic.mac):
        raise RequestError(f"NIC {index}: {nic.mac!r} is not a MAC address in lower case with colons")
    if nic.ipv4 != "static":
        return Interface(index=index, name=name, nic=nic)
    try:
        static = ipaddress.IPv4Interface(nic.address or "")
        if nic.gateway:
            ipaddress.IPv4Address(nic.gateway)
        for server in asked.dns_servers:
            ipaddress.ip_address(server)
    except ValueError as error:
        raise RequestError(f"NIC {index}: {error}") from None
    for domain in asked.dns_search:
        # Back-ends write it into files that shells read.
        if not _DOMAIN.fullmatch(domain):
            raise RequestError(f"DNS_SEARCH: {domain!r} is not a domain name")
    return Interface(
        index=index,
        name=name,
        nic=nic,
        static=static,
        dns_servers=asked.dns_servers,
        dns_search=asked.dns_search,
    )
