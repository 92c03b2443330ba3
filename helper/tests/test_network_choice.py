"""Which back-end an image gets, and what its NICs are called."""

from __future__ import annotations

import pytest

import network_images as images
import trees
from network_images import MACS, PROGRAM, SYSTEMD, unit
from snf_image_contract.job import ConfigureNetwork, Nic
from snf_image_helper.errors import RequestError
from snf_image_helper.linux.network import chosen_backend, configure_network, installed, names
from trees import Directory, File, GuestOf, Link, Tree

MANAGER: Tree = {
    "/usr/sbin/NetworkManager": PROGRAM,
    "/usr/lib/systemd/system/NetworkManager.service": unit(),
}
NETWORKD: Tree = {"/usr/lib/systemd/system/systemd-networkd.service": unit()}
WANTS = "/etc/systemd/system/multi-user.target.wants"
MANAGER_ENABLED: Tree = {**MANAGER, f"{WANTS}/NetworkManager.service": Link("/usr/lib/systemd/system/x")}
NETWORKD_ENABLED: Tree = {**NETWORKD, f"{WANTS}/systemd-networkd.service": Link("/usr/lib/systemd/system/x")}
IFCFG: Tree = {"/etc/sysconfig/network-scripts/ifup-eth": PROGRAM}
NICS = (Nic(mac=MACS[0], ipv4="dhcp"), Nic(mac=MACS[1], ipv4="dhcp"))


def release(name: str, version: str = "", like: str = "") -> Tree:
    return {"/etc/os-release": f'ID="{name}"\nID_LIKE="{like}"\nVERSION_ID="{version}"\n'}


def without(tree: Tree, *paths: str) -> Tree:
    return {path: node for path, node in tree.items() if path not in paths}


TABLE = {
    "debian with netplan": (images.UBUNTU, "netplan"),
    "debian with ifupdown": (images.DEBIAN, "ifupdown"),
    "debian, ifup without its unit": (
        {**without(images.DEBIAN, "/usr/lib/systemd/system/networking.service"), **NETWORKD_ENABLED},
        "networkd",
    ),
    "debian, ifupdown masked": (
        {**images.DEBIAN, "/etc/systemd/system/networking.service": Link("/dev/null"), **NETWORKD_ENABLED},
        "networkd",
    ),
    "debian, ifupdown of System V": (
        {**release("devuan"), "/sbin/ifup": PROGRAM, "/etc/init.d/networking": PROGRAM},
        "ifupdown",
    ),
    "debian with nm only": ({**release("debian"), **MANAGER}, "nm"),
    "debian, networkd not enabled, nm there": ({**release("debian"), **MANAGER, **NETWORKD}, "nm"),
    "debian, networkd not enabled": ({**release("debian"), **NETWORKD}, "networkd"),
    "debian with nothing": (release("debian"), "none"),
    "el 9": (images.ROCKY_9, "nm"),
    "el 9 with the network scripts": ({**release("rocky", "9.0"), **MANAGER, **IFCFG}, "nm"),
    "el 10": ({**release("rhel", "10.0"), **MANAGER}, "nm"),
    "el 8 with nm 1.40": (
        {**release("rhel", "8.8"), **MANAGER, **IFCFG, "/usr/lib64/NetworkManager/1.40.16-1.el8": None},
        "nm",
    ),
    "el 8 with nm 1.22": (
        {**release("rhel", "8.2"), **MANAGER, **IFCFG, "/usr/lib64/NetworkManager/1.22.8-4.el8": None},
        "ifcfg",
    ),
    "el 8 without network scripts, with nm's plugin": (
        {
            **release("rhel", "8.2"),
            **MANAGER,
            "/usr/lib64/NetworkManager/1.22.8-4.el8/libnm-settings-plugin-ifcfg-rh.so": b"",
        },
        "ifcfg",
    ),
    "el 8, nothing reads ifcfg": ({**release("rhel", "8.2"), **MANAGER}, "nm"),
    "el 7": (images.CENTOS_7, "ifcfg"),
    "el 6": (images.CENTOS_6, "ifcfg"),
    "fedora 35": ({**release("fedora", "35"), **MANAGER, **IFCFG}, "ifcfg"),
    "fedora 36": ({**release("fedora", "36"), **MANAGER, **IFCFG}, "nm"),
    "amazon linux 2": ({**release("amzn", "2"), **IFCFG}, "ifcfg"),
    "amazon linux 2023": ({**release("amzn", "2023"), **NETWORKD_ENABLED, **IFCFG}, "networkd"),
    "el 9 without nm": ({**release("rocky", "9.4"), **NETWORKD_ENABLED}, "networkd"),
    "sles 15": (images.SLES_15, "wicked"),
    "leap 15 by its os-release": (
        {**images.SLES_15, **release("opensuse-leap", "15.6", "suse opensuse")},
        "wicked",
    ),
    "sles 15 with nm active": (
        {
            **without(images.SLES_15, "/etc/systemd/system/network.service"),
            **MANAGER,
            "/etc/systemd/system/network.service": Link("/usr/lib/systemd/system/NetworkManager.service"),
        },
        "nm",
    ),
    "sles 16": ({**release("sles", "16.0"), **MANAGER}, "nm"),
    "flatcar": (images.FLATCAR, "networkd"),
    "arch, nm enabled": ({**release("arch"), **MANAGER_ENABLED, **NETWORKD}, "nm"),
    "arch, both enabled": ({**release("arch"), **MANAGER_ENABLED, **NETWORKD_ENABLED}, "networkd"),
    "arch, none enabled": ({**release("arch"), **MANAGER, **NETWORKD}, "networkd"),
    "gentoo": (images.GENTOO, "netifrc"),
    "gentoo with nm in a run level": (
        {
            **release("gentoo"),
            "/usr/bin/NetworkManager": PROGRAM,
            "/etc/init.d/NetworkManager": PROGRAM,
            "/etc/runlevels/default/NetworkManager": Link("/etc/init.d/NetworkManager"),
        },
        "nm",
    ),
    "alpine": (images.ALPINE, "ifupdown"),
    "slackware": (images.SLACKWARE, "rc.inet1"),
    "slackware with nm": ({**images.SLACKWARE, "/etc/rc.d/rc.networkmanager": PROGRAM}, "nm"),
    "slackware, nm switched off": (
        {**images.SLACKWARE, "/etc/rc.d/rc.networkmanager": File("#!/bin/sh\n")},
        "rc.inet1",
    ),
    "unknown, one enabled": ({**release("void"), **NETWORKD_ENABLED, **MANAGER}, "networkd"),
    "unknown, two enabled": ({**release("void"), **NETWORKD_ENABLED, **MANAGER_ENABLED}, "none"),
    "unknown, none enabled": ({**release("void"), **NETWORKD}, "none"),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_first_line_that_fits_decides(case: str, guest_of: GuestOf) -> None:
    """R-NET-11, T-112, T-113."""
    tree, backend = TABLE[case]
    guest = guest_of(tree)
    assert chosen_backend(guest) == backend
    assert trees.changes(guest) == []
    assert trees.warnings(guest) == []


def test_no_way_to_configure_is_a_warning(guest_of: GuestOf) -> None:
    """R-NET-11, R-NET-12: nothing is written, and the deployment goes on."""
    guest = guest_of(release("void"), configure_network=ConfigureNetwork(nics=NICS))
    configure_network(guest)
    assert trees.changes(guest) == []
    assert "NET_BACKEND" in trees.warnings(guest)[0]


def test_what_is_asked_for_wins(guest_of: GuestOf) -> None:
    """R-NET-11: NET_BACKEND, or NM_NETWORKING as the host hands it on."""
    asked = ConfigureNetwork(nics=NICS, backend="nm")
    guest = guest_of({**images.DEBIAN, **MANAGER}, configure_network=asked)
    configure_network(guest)
    assert trees.exists(guest, "/etc/NetworkManager/system-connections/snf-nic1.nmconnection")
    assert trees.warnings(guest) == []


def test_a_back_end_without_its_service_is_a_warning(guest_of: GuestOf) -> None:
    """R-NET-15."""
    for backend in ("nm", "networkd", "wicked", "ifcfg", "netifrc", "ifupdown", "netplan"):
        asked = ConfigureNetwork(nics=NICS, backend=backend)
        guest = guest_of(release("void"), configure_network=asked)
        configure_network(guest)
        assert len(trees.warnings(guest)) == 1, backend


def test_nothing_is_written_if_nothing_is_asked_for(guest_of: GuestOf) -> None:
    """R-NET-11: NET_BACKEND=none."""
    guest = guest_of(images.DEBIAN, configure_network=ConfigureNetwork(nics=NICS, backend="none"))
    configure_network(guest)
    assert (trees.changes(guest), trees.warnings(guest)) == ([], [])


def test_a_back_end_of_another_family_is_refused(guest_of: GuestOf) -> None:
    guest = guest_of(images.DEBIAN, configure_network=ConfigureNetwork(nics=NICS, backend="freebsd"))
    with pytest.raises(RequestError, match="NET_BACKEND=freebsd"):
        configure_network(guest)


@pytest.mark.parametrize(
    "asked",
    [
        ConfigureNetwork(nics=(Nic(mac='aa:00:00:12:34:56"; x'),)),
        ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv4="static", address="192.0.2.300/24"),)),
        ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv4="static", address="192.0.2.3/24", gateway="x\ny"),)),
        ConfigureNetwork(
            nics=(Nic(mac=MACS[0], ipv4="static", address="192.0.2.3/24"),), dns_search=('a"; reboot',)
        ),
        ConfigureNetwork(nics=(Nic(mac=MACS[0], ipv4="static", address="192.0.2.3/24"),), dns_servers=("a",)),
    ],
)
def test_nothing_but_addresses_reaches_a_file(asked: ConfigureNetwork, guest_of: GuestOf) -> None:
    """R-NET-1: what the host should have refused is refused before anything is written."""
    guest = guest_of(images.DEBIAN, configure_network=asked)
    with pytest.raises(RequestError):
        configure_network(guest)
    assert trees.changes(guest) == []


def test_cloud_init_is_told_to_leave_the_network_alone(guest_of: GuestOf) -> None:
    """R-NET-12, R-NET-15: with and without CLOUD_INIT, for cloud-init would write its own."""
    for cloud_init in (True, False):
        guest = guest_of(
            {**images.DEBIAN, **images.with_cloud_init("22.4.2")},
            cloud_init=cloud_init,
            configure_network=ConfigureNetwork(nics=NICS),
        )
        configure_network(guest)
        assert trees.text(guest, "/etc/cloud/cloud.cfg.d/98_snf-image-50ConfigureNetwork.cfg").endswith(
            "\nnetwork: {config: disabled}\n"
        )
        assert "auto nic0" in trees.text(guest, "/etc/network/interfaces")


# -- names -----------------------------------------------------------------------------------------

POLICY: Tree = {**SYSTEMD}
SLOT_RULES = "/usr/lib/udev/rules.d/80-net-name-slot.rules"
ETH = {
    "no udev": {},
    "files of udev without udev": {
        "/usr/lib/systemd/network/99-default.link": "[Link]\n",
        SLOT_RULES: "# names",
    },
    "udev of Enterprise Linux 6": {"/sbin/udevd": PROGRAM},
    "switched off in grub.cfg": {
        **POLICY,
        "/boot/grub/grub.cfg": "menuentry x {\n linux /vmlinuz root=/dev/vda1 ro net.ifnames=0\n}\n",
    },
    "switched off in a boot loader entry": {
        **POLICY,
        "/boot/loader/entries/abc-6.1.conf": "title x\noptions root=/dev/vda1 net.ifnames=0 quiet\n",
    },
    "switched off in grubenv": {**POLICY, "/boot/grub2/grubenv": "kernelopts=ro net.ifnames=0\n####"},
    "default policy masked": {**POLICY, "/etc/systemd/network/99-default.link": Link("/dev/null")},
    "default policy emptied": {**POLICY, "/etc/systemd/network/99-default.link": ""},
    "rules masked": {**POLICY, "/etc/udev/rules.d/80-net-setup-link.rules": Link("/dev/null")},
}
OURS = {
    "systemd": POLICY,
    "switched on again": {**POLICY, "/boot/grub/grub.cfg": "linux /vmlinuz net.ifnames=01\n"},
    "only in a comment": {**POLICY, "/boot/grub/grub.cfg": "# linux /vmlinuz net.ifnames=0\n"},
    "another word": {**POLICY, "/boot/grub/grub.cfg": "linux /vmlinuz xnet.ifnames=0\n"},
    "own policy": {**POLICY, "/etc/systemd/network/99-default.link": "[Link]\nNamePolicy=mac\n"},
    "eudev": {"/sbin/udevd": PROGRAM, SLOT_RULES: "# names"},
}


@pytest.mark.parametrize("case", ETH)
def test_kernel_names_stay_where_they_are_predictable(case: str, guest_of: GuestOf) -> None:
    """R-NET-9."""
    guest = guest_of(ETH[case])
    assert names.kernel_names(guest, NICS) == ("eth0", "eth1")
    names.write_renames(guest, NICS)
    assert trees.changes(guest) == []


@pytest.mark.parametrize("case", OURS)
def test_other_nics_are_renamed_by_mac(case: str, guest_of: GuestOf) -> None:
    """R-NET-8, R-NET-9, T-114."""
    guest = guest_of(OURS[case])
    assert names.kernel_names(guest, NICS) == ("nic0", "nic1")
    names.write_renames(guest, NICS)
    if case == "eudev":
        rules = trees.text(guest, names.PERSISTENT_RULES).splitlines()[1:]
        assert [f'=="{mac}"' in rule for mac, rule in zip(MACS, rules, strict=True)] == [True, True]
        assert [rule.endswith(f'NAME="nic{i}"') for i, rule in enumerate(rules)] == [True, True]
    else:
        for index, mac in enumerate(MACS):
            text = trees.text(guest, f"/etc/systemd/network/10-snf-nic{index}.link")
            assert f"[Match]\nMACAddress={mac}\n\n[Link]\nName=nic{index}\n" in text


def test_stale_rules_are_moved_aside(guest_of: GuestOf) -> None:
    """R-NET-9, R-NET-10: a rule for the MAC of the machine the image was made on keeps eth0 from ours."""
    rules = 'SUBSYSTEM=="net", ATTR{address}=="52:54:00:00:00:01", NAME="eth0"\n'
    guest = guest_of({names.PERSISTENT_RULES: rules})
    names.move_stale_rules(guest, NICS)
    assert not trees.exists(guest, names.PERSISTENT_RULES)
    assert trees.text(guest, f"{names.PERSISTENT_RULES}.snf-image-1") == rules


def test_rules_for_our_own_nics_stay(guest_of: GuestOf) -> None:
    """R-NET-10."""
    rules = f'# NAME="x"\nSUBSYSTEM=="net", ATTR{{address}}=="{MACS[0].upper()}", NAME="eth0"\n'
    guest = guest_of({names.PERSISTENT_RULES: rules})
    names.move_stale_rules(guest, NICS)
    assert trees.changes(guest) == []


def test_names_of_an_earlier_deployment_do_not_stay(guest_of: GuestOf) -> None:
    """R-NET-9, R-NET-14: fewer NICs the second time; then an image with the kernel's names."""
    guest = guest_of(POLICY)
    names.write_renames(guest, NICS)
    names.write_renames(guest, NICS[:1])
    assert not trees.exists(guest, "/etc/systemd/network/10-snf-nic1.link")
    assert trees.exists(guest, "/etc/systemd/network/10-snf-nic0.link")


def test_the_version_of_networkmanager_is_read_from_its_plugins(guest_of: GuestOf) -> None:
    """R-NET-11."""
    guest = guest_of(
        {
            "/usr/lib/x86_64-linux-gnu/NetworkManager/1.42.4": None,
            "/usr/lib/NetworkManager/conf.d": Directory(),
            "/usr/lib/NetworkManager/1.99.9": "a file is no plugin directory",
        }
    )
    assert installed.network_manager_version(guest.root) == (1, 42)
    assert installed.network_manager_version(guest_of({}).root) is None
