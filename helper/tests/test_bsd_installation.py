"""What inspection reads of an installed BSD."""

from __future__ import annotations

import pytest

from snf_image_contract.events import FoundSystem, FoundUsers
from snf_image_contract.names import OsFamily
from snf_image_helper import inspection
from snf_image_helper.bsd import installation
from snf_image_helper.families import family_of
from trees import GuestOf, Node

FREEBSD, NETBSD, OPENBSD = OsFamily.FREEBSD, OsFamily.NETBSD, OsFamily.OPENBSD
MASTER = (
    "# $FreeBSD$\n"
    "root:*:0:0::0:0:Charlie &:/root:/bin/sh\n"
    "daemon:*:1:1::0:0:daemon:/root:/usr/sbin/nologin\n"
    "a b\x1b:*:1001:1001::0:0::/home/a:/bin/csh\n"
    "seven:*:5:5::/:/bin/sh\n"
)


@pytest.mark.parametrize(
    ("family", "tree", "name"),
    [
        (FREEBSD, {"/etc/rc.conf": 'hostname="a"\nhostname="b"\n'}, b"b"),
        (FREEBSD, {"/etc/rc.conf": "hostname=a\n", "/etc/rc.conf.local": "hostname=l\n"}, b"l"),
        (FREEBSD, {"/etc/myname": "a\n"}, b""),
        (NETBSD, {"/etc/rc.conf": "hostname=a\n", "/etc/myname": "m\n"}, b"a"),
        (NETBSD, {"/etc/rc.conf": "x=y\n", "/etc/myname": "m\nn\n"}, b"m"),
        (OPENBSD, {"/etc/rc.conf": "hostname=a\n", "/etc/myname": "m\n"}, b"m"),
        (OPENBSD, {}, b""),
    ],
)
def test_the_name_that_counts(
    guest_of: GuestOf, family: OsFamily, tree: dict[str, Node], name: bytes
) -> None:
    """R-TASK-HOST-6, D-28"""
    assert installation.hostname(guest_of(tree, family=family_of(family)).root, family) == name


def test_what_inspection_tells_of_a_bsd(guest_of: GuestOf) -> None:
    """D-28, R-DISTRO-3: system, release and the accounts with a login shell."""
    tree: dict[str, Node] = {
        "/etc/os-release": 'VERSION_ID="14.1"\n',
        "/etc/rc.conf": 'hostname="old\x1b"\n',
        "/etc/master.passwd": MASTER,
        "/bin/sh": b"\x7fELF\x02\x01\x01\x09" + bytes(8) + b"\x02\x00\x3e\x00",
    }
    guest = guest_of(tree, family=family_of(FREEBSD))
    plain = FoundSystem(partition_table="gpt", os_family=FREEBSD, root_partition=3)
    system, users = inspection._bsd(guest.root, plain, FREEBSD)
    assert (system.distribution, system.version, system.title) == ("freebsd", "14.1", "FreeBSD 14.1")
    assert (system.hostname, system.architecture, system.root_partition) == ("old\x1b", "x86_64", 3)
    assert users == (FoundUsers(users=("root", "a b\x1b")),)
    empty = guest_of({}, family=family_of(OPENBSD)).root
    system, users = inspection._bsd(empty, plain, OPENBSD)
    assert (system.title, system.version, users) == ("OpenBSD", "", (FoundUsers(users=()),))
