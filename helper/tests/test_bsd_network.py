"""Network configuration of the BSDs (R-NET-BSD-1, R-NET-FB-1, R-NET-FB-2, R-NET-OB-1, R-NET-NB-1)."""

from __future__ import annotations

import pytest

from snf_image_contract.job import ConfigureNetwork, Nic
from snf_image_contract.names import OsFamily
from snf_image_helper.bsd.network.names import interfaces
from snf_image_helper.errors import RequestError
from snf_image_helper.families import family_of
from snf_image_helper.guest import Guest
from trees import GuestOf, Node, exists, mode, text, warnings

FREEBSD: dict[str, Node] = {"/etc/os-release": 'VERSION_ID="14.1"\n'}
OPENBSD: dict[str, Node] = {"/etc/signify/openbsd-76-base.pub": ""}
NETBSD: dict[str, Node] = {"/etc/release": "NetBSD 10.0/amd64\n", "/sbin/dhcpcd": "x"}


def nic(number: int = 0, **fields: object) -> Nic:
    return Nic(**({"mac": f"aa:00:00:12:34:{number:02x}"} | fields))  # type: ignore[arg-type]  # by name


def static(number: int = 0, **fields: object) -> Nic:
    plain: dict[str, object] = {"ipv4": "static", "address": "192.0.2.10/24", "gateway": "192.0.2.1"}
    return nic(number, **(plain | fields))


def configured(
    guest_of: GuestOf, family: OsFamily, tree: dict[str, Node], *nics: Nic, **more: object
) -> Guest:
    asked = ConfigureNetwork(nics=nics, **more)  # type: ignore[arg-type]  # by name
    guest = guest_of({"/etc/rc.conf": "a=b\n"} | tree, family=family_of(family), configure_network=asked)
    action = guest.family.configure_network
    assert action is not None
    action(guest)
    return guest


@pytest.mark.parametrize(
    ("family", "models", "names"),
    [
        (OsFamily.FREEBSD, ("paravirtual", "e1000", "e1000", "", "rtl8139"), "vtnet0 em0 em1 vtnet1 rl0 re0"),
        (OsFamily.OPENBSD, ("paravirtual", "rtl8139", "ne2k_pci", "ne2k_isa"), "vio0 rl0 re0 ne0 ne1"),
        (OsFamily.NETBSD, ("", "e1000", "rtl8139", "i82551", "i82559er"), "vioif0 wm0 re0 fxp0 fxp1"),
    ],
)  # fmt: skip
def test_names_are_driver_and_index(
    guest_of: GuestOf, family: OsFamily, models: tuple[str, ...], names: str
) -> None:
    """R-NET-BSD-1, T-119: the index counts earlier NICs of that driver."""
    nics = tuple(nic(number, model=model) for number, model in enumerate(models))
    tree: dict[str, Node] = {"/etc/os-release": 'VERSION_ID="12.4"\n'}
    guest = guest_of(tree, family=family_of(family), configure_network=ConfigureNetwork(nics=nics))
    assert " ".join(entry.name for entry in interfaces(guest)) == names


def test_models_without_a_driver_are_refused(guest_of: GuestOf) -> None:
    """R-NET-BSD-1: unknown ones, and those whose driver FreeBSD dropped after 12."""
    with pytest.raises(RequestError, match="NIC 0: openbsd has no driver known for model 'odd'"):
        configured(guest_of, OsFamily.OPENBSD, OPENBSD, nic(model="odd"))
    with pytest.raises(RequestError, match="NIC 0: FreeBSD 14 no longer has a driver for pcnet"):
        configured(guest_of, OsFamily.FREEBSD, FREEBSD, nic(model="pcnet"))
    old: dict[str, Node] = {"/etc/os-release": 'VERSION_ID="12.4"\n'}
    guest = configured(guest_of, OsFamily.FREEBSD, old, nic(model="ne2k_pci", ipv4="dhcp"))
    assert 'ifconfig_ed0="DHCP"' in text(guest, "/etc/rc.conf")


# -- FreeBSD --------------------------------------------------------------------------------------


def test_freebsd_static_with_slaac(guest_of: GuestOf) -> None:
    """R-NET-FB-1: address, netmask, router, and what IPv6 needs; other keys stay."""
    guest = configured(guest_of, OsFamily.FREEBSD, FREEBSD, static(ipv6="slaac"))
    assert text(guest, "/etc/rc.conf") == (
        "a=b\n"
        'ifconfig_vtnet0="inet 192.0.2.10 netmask 255.255.255.0"\n'
        'ifconfig_vtnet0_ipv6="inet6 accept_rtadv"\n'
        'rtsold_enable="YES"\n'
        'defaultrouter="192.0.2.1"\n'
    )


def test_freebsd_keys_are_whole(guest_of: GuestOf) -> None:
    """T-118, R-NET-FB-1, R-NET-FB-2: vtnet10 is not vtnet1; DEFAULT goes; rc.conf.local does not win."""
    tree: dict[str, Node] = FREEBSD | {
        "/etc/rc.conf": 'ifconfig_DEFAULT="DHCP"\nifconfig_vtnet10="x"\n'
        'ifconfig_vtnet1="old"\ndefaultrouter="9.9.9.9"\n',
        "/etc/rc.conf.local": 'ifconfig_vtnet0="old"\nifconfig_vtnet10="y"\n',
    }
    guest = configured(guest_of, OsFamily.FREEBSD, tree, nic(0, ipv4="dhcp"), static(1, gateway=None))
    assert text(guest, "/etc/rc.conf") == (
        'ifconfig_vtnet10="x"\nifconfig_vtnet1="inet 192.0.2.10 netmask 255.255.255.0"\n'
        'ifconfig_vtnet0="DHCP"\n'
    )
    assert text(guest, "/etc/rc.conf.local") == 'ifconfig_vtnet10="y"\n'


def test_freebsd_keeps_one_copy_of_its_rc_conf(guest_of: GuestOf) -> None:
    """R-NET-FB-2: of the image's own file; not of ours."""
    guest = configured(guest_of, OsFamily.FREEBSD, FREEBSD, nic(ipv4="dhcp"))
    action = guest.family.configure_network
    assert action is not None
    action(guest)
    copies = [name for name in guest.root.list("/etc") if name.startswith("rc.conf.snf_image-")]
    assert [text(guest, f"/etc/{name}") for name in copies] == ["a=b\n"]


def test_freebsd_of_other_kinds(guest_of: GuestOf) -> None:
    """R-NET-FB-1, R-NET-5, R-NET-7: stateful DHCPv6, releases before 9, an on-link gateway, no address."""
    guest = configured(
        guest_of, OsFamily.FREEBSD, {"/etc/os-release": 'VERSION_ID="8.4"\n'}, nic(ipv6="dhcp")
    )
    rc_conf = text(guest, "/etc/rc.conf")
    assert 'ifconfig_vtnet0="up"' in rc_conf
    assert 'ipv6_enable="YES"' in rc_conf
    assert 'dhcp6c_interfaces="vtnet0"' in rc_conf
    assert any("needs the port" in warning for warning in warnings(guest))
    host = static(address="192.0.2.10/32", gateway="198.51.100.1", gateway_on_link=True)
    rc_conf = text(configured(guest_of, OsFamily.FREEBSD, FREEBSD, host), "/etc/rc.conf")
    assert 'route_snf_gateway="-host 198.51.100.1 -iface vtnet0"' in rc_conf
    assert "defaultrouter" not in rc_conf


def test_name_servers_of_static_nics(guest_of: GuestOf) -> None:
    """R-NET-6."""
    for family, tree in ((OsFamily.FREEBSD, FREEBSD), (OsFamily.OPENBSD, OPENBSD), (OsFamily.NETBSD, NETBSD)):
        guest = configured(guest_of, family, tree, static(), dns_servers=("192.0.2.53",))
        assert "nameserver 192.0.2.53" in text(guest, "/etc/resolv.conf")


# -- OpenBSD --------------------------------------------------------------------------------------


def test_openbsd_static_with_slaac(guest_of: GuestOf) -> None:
    """R-NET-OB-1, R-NET-14, T-120: the file is replaced; of mygate the IPv6 line is kept."""
    tree: dict[str, Node] = OPENBSD | {
        "/etc/hostname.vio0": "dhcp\n",
        "/etc/mygate": "10.0.0.1\nfe80::1%vio0\n",
    }
    guest = configured(guest_of, OsFamily.OPENBSD, tree, static(ipv6="slaac"))
    assert text(guest, "/etc/hostname.vio0") == (
        "# Made by snf-image\ninet 192.0.2.10 255.255.255.0\ninet6 autoconf -temporary\nup\n"
    )
    assert mode(guest, "/etc/hostname.vio0") == 0o640
    assert text(guest, "/etc/mygate") == "192.0.2.1\nfe80::1%vio0\n"


@pytest.mark.parametrize(
    ("release", "ipv4", "ipv6"),
    [
        ("76", "inet autoconf", "inet6 autoconf -temporary"),
        ("68", "dhcp", "inet6 autoconf -autoconfprivacy"),
        ("55", "dhcp", "rtsol"),
    ],
)
def test_openbsd_by_release(guest_of: GuestOf, release: str, ipv4: str, ipv6: str) -> None:
    """R-NET-OB-1: dhcpleased came with 6.9, autoconf with 5.6."""
    tree: dict[str, Node] = {f"/etc/signify/openbsd-{release}-base.pub": ""}
    guest = configured(guest_of, OsFamily.OPENBSD, tree, nic(ipv4="dhcp", ipv6="slaac"))
    assert text(guest, "/etc/hostname.vio0").splitlines()[1:] == [ipv4, ipv6, "up"]
    assert exists(guest, "/etc/sysctl.conf") == (release == "55")
    assert not exists(guest, "/etc/mygate")


def test_openbsd_has_no_dhcpv6(guest_of: GuestOf) -> None:
    """R-NET-OB-1."""
    guest = configured(guest_of, OsFamily.OPENBSD, OPENBSD, nic(ipv6="dhcp"))
    assert any("no DHCPv6 client" in warning for warning in warnings(guest))


# -- NetBSD ---------------------------------------------------------------------------------------


def test_netbsd_static(guest_of: GuestOf) -> None:
    """R-NET-NB-1."""
    guest = configured(guest_of, OsFamily.NETBSD, NETBSD, static())
    assert text(guest, "/etc/ifconfig.vioif0") == (
        "# Made by snf-image\nup\ninet 192.0.2.10 netmask 255.255.255.0\n"
    )
    assert mode(guest, "/etc/ifconfig.vioif0") == 0o644
    assert text(guest, "/etc/rc.conf") == 'a=b\ndefaultroute="192.0.2.1"\n'


@pytest.mark.parametrize(
    ("release", "dhcpcd", "nics", "lines"),
    [
        ("10.0", True, nic(ipv4="dhcp", ipv6="slaac"), ["!dhcpcd $int"]),
        ("10.0", True, nic(ipv4="dhcp"), ["!dhcpcd -4 $int"]),
        ("10.0", True, nic(ipv6="slaac"), ["!dhcpcd -6 $int"]),
        ("10.0", False, nic(ipv4="dhcp", ipv6="slaac"), ["!dhclient $int"]),
        ("7.2", True, nic(ipv4="dhcp", ipv6="slaac"), ["!dhcpcd $int", "!rtsol $int"]),
        ("6.1", False, nic(ipv6="dhcp"), ["!rtsol $int"]),
    ],
)
def test_netbsd_by_release(
    guest_of: GuestOf, release: str, dhcpcd: bool, nics: Nic, lines: list[str]
) -> None:
    """R-NET-NB-1: rtsol until 7, dhcpcd where it is; what cannot be configured is told."""
    tree: dict[str, Node] = {"/etc/release": f"NetBSD {release}/amd64\n"}
    if dhcpcd:
        tree["/sbin/dhcpcd"] = "x"
    guest = configured(guest_of, OsFamily.NETBSD, tree, nics)
    assert text(guest, "/etc/ifconfig.vioif0").splitlines()[2:] == lines
    assert ("ip6mode" in text(guest, "/etc/rc.conf")) == ("!rtsol $int" in lines)
    assert bool(warnings(guest)) == (not dhcpcd and nics.ipv6 != "none")


def test_equal_input_gives_equal_files(guest_of: GuestOf) -> None:
    """R-NET-14."""
    for family, tree in ((OsFamily.OPENBSD, OPENBSD), (OsFamily.NETBSD, NETBSD), (OsFamily.FREEBSD, FREEBSD)):
        first, second = (configured(guest_of, family, tree, static(), nic(1, ipv4="dhcp")) for _ in "12")
        for name in first.root.list("/etc"):
            if first.root.is_file(f"/etc/{name}"):
                assert text(first, f"/etc/{name}") == text(second, f"/etc/{name}")


def test_no_nic_changes_nothing(guest_of: GuestOf) -> None:
    """R-NET-7."""
    for family, tree in ((OsFamily.OPENBSD, OPENBSD), (OsFamily.NETBSD, NETBSD), (OsFamily.FREEBSD, FREEBSD)):
        guest = configured(guest_of, family, tree)
        assert text(guest, "/etc/rc.conf") == "a=b\n"
        assert not exists(guest, "/etc/hostname.vio0")
