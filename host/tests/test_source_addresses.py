"""Which addresses and hosts may be talked to, before anybody is."""

from __future__ import annotations

import ipaddress

import pytest

from snf_image_host.deployment import FetchPolicy
from snf_image_host.errors import UserError
from snf_image_host.fetching.addresses import allowed_addresses, why_refused


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"), ("127.255.3.4", "loopback"), ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"), ("2002:7f00:1::", "loopback"), ("64:ff9b::7f00:1", "loopback"),
        ("169.254.169.254", "link-local"), ("fe80::1", "link-local"), ("0.0.0.0", "unspecified"),  # noqa: S104
        ("0.1.2.3", "unspecified"), ("::", "unspecified"), ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"), ("10.1.2.3", None), ("fd00::1", None), ("192.0.2.1", None),
        ("8.8.8.8", None), ("2606:4700::1", None),
    ],
)  # fmt: skip
def test_addresses_of_the_node_itself_are_refused(address: str, reason: str | None) -> None:
    """R-FETCH-3, D-13, T-3: whatever they are written as."""
    assert why_refused(ipaddress.ip_address(address), allow_private=True) == reason


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.1", "172.16.0.1", "fd00::1", "100.64.0.1"])
def test_private_addresses_are_the_operators_choice(address: str) -> None:
    """R-FETCH-3: FETCH_ALLOW_PRIVATE."""
    assert why_refused(ipaddress.ip_address(address), allow_private=False) == "private"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/",
            "http://localhost/", "http://0/"],
)  # fmt: skip
def test_odd_spellings_are_what_they_resolve_to(url: str) -> None:
    """R-FETCH-3, T-3."""
    with pytest.raises(UserError, match=r"has a (loopback|unspecified) address"):
        allowed_addresses(url, FetchPolicy(), url)


def test_hosts_outside_the_list_are_refused() -> None:
    """R-FETCH-3: names, suffixes, addresses and networks; nothing that only looks like them."""
    policy = FetchPolicy(hosts=("images.test", "*.cdn.test", "192.0.2.0/28"))
    assert allowed_addresses("http://192.0.2.7/", policy, "x")[0][1] == 80
    assert allowed_addresses("https://192.0.2.7/", policy, "x")[0][1] == 443
    for url in ("http://192.0.2.17/", "http://127.0.0.1/"):
        with pytest.raises(UserError, match="not in FETCH_ALLOWED_HOSTS"):
            allowed_addresses(url, policy, "x")
