"""Task AssignHostname for Linux."""

from __future__ import annotations

import pytest

from snf_image_contract.job import AssignHostname
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.linux.hostname import assign_hostname, hosts_file
from trees import Fifo, File, GuestOf, Link, Node, changes, content, exists, mode, text, warnings

NAME = "web1.example.org"
SYSTEMD: dict[str, Node] = {"/usr/lib/systemd/systemd": ""}


@pytest.mark.parametrize("name", ["a", "web1", NAME, "0", "A-b.c", "x" * 64])
def test_names_that_hosts_may_have(guest_of: GuestOf, name: str) -> None:
    """R-TASK-HOST-1."""
    guest = guest_of({"/etc/hostname": "old\n"}, assign_hostname=AssignHostname(name=name))
    assign_hostname(guest)
    assert text(guest, "/etc/hostname") == f"{name}\n"
    assert warnings(guest) == []


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", ".a", "a.", "a\n", "a\nb", "a b", "a/b", "a'b", "ä", "a" * 255, "$(id)", "a\0"],
)
def test_names_that_no_host_may_have(guest_of: GuestOf, name: str) -> None:
    """R-TASK-HOST-1: a newline at the end is no part of a name either; nothing is written."""
    guest = guest_of({"/etc/hostname": "old\n"}, assign_hostname=AssignHostname(name=name))
    with pytest.raises(RequestError, match=r"^hostname "):
        assign_hostname(guest)
    assert changes(guest) == []


def test_names_that_are_odd_but_work(guest_of: GuestOf) -> None:
    """D-24: an underscore is allowed, with a warning; a Linux kernel takes 64 bytes."""
    name = "a_b" + "c" * 70
    guest = guest_of({"/etc/hostname": "old\n"}, assign_hostname=AssignHostname(name=name))
    assign_hostname(guest)
    assert text(guest, "/etc/hostname") == f"{name}\n"
    assert ["underscore" in warnings(guest)[0], "64" in warnings(guest)[1]] == [True, True]


def test_etc_hostname_keeps_its_attributes(guest_of: GuestOf) -> None:
    """R-TASK-HOST-3: where the file exists its content becomes the name and a newline."""
    guest = guest_of({"/etc/hostname": File("# was\nold\n", mode=0o600)})
    assign_hostname(guest)
    assert (text(guest, "/etc/hostname"), mode(guest, "/etc/hostname")) == (f"{NAME}\n", 0o600)


CREATES_ETC_HOSTNAME: list[dict[str, Node]] = [
    {"/etc/os-release": "ID=flatcar\n"},
    {**SYSTEMD, "/etc/os-release": "ID=nixos\n"},
    {"/etc/os-release": "ID=alpine\n"},
    {"/etc/os-release": "ID=arch\n"},
    {"/etc/os-release": "ID=debian\n"},
]


@pytest.mark.parametrize("tree", CREATES_ETC_HOSTNAME)
def test_families_that_keep_it_in_etc_hostname(guest_of: GuestOf, tree: dict[str, Node]) -> None:
    """R-TASK-HOST-3: made with mode 0644."""
    guest = guest_of(tree)
    assign_hostname(guest)
    assert (text(guest, "/etc/hostname"), mode(guest, "/etc/hostname")) == (f"{NAME}\n", 0o644)
    assert not exists(guest, "/etc/HOSTNAME")


@pytest.mark.parametrize("old", ["NETWORKING=yes\nHOSTNAME=old\nDHCP_HOSTNAME=old\n", "NETWORKING=yes"])
@pytest.mark.parametrize("systemd", [False, True])
def test_redhat(guest_of: GuestOf, old: str, systemd: bool) -> None:
    """R-TASK-HOST-3, T-95: the key HOSTNAME and no other; with systemd /etc/hostname too."""
    tree: dict[str, Node] = {"/etc/redhat-release": "CentOS release 6\n", "/etc/sysconfig/network": old}
    guest = guest_of(tree | SYSTEMD if systemd else tree)
    assign_hostname(guest)
    new = text(guest, "/etc/sysconfig/network")
    assert f"\nHOSTNAME={NAME}\n" in new
    assert ("DHCP_HOSTNAME=old\n" in new) == ("DHCP" in old)
    assert exists(guest, "/etc/hostname") is systemd


@pytest.mark.parametrize("name", ["slackware", "sles"])
def test_slackware_and_suse(guest_of: GuestOf, name: str) -> None:
    """R-TASK-HOST-3: /etc/HOSTNAME."""
    guest = guest_of({"/etc/os-release": f"ID={name}\n"})
    assign_hostname(guest)
    assert text(guest, "/etc/HOSTNAME") == f"{NAME}\n"
    assert not exists(guest, "/etc/hostname")


def test_suse_with_both_keeps_them_equal(guest_of: GuestOf) -> None:
    """R-TASK-HOST-4."""
    tree: dict[str, Node] = {"/etc/os-release": "ID=sles\n", "/etc/hostname": "a\n", "/etc/HOSTNAME": "b\n"}
    guest = guest_of(tree)
    assign_hostname(guest)
    assert text(guest, "/etc/hostname") == text(guest, "/etc/HOSTNAME") == f"{NAME}\n"


def test_suse_with_a_link_between_both(guest_of: GuestOf) -> None:
    """R-TASK-HOST-4, R-TASK-6: the link stays."""
    guest = guest_of(
        {"/etc/os-release": "ID=sles\n", "/etc/hostname": "a\n", "/etc/HOSTNAME": Link("hostname")}
    )
    assign_hostname(guest)
    assert changes(guest) == [("modified", "/etc/hostname")]
    assert content(guest, "/etc/HOSTNAME") == f"{NAME}\n".encode()


@pytest.mark.parametrize("old", ['# comment\nHOSTNAME="old"\n', "hostname=old\n", "# only a comment\n", None])
def test_gentoo(guest_of: GuestOf, old: str | None) -> None:
    """R-TASK-HOST-3: either letter case of the key; quoted; added if it is missing."""
    tree: dict[str, Node] = {"/etc/os-release": "ID=gentoo\n"}
    guest = guest_of(tree if old is None else tree | {"/etc/conf.d/hostname": old})
    assign_hostname(guest)
    new = text(guest, "/etc/conf.d/hostname")
    assert f'hostname="{NAME}"\n' in new.replace("HOSTNAME", "hostname")
    assert "old" not in new
    assert new.lower().count("hostname=") == 1


def test_arch_with_rc_conf(guest_of: GuestOf) -> None:
    """R-TASK-HOST-3."""
    guest = guest_of({"/etc/os-release": "ID=arch\n", "/etc/rc.conf": "LOCALE=C\nHOSTNAME=old # here\n"})
    assign_hostname(guest)
    assert text(guest, "/etc/rc.conf") == f'LOCALE=C\nHOSTNAME="{NAME}" # here\n'
    assert not exists(guest, "/etc/hostname")


def test_an_unknown_system_without_systemd(guest_of: GuestOf) -> None:
    """R-TASK-HOST-3: an error, because nobody knows where it looks."""
    with pytest.raises(ImageError, match="where it keeps its hostname"):
        assign_hostname(guest_of({"/etc": None}))


HOSTS = "127.0.0.1 localhost # me\n::1 localhost\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("127.0.1.1 old.example old\n", "127.0.1.1\tweb1.example.org web1\n"),
        ("127.0.1.1\told # why\n10.0.0.1 x\n", "127.0.1.1\tweb1.example.org web1 # why\n10.0.0.1 x\n"),
        ("  127.0.1.1 a\n127.0.1.1 b\n", "127.0.1.1\tweb1.example.org web1\n"),
        ("127.0.1.10 a\n#127.0.1.1 b\n", "127.0.1.10 a\n#127.0.1.1 b\n"),
        ("127.0.1.1 a\r\n10.0.0.1 x\r\n", "127.0.1.1\tweb1.example.org web1\r\n10.0.0.1 x\r\n"),
    ],
)
def test_the_line_of_the_second_loopback_address(guest_of: GuestOf, old: str, new: str) -> None:
    """R-TASK-HOST-5, T-96: whole addresses; lines of 127.0.0.1 and ::1 are never changed."""
    guest = guest_of({"/etc/hostname": "x\n", "/etc/hosts": HOSTS + old})
    assign_hostname(guest)
    assert text(guest, "/etc/hosts") == HOSTS + new


def test_a_name_without_a_dot_stands_alone() -> None:
    """R-TASK-HOST-5."""
    assert hosts_file(b"127.0.1.1 old\n", "web1", add=False) == b"127.0.1.1\tweb1\n"


def test_debian_gets_the_line_after_localhost(guest_of: GuestOf) -> None:
    """R-TASK-HOST-5: no other family does."""
    debian: dict[str, Node] = {"/etc/os-release": "ID=debian\n", "/etc/hostname": "x\n", "/etc/hosts": HOSTS}
    guest = guest_of(debian)
    assign_hostname(guest)
    assert text(guest, "/etc/hosts") == (
        "127.0.0.1 localhost # me\n127.0.1.1\tweb1.example.org web1\n::1 localhost\n"
    )
    guest = guest_of(debian | {"/etc/os-release": "ID=fedora\n"})
    assign_hostname(guest)
    assert text(guest, "/etc/hosts") == HOSTS


def test_debian_without_hosts_can_name_itself(guest_of: GuestOf) -> None:
    """R-TASK-HOST-5: and localhost with it; no other family gets the file."""
    guest = guest_of({"/etc/os-release": "ID=debian\n"})
    assign_hostname(guest)
    assert text(guest, "/etc/hosts").startswith("127.0.0.1\tlocalhost\n127.0.1.1\tweb1.example.org web1\n")
    guest = guest_of({"/etc/os-release": "ID=fedora\n"})
    assign_hostname(guest)
    assert not exists(guest, "/etc/hosts")


def test_twice_is_once(guest_of: GuestOf) -> None:
    """A second deployment onto the same disk gives the same result."""
    guest = guest_of({"/etc/os-release": "ID=debian\n", "/etc/hosts": HOSTS})
    assign_hostname(guest)
    before = (text(guest, "/etc/hosts"), len(changes(guest)))
    assign_hostname(guest)
    assert (text(guest, "/etc/hosts"), len(changes(guest))) == before


def test_with_cloud_init_only_the_seed_says_it(guest_of: GuestOf) -> None:
    """R-TASK-HOST-2."""
    guest = guest_of({"/etc/hostname": "old\n", "/etc/hosts": "127.0.1.1 old\n"}, cloud_init=True)
    assign_hostname(guest)
    assert "local-hostname: " in text(guest, "/var/lib/cloud/seed/nocloud-net/meta-data")
    assert NAME in text(guest, "/var/lib/cloud/seed/nocloud-net/meta-data")
    assert text(guest, "/etc/hostname") == "old\n"
    assert text(guest, "/etc/hosts") == "127.0.1.1 old\n"


@pytest.mark.parametrize("path", ["/etc/hostname", "/etc/hosts"])
def test_a_fifo_is_an_error(guest_of: GuestOf, path: str) -> None:
    """R-TASK-6: no task waits for it."""
    tree: dict[str, Node] = {"/etc/hostname": "old\n", path: Fifo()}
    with pytest.raises(ImageError, match=f"^{path}: not a regular file"):
        assign_hostname(guest_of(tree))
