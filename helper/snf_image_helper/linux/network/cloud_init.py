"""cloud-init's own network configuration in the NoCloud seed (R-NET-CI-1 to R-NET-CI-3).

Its ChangeLog: version 2 is understood since 17.1, rendered well by every back-end since 18.3; the types
``ipv6_slaac`` and ``ipv6_dhcpv6-stateless`` of version 1 came with 19.4; until 17.1 addresses of version 1
with a prefix were not rendered well, so that the netmask stands beside them, and the type ``manual`` was
refused, so that a NIC without an address has no subnets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init, yaml_text
from snf_image_helper.linux.network import names, netplan
from snf_image_helper.linux.network.ifupdown import interfaces_file
from snf_image_helper.linux.network.interfaces import MADE_BY, Interface

_VERSION_2_SINCE: Final = (18, 3)
_NETWORK_CONFIG_SINCE: Final = (0, 7, 7)
_IPV6_TYPES_SINCE: Final = (19, 4)


def configure(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    """Write the form that the image's cloud-init reads; an unknown version gets version 1."""
    version = cloud_init.version(guest)
    if version is not None and version < _NETWORK_CONFIG_SINCE:
        # Later releases rename NICs themselves.
        names.write_renames(guest, guest.job.configure_network.nics)
        cloud_init.set_meta_data(guest, network_interfaces=interfaces_file(interfaces))
        return
    if version is not None and version >= _VERSION_2_SINCE:
        document = version_2(interfaces)
    else:
        document = version_1(interfaces, knows_ipv6_types=version is None or version >= _IPV6_TYPES_SINCE)
        for interface in interfaces:
            if interface.on_link:
                guest.warn(
                    f"{interface.label}: cloud-init of the image may not reach a gateway off the subnet"
                )
    text = f"{MADE_BY}\n{yaml_text.dump(document)}"
    cloud_init.write_seed(guest, "network-config", text.encode("ascii"))


def version_2(interfaces: tuple[Interface, ...]) -> dict[str, object]:
    """Netplan's words. Back-ends of cloud-init other than netplan need the name that the NIC gets."""
    ethernets: dict[str, object] = {}
    for interface in interfaces:
        entry = netplan.ethernet(interface)
        ethernets[interface.label] = {"match": entry.pop("match"), "set-name": interface.name, **entry}
    return {"version": 2, "ethernets": ethernets}


def version_1(interfaces: tuple[Interface, ...], *, knows_ipv6_types: bool) -> dict[str, object]:
    """The older words, for releases before 18.3."""
    return {
        "version": 1,
        "config": [
            {
                "type": "physical",
                "name": interface.name,
                "mac_address": interface.mac,
                "subnets": list(_subnets(interface, knows_ipv6_types=knows_ipv6_types)),
            }
            for interface in interfaces
        ],
    }


def _subnets(interface: Interface, *, knows_ipv6_types: bool) -> Iterator[dict[str, object]]:
    nic = interface.nic
    if nic.ipv4 == "dhcp":
        yield {"type": "dhcp4"}
    if interface.static is not None:
        subnet: dict[str, object] = {
            "type": "static",
            "address": str(interface.static.ip),
            "netmask": str(interface.static.netmask),
        }
        if interface.gateway:
            subnet["gateway"] = interface.gateway
        if interface.dns_servers:
            subnet["dns_nameservers"] = list(interface.dns_servers)
        if interface.dns_search:
            subnet["dns_search"] = list(interface.dns_search)
        yield subnet
    if nic.ipv6 == "dhcp":
        yield {"type": "dhcp6"}
    elif nic.ipv6 != "none":
        # A type it does not know makes an old release configure nothing at all. Its dhcp6 leaves the
        # kernel's own autoconfiguration on.
        known = {"slaac": "ipv6_slaac", "slaac_dhcp": "ipv6_dhcpv6-stateless"}[nic.ipv6]
        yield {"type": known if knows_ipv6_types else "dhcp6"}
