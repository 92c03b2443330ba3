"""Competing configuration is moved aside, other services are told to keep off, nothing else is touched."""

from __future__ import annotations

import configparser
import contextlib
from collections.abc import Iterator

import pytest
import yaml

import network_images as images
import trees
from network_images import MACS, PROGRAM, unit
from snf_image_contract.job import ConfigureNetwork, Nic
from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network import configure_network
from trees import Directory, Fifo, File, GuestOf, Link, Tree

NIC = Nic(mac=MACS[0], ipv4="static", address="192.0.2.10/24", gateway="192.0.2.1", ipv6="slaac")
ASKED = ConfigureNetwork(nics=(NIC,))
PLACE = "/etc/snf-image/moved-aside"
WANTS = "/etc/systemd/system/multi-user.target.wants"
CONNECTIONS = "/etc/NetworkManager/system-connections"


def configured(guest_of: GuestOf, tree: Tree, asked: ConfigureNetwork = ASKED, **fields: object) -> Guest:
    guest = guest_of(tree, configure_network=asked, **fields)
    configure_network(guest)
    return guest


def renamed(guest: Guest) -> list[str]:
    return [path for change, path in trees.changes(guest) if change == "renamed"]


# -- moving aside ----------------------------------------------------------------------------------


def test_networkmanager_profiles_of_other_nics(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-NM-2."""
    other = "[connection]\ntype=ethernet\n[ethernet]\nmac-address=52:54:00:00:00:01\n"
    tree: Tree = {
        **images.ROCKY_9,
        f"{CONNECTIONS}/eth0.nmconnection": other,
        f"{CONNECTIONS}/Wired connection 1": "[connection]\nid=x\ntype=802-3-ethernet\n",
        f"{CONNECTIONS}/home.nmconnection": "[connection]\ntype=wifi\n[wifi]\nssid=home\n",
        f"{CONNECTIONS}/br0.nmconnection": "[connection]\ntype=bridge\n",
        f"{CONNECTIONS}/office.nmconnection": "[connection]\ntype=vpn\n",
        f"{CONNECTIONS}/garbage": b"\0\xff\n" * 100,
        "/usr/lib/NetworkManager/system-connections/any.nmconnection": "[connection]\ntype=ethernet\n",
    }
    guest = configured(guest_of, tree)
    assert renamed(guest) == [
        f"{CONNECTIONS}/Wired connection 1",
        f"{CONNECTIONS}/eth0.nmconnection",
        "/usr/lib/NetworkManager/system-connections/any.nmconnection",
    ]
    assert trees.exists(guest, f"{PLACE}{CONNECTIONS}/eth0.nmconnection.snf-image-1")


def test_ifcfg_files_of_other_nics(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-IFCFG-1: routes of a file go with it; lo, bridges, bonds, VLANs and wifi stay."""
    scripts = "/etc/sysconfig/network-scripts"
    tree: Tree = {
        **images.CENTOS_7,
        f"{scripts}/ifcfg-eth0": 'DEVICE="eth0"\nBOOTPROTO="dhcp"\nHWADDR="52:54:00:00:00:01"\n',
        f"{scripts}/route-eth0": "10.0.0.0/8 via 192.0.2.9\n",
        f"{scripts}/ifcfg-ens3": "TYPE=Ethernet\nNAME=ens3\n",
        f"{scripts}/ifcfg-br0": "DEVICE=br0\nTYPE=Bridge\n",
        f"{scripts}/ifcfg-bond0": "DEVICE=bond0\nBONDING_OPTS='mode=1'\n",
        f"{scripts}/ifcfg-eth0.7": "DEVICE=eth0.7\nVLAN=yes\n",
        f"{scripts}/ifcfg-home": "TYPE=Wireless\nESSID=home\n",
        f"{scripts}/ifcfg-eth1.rpmsave": "DEVICE=eth1\n",
    }
    guest = configured(guest_of, tree)
    assert renamed(guest) == [f"{scripts}/ifcfg-ens3", f"{scripts}/ifcfg-eth0", f"{scripts}/route-eth0"]
    assert trees.text(guest, f"{scripts}/ifcfg-lo").startswith("DEVICE=lo")


def test_the_global_file_keeps_what_is_not_stale(guest_of: GuestOf) -> None:
    """R-NET-IFCFG-1, R-TASK-9."""
    old = "# mine\nGATEWAYX=1\nGATEWAY=203.0.113.1\nHOSTNAME=a\n GATEWAYDEV=eth0 # old\nNETWORKING=no"
    guest = configured(guest_of, {**images.CENTOS_7, "/etc/sysconfig/network": old})
    assert trees.text(guest, "/etc/sysconfig/network") == (
        "# mine\nGATEWAYX=1\nHOSTNAME=a\nNETWORKING=yes\nNETWORKING_IPV6=yes\n"
    )


def test_netplan_files(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-NP-1: the renderer is kept, files of wifi and bridges alone stay."""
    tree: Tree = {
        **images.UBUNTU,
        "/usr/sbin/NetworkManager": PROGRAM,
        "/usr/lib/systemd/system/NetworkManager.service": unit(),
        "/etc/netplan/00-installer.yaml": "network: {version: 2, renderer: NetworkManager}\n",
        "/etc/netplan/50-cloud-init.yaml": "network: {ethernets: {ens3: {dhcp4: true}}, bonds: {b0: {}}}\n",
        "/etc/netplan/60-wifi.yaml": "network: {wifis: {wlan0: {dhcp4: true}}}\n",
        "/etc/netplan/70-broken.yaml": "network: [",
        "/etc/netplan/71-odd.yaml": "network: !!bool maybe\n",
        # Python does not print a number of so many digits.
        "/etc/netplan/72-number.yaml": f"network:\n  bonds: {{}}\n  ? 0x{'f' * 5000}\n  : {{}}\n",
        "/etc/netplan/README": "not read\n",
    }
    guest = configured(guest_of, tree)
    document = yaml.safe_load(trees.text(guest, "/etc/netplan/90-snf-image.yaml"))
    assert document["network"]["renderer"] == "NetworkManager"
    assert renamed(guest) == [
        f"/etc/netplan/{name}.yaml"
        for name in ("00-installer", "50-cloud-init", "70-broken", "71-odd", "72-number")
    ]
    assert any("50-cloud-init.yaml" in warning and "bonds" in warning for warning in trees.warnings(guest))
    assert trees.exists(guest, f"{WANTS}/NetworkManager.service")


def test_the_vendors_renderer_counts_too(guest_of: GuestOf) -> None:
    """R-NET-NP-1: an Ubuntu desktop says it below /usr/lib."""
    guest = configured(
        guest_of,
        {
            **images.UBUNTU,
            "/usr/lib/netplan/00-network-manager-all.yaml": "network: {renderer: NetworkManager}\n",
        },
    )
    assert "renderer: NetworkManager" in trees.text(guest, "/etc/netplan/90-snf-image.yaml")


def test_networkd_files(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-ND-1."""
    directory = "/etc/systemd/network"
    tree: Tree = {
        **images.ARCH,
        f"{directory}/00-first.network": "[Match]\nName=en*\n[Network]\nDHCP=yes\n",
        f"{directory}/10-cloud-init-eth0.network": f"[Match]\nMACAddress={MACS[0].upper()}\n",
        f"{directory}/20-other.network": "[Match]\nMACAddress=52:54:00:00:00:09\n",
        f"{directory}/30-any.network": "[Network]\nDHCP=yes\n",
        f"{directory}/40-bridge.network": "[Match]\nName=br0\n",
        f"{directory}/50-tunnel.network": "[Match]\nKind=wireguard\n",
        f"{directory}/60-wifi.network": "[Match]\nType=wlan\n",
        f"{directory}/br0.netdev": "[NetDev]\nName=br0\nKind=bridge\n",
    }
    guest = configured(guest_of, tree)
    assert renamed(guest) == [
        f"{directory}/{name}.network" for name in ("00-first", "10-cloud-init-eth0", "30-any")
    ]


def test_wicked_files(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-WI-1: also the default route that would hold for every interface."""
    directory = "/etc/sysconfig/network"
    tree: Tree = {
        **images.SLES_15,
        f"{directory}/ifcfg-eth0": "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n",
        f"{directory}/ifroute-eth0": "10.0.0.0/8 192.0.2.9 - eth0\n",
        f"{directory}/ifcfg-lo": "IPADDR=127.0.0.1/8\n",
        f"{directory}/ifcfg-br0": "BRIDGE='yes'\n",
        f"{directory}/ifcfg-eth1.old": "BOOTPROTO='dhcp'\n",
        f"{directory}/routes": "# all\ndefault 203.0.113.1 - -\n",
    }
    guest = configured(guest_of, tree)
    assert renamed(guest) == [f"{directory}/{name}" for name in ("ifcfg-eth0", "ifroute-eth0", "routes")]


def test_the_old_interfaces_file_and_its_includes(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-IFUP-1: the included files are kept unless one of them is about our NICs."""
    old = "source-directory /etc/network/interfaces.d\nauto eth0\niface eth0 inet dhcp\n"
    kept = "source /etc/network/interfaces.d/*\n"
    for included, expected in (("auto br0\niface br0 inet dhcp\n", True), ("iface ens5 inet dhcp\n", False)):
        tree: Tree = {
            **images.DEBIAN,
            "/etc/network/interfaces": old,
            "/etc/network/interfaces.d/more": included,
        }
        guest = configured(guest_of, tree)
        assert (kept in trees.text(guest, "/etc/network/interfaces")) is expected
        assert trees.text(guest, "/etc/network/interfaces.snf-image-1") == old
    guest = configured(guest_of, images.DEBIAN)
    assert kept not in trees.text(guest, "/etc/network/interfaces")


def test_services_of_other_nics_leave_gentoos_run_level(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-GE-1."""
    tree: Tree = {
        **images.GENTOO,
        "/etc/conf.d/net": 'config_enp1s0="dhcp"\n',
        "/etc/init.d/net.enp1s0": Link("net.lo"),
        "/etc/runlevels/default/net.enp1s0": Link("/etc/init.d/net.enp1s0"),
        "/etc/runlevels/default/net.br0": Link("/etc/init.d/net.br0"),
        "/etc/runlevels/default/sshd": Link("/etc/init.d/sshd"),
    }
    guest = configured(guest_of, tree)
    levels = sorted(guest.root.list("/etc/runlevels/default"))
    assert levels == ["net.br0", "net.nic0", "sshd"]
    assert trees.text(guest, "/etc/conf.d/net.snf-image-1") == 'config_enp1s0="dhcp"\n'


def test_older_copies_are_never_overwritten(guest_of: GuestOf) -> None:
    """R-NET-10."""
    guest = configured(
        guest_of, {**images.DEBIAN, "/etc/network/interfaces.snf-image-1": "from an earlier deployment\n"}
    )
    assert trees.text(guest, "/etc/network/interfaces.snf-image-1") == "from an earlier deployment\n"
    assert "eth0" in trees.text(guest, "/etc/network/interfaces.snf-image-2")


@pytest.mark.parametrize("backend", [name for name in images.IMAGES if name != "nm"])
def test_a_second_run_changes_nothing(backend: str, guest_of: GuestOf) -> None:
    """R-NET-14: equal input, equal files; our own are not moved aside. (Profiles of nm have new UUIDs.)"""
    image = images.IMAGES[backend]
    guest = guest_of(image.tree, configure_network=images.CASES["dns"], **image.fields)
    configure_network(guest)
    once = {path: guest.root.read(path) for _, path in trees.changes(guest) if guest.root.is_file(path)}
    assert once
    configure_network(guest)
    assert {path: guest.root.read(path) for path in once} == once
    assert len(set(renamed(guest))) == len(renamed(guest))


@pytest.mark.parametrize("backend", ["netplan", "networkd", "nm", "ifcfg", "wicked"])
def test_files_of_nics_that_are_gone_are_removed(backend: str, guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-14: two NICs, then one."""
    guest = guest_of(images.IMAGES[backend].tree, configure_network=images.CASES["two"])
    configure_network(guest)
    again = guest_of({}, configure_network=images.CASES["static"])
    again = type(guest)(**{f: getattr(again if f == "job" else guest, f) for f in guest.__slots__})
    configure_network(again)
    left = [
        path
        for change, path in trees.changes(guest)
        if change == "created" and trees.exists(guest, path) and MACS[1] in trees.text(guest, path).lower()
    ]
    assert left == []


# -- other services --------------------------------------------------------------------------------


def test_networkmanager_keeps_off(guest_of: GuestOf) -> None:
    """R-NET-15: by MAC address, and only if it runs."""
    manager: Tree = {
        "/usr/sbin/NetworkManager": PROGRAM,
        "/usr/lib/systemd/system/NetworkManager.service": unit(),
    }
    path = "/etc/NetworkManager/conf.d/99-snf-image.conf"
    assert not trees.exists(configured(guest_of, {**images.DEBIAN, **manager}), path)
    enabled: Tree = {**manager, f"{WANTS}/NetworkManager.service": Link("/x")}
    guest = configured(guest_of, {**images.DEBIAN, **enabled})
    parser = configparser.ConfigParser()
    parser.read_string(trees.text(guest, path))
    assert parser["keyfile"]["unmanaged-devices+"] == f"mac:{MACS[0]}"
    assert trees.exists(guest, f"{WANTS}/NetworkManager.service")


def test_networkmanager_is_let_back_in(guest_of: GuestOf) -> None:
    """R-NET-15: what an earlier deployment told it does not hold for a profile of its own."""
    path = "/etc/NetworkManager/conf.d/99-snf-image.conf"
    assert not trees.exists(configured(guest_of, {**images.ROCKY_9, path: "# Made by snf-image\n"}), path)


def test_networkd_keeps_off(guest_of: GuestOf) -> None:
    """R-NET-15."""
    networkd: Tree = {
        "/usr/lib/systemd/system/systemd-networkd.service": unit(),
        f"{WANTS}/systemd-networkd.service": Link("/x"),
    }
    guest = configured(guest_of, {**images.ROCKY_9, **networkd})
    text = trees.text(guest, "/etc/systemd/network/05-snf-nic0.network")
    assert f"[Match]\nMACAddress={MACS[0]}\n\n[Link]\nUnmanaged=yes\n" in text


@pytest.mark.parametrize(
    ("old", "emptied", "warned"),
    [
        ("auto lo eth0\niface lo inet loopback\niface eth0 inet dhcp\n", True, 0),
        ("auto lo\niface lo inet loopback\n", False, 0),
        ("auto br0\niface br0 inet dhcp\n  bridge_ports eth0\n", False, 1),
    ],
)
def test_ifupdown_keeps_off(old: str, emptied: bool, warned: int, guest_of: GuestOf) -> None:
    """R-NET-15, R-NET-10: only its loopback interface is left to it, unless it has more to do."""
    tree: Tree = {
        **images.DEBIAN,
        "/etc/network/interfaces": old,
        f"{WANTS}/networking.service": Link("/x"),
        "/usr/lib/systemd/system/systemd-networkd.service": unit(),
    }
    guest = configured(guest_of, tree, ConfigureNetwork(nics=(NIC,), backend="networkd"))
    text = trees.text(guest, "/etc/network/interfaces")
    assert (text == "# Made by snf-image\nauto lo\niface lo inet loopback\n") is emptied
    assert len(trees.warnings(guest)) == warned


def test_ifcfg_files_do_not_compete_with_profiles(guest_of: GuestOf) -> None:
    """R-NET-10: NetworkManager of Enterprise Linux 8 and 9 reads both."""
    scripts = "/etc/sysconfig/network-scripts"
    tree: Tree = {
        **images.ROCKY_9,
        f"{scripts}/ifcfg-eth0": "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n",
        f"{scripts}/ifcfg-nic7": "# Made by snf-image\nNAME=nic7\n",
        f"{scripts}/ifcfg-br0": "DEVICE=br0\nTYPE=Bridge\n",
    }
    guest = configured(guest_of, tree)
    assert guest.root.list(scripts) == ["ifcfg-br0"]
    assert renamed(guest) == [f"{scripts}/ifcfg-eth0"]


def test_profiles_do_not_compete_with_ifcfg_files(guest_of: GuestOf) -> None:
    """R-NET-10."""
    profile = f"{CONNECTIONS}/eth0.nmconnection"
    guest = configured(guest_of, {**images.CENTOS_7, profile: "[connection]\ntype=ethernet\n"})
    assert renamed(guest) == [profile]


def test_netplan_files_do_not_compete_with_another_back_end(guest_of: GuestOf) -> None:
    """R-NET-10: NM_NETWORKING=yes on Ubuntu."""
    tree: Tree = {
        **images.UBUNTU,
        "/usr/sbin/NetworkManager": PROGRAM,
        "/usr/lib/systemd/system/NetworkManager.service": unit(),
        "/etc/netplan/01.yaml": "network: {ethernets: {ens3: {dhcp4: true}}}\n",
        "/etc/netplan/90-snf-image.yaml": "network: {ethernets: {nic0: {dhcp4: true}}}\n",
    }
    guest = configured(guest_of, tree, ConfigureNetwork(nics=(NIC,), backend="nm"))
    assert [name for name in guest.root.list("/etc/netplan") if name.endswith(".yaml")] == []


def test_networkmanager_takes_over_from_wicked(guest_of: GuestOf) -> None:
    """R-NET-10, R-NET-15: NM_NETWORKING=yes on SUSE; one network service, and files that name one NIC."""
    tree: Tree = {
        **images.SLES_15,
        "/usr/sbin/NetworkManager": PROGRAM,
        "/usr/lib/systemd/system/NetworkManager.service": unit(),
        "/etc/sysconfig/network/ifcfg-eth0": "BOOTPROTO=dhcp\n",
    }
    guest = configured(guest_of, tree, ConfigureNetwork(nics=(NIC,), backend="nm"))
    assert guest.root.readlink("/etc/systemd/system/network.service").endswith("/NetworkManager.service")
    assert renamed(guest) == ["/etc/sysconfig/network/ifcfg-eth0"]
    assert any("wicked" in warning for warning in trees.warnings(guest))


def test_networkmanager_on_debian_may_manage_the_nic(guest_of: GuestOf) -> None:
    """R-NET-10: its plugin leaves alone what interfaces(5) names, even without ifupdown."""
    tree: Tree = {
        "/etc/os-release": "ID=debian\n",
        "/usr/sbin/NetworkManager": PROGRAM,
        "/usr/lib/systemd/system/NetworkManager.service": unit(),
        "/etc/network/interfaces": "auto eth0\niface eth0 inet dhcp\n",
    }
    guest = configured(guest_of, tree)
    assert "eth0" not in trees.text(guest, "/etc/network/interfaces")


# -- hostile trees ---------------------------------------------------------------------------------

OUTSIDE = "must not change\n"


@pytest.mark.parametrize("backend", images.IMAGES)
@pytest.mark.parametrize("kind", ["absolute", "relative", "directory link"])
def test_links_never_lead_out_of_the_tree(
    backend: str, kind: str, guest_of: GuestOf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """R-TASK-5, T-78: links at every path that is written, to files and directories of this machine."""
    image = images.IMAGES[backend]
    paths = [
        path
        for change, path in _changes_of(guest_of, image)
        if change in ("created", "modified", "link") and path not in image.tree
    ]
    for path in dict.fromkeys(paths):
        outside = tmp_path_factory.mktemp("outside")
        (outside / "victim").write_text(OUTSIDE)
        where, target = {
            "absolute": (path, f"{outside}/victim"),
            "relative": (path, f"{'../' * 40}{outside}/victim"),
            "directory link": (path.rpartition("/")[0], str(outside)),
        }[kind]
        tree = {name: node for name, node in image.tree.items() if not name.startswith(f"{where}/")}
        if any(name == where for name in tree):
            tree = {name: node for name, node in tree.items() if name != where}
        guest = guest_of({**tree, where: Link(target)}, configure_network=ASKED, **image.fields)
        with contextlib.suppress(ImageError):
            configure_network(guest)
        assert [entry.name for entry in outside.iterdir()] == ["victim"], path
        assert (outside / "victim").read_text() == OUTSIDE, path


def _changes_of(guest_of: GuestOf, image: images.Image) -> list[tuple[str, str]]:
    guest = guest_of(image.tree, configure_network=ASKED, **image.fields)
    configure_network(guest)
    return trees.changes(guest)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """An error of the image that comes out of here must name the path."""
    try:
        yield
    except ImageError as error:
        if path not in str(error):
            raise AssertionError(f"{path} is not in: {error}") from error
        raise


@pytest.mark.parametrize("node", [Fifo(), Directory(), Link("loop")], ids=["fifo", "directory", "loop"])
@pytest.mark.parametrize("backend", images.IMAGES)
def test_what_is_no_file_where_one_is_expected_is_an_error(
    backend: str, node: trees.Node, guest_of: GuestOf
) -> None:
    """R-TASK-6: an error that names the path, no hang."""
    image = images.IMAGES[backend]
    for path in dict.fromkeys(
        path for change, path in _changes_of(guest_of, image) if change in ("created", "modified")
    ):
        if "persistent-net" in path or path.endswith(".link"):
            continue
        spot = Link(path.rpartition("/")[2]) if isinstance(node, Link) else node
        tree = {name: other for name, other in image.tree.items() if name != path}
        guest = guest_of({**tree, path: spot}, configure_network=ASKED, **image.fields)
        with contextlib.suppress(ImageError), _naming(path):
            configure_network(guest)
            # Moved aside as it was, and a file is in its place.
            assert path in renamed(guest)


@pytest.mark.parametrize("backend", images.IMAGES)
def test_garbage_in_every_directory_is_survived(backend: str, guest_of: GuestOf) -> None:
    """Files of ten thousand lines, binary ones, FIFOs and dangling links beside what is configured."""
    image = images.IMAGES[backend]
    directories = [
        "/etc/network/interfaces.d", "/etc/netplan", "/etc/systemd/network", CONNECTIONS,
        "/etc/sysconfig/network-scripts", "/etc/sysconfig/network", "/etc/runlevels/default",
        "/etc/systemd/system/x.wants", "/usr/lib/systemd/network", "/boot/loader/entries",
        "/usr/lib64/NetworkManager", "/var/lib/cloud/seed/nocloud-net",
    ]  # fmt: skip
    tree = dict(image.tree)
    for directory in directories:
        if directory in tree:
            continue
        tree |= {
            f"{directory}/10-fifo.yaml": Fifo(),
            f"{directory}/ifcfg-fifo": Fifo(),
            f"{directory}/a.network": b"\x00\xff\xfe[Match" * 1000,
            f"{directory}/b.yaml": b"\x00\xff" * 100,
            f"{directory}/c.yaml": "&a [*a, *a]\n" + "[" * 2000,
            f"{directory}/d.nmconnection": "x=y\n" * 10_000,
            f"{directory}/ifcfg-eth7": "'" + "x\n" * 10_000,
            f"{directory}/e.conf": Link("/nowhere"),
            f"{directory}/f": Directory(),
            f"{directory}/g\nnewline": "auto eth0\n",
        }
    guest = guest_of(tree, configure_network=ASKED, **image.fields)
    configure_network(guest)
    assert any(change in ("created", "modified") for change, _ in trees.changes(guest))


def test_a_file_of_another_owner_keeps_its_mode(guest_of: GuestOf) -> None:
    """R-TASK-6: configuration that is edited, not generated, keeps what it had."""
    tree = {**images.CENTOS_7, "/etc/sysconfig/network": File("NETWORKING=no\n", mode=0o600)}
    guest = configured(guest_of, tree)
    assert trees.mode(guest, "/etc/sysconfig/network") == 0o600
