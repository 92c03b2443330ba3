"""Which addresses may be talked to (R-FETCH-3, D-13).

A name is resolved once, here; the connection is made to the address that was checked and to no other.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.parse
from collections.abc import Sequence
from typing import Final

from snf_image_host.deployment import FetchPolicy
from snf_image_host.errors import NodeError, UserError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ftp": 21, "ftps": 990}
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_SHARED: Final = ipaddress.IPv4Network("100.64.0.0/10")


def allowed_addresses(url: str, policy: FetchPolicy, shown: str) -> tuple[tuple[Address, int], ...]:
    """Addresses and port that the host of ``url`` may be reached at, in the resolver's order.

    :class:`UserError` if all of them are refused, :class:`NodeError` if the name cannot be resolved.
    """
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    port = parts.port or DEFAULT_PORTS[parts.scheme.lower()]
    listed = any(_matches_name(pattern, host) for pattern in policy.hosts)
    found = _resolve(host, port, shown)
    allowed = tuple(
        (address, port)
        for address in found
        if listed or any(_matches_address(pattern, address) for pattern in policy.hosts)
    )
    if policy.hosts:
        if not allowed:
            raise UserError(f"{shown} is not fetched: its host is not in FETCH_ALLOWED_HOSTS")
        return allowed
    reasons = {address: why_refused(address, allow_private=policy.allow_private) for address in found}
    allowed = tuple((address, port) for address, reason in reasons.items() if reason is None)
    if not allowed:
        what = " and ".join(sorted({reason for reason in reasons.values() if reason is not None}))
        raise UserError(
            f"{shown} is not fetched: its host has a {what} address",
            hint="the operator can allow the host by FETCH_ALLOWED_HOSTS",
        )
    return allowed


def why_refused(address: Address, *, allow_private: bool) -> str | None:
    """A word for the kind of an address that is not talked to; None if it is fine."""
    for inner in _embedded(address):
        reason = why_refused(inner, allow_private=allow_private)
        if reason is not None:
            return reason
    if address.is_unspecified or address in _THIS_NETWORK:
        return "unspecified"
    for word in ("loopback", "link-local", "multicast"):
        if getattr(address, f"is_{word.replace('-', '_')}"):
            return word
    if address.version == 4 and address.is_reserved:
        return "reserved"
    if not allow_private and (address.is_private or address in _SHARED):
        return "private"
    return None


def _embedded(address: Address) -> Sequence[ipaddress.IPv4Address]:
    """IPv4 addresses that packets to an IPv6 address may end at."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [inner for inner in (address.ipv4_mapped, address.sixtofour) if inner is not None]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def _resolve(host: str, port: int, shown: str) -> tuple[Address, ...]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise NodeError(f"{shown} cannot be fetched: its host has no address ({reason})") from None
    # A scope id belongs to link-local addresses only, which are refused.
    texts = (str(answer[4][0]).partition("%")[0] for answer in answers)
    return tuple(dict.fromkeys(ipaddress.ip_address(text) for text in texts))


def _matches_name(pattern: str, host: str) -> bool:
    pattern = pattern.lower().rstrip(".")
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _matches_address(pattern: str, address: Address) -> bool:
    try:
        return address in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False
