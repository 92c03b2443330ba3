"""What the tasks do on the BSDs: hostname, password, host keys, cloud-init."""

from __future__ import annotations

import pytest

from snf_image_contract.job import AssignHostname, ChangePassword, ConfigureNetwork
from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_helper.bsd import password, release
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.families import family_of
from snf_image_helper.guest import Guest
from trees import File, GuestOf, Node, changes, content, exists, libcrypt_accepts, mode, text, warnings

BSDS = (OsFamily.FREEBSD, OsFamily.NETBSD, OsFamily.OPENBSD)
MASTER = (
    b"root:$6$old:0:0::0:0:Charlie &:/root:/bin/sh\n"
    b"rooter:$6$old:990:990::0:0:not root:/:/usr/sbin/nologin\n"
    b"alice:$6$old:1001:1001:staff:1000000000:9000000000:Alice:/home/alice:/bin/sh\n"
)
TREE: dict[str, Node] = {
    "/etc/passwd": "root:*:0:0:Charlie &:/root:/bin/sh\nalice:*:1001:1001:Alice:/home/alice:/bin/sh\n",
    "/etc/master.passwd": File(MASTER.decode(), mode=0o600),
    "/etc/pwd.db": "old",
    "/etc/spwd.db": File("old", mode=0o600),
    "/etc/rc.conf": 'hostname="image"\nhostname="later" # kept\nmy_hostname="x"\n',
    "/etc/hosts": "127.0.0.1\tlocalhost\n",
}


def run(guest: Guest, action: str) -> None:
    task = getattr(guest.family, action)
    task(guest)


def bsd(guest_of: GuestOf, family: OsFamily, tree: dict[str, Node] | None = None, **fields: object) -> Guest:
    return guest_of(TREE | (tree or {}), family=family_of(family), **fields)


def asked(**fields: object) -> ChangePassword:
    return ChangePassword(**({"users": ("root",), "password": Secret("new")} | fields))  # type: ignore[arg-type]  # by name


# -- hostname -------------------------------------------------------------------------------------


def test_freebsd_keeps_its_name_in_rc_conf(guest_of: GuestOf) -> None:
    """R-TASK-HOST-6: one assignment remains, the key is compared whole, and a later file does not win."""
    guest = bsd(guest_of, OsFamily.FREEBSD, {"/etc/rc.conf.local": 'hostname="other"\na="b"\n'})
    run(guest, "assign_hostname")
    assert text(guest, "/etc/rc.conf") == 'hostname="web1.example.org" # kept\nmy_hostname="x"\n'
    assert text(guest, "/etc/rc.conf.local") == 'a="b"\n'
    assert not exists(guest, "/etc/myname")
    assert text(guest, "/etc/hosts") == "127.0.0.1\tlocalhost\n"


def test_freebsd_gets_a_rc_conf(guest_of: GuestOf) -> None:
    """R-TASK-HOST-6: a missing key is added."""
    guest = bsd(guest_of, OsFamily.FREEBSD, {"/etc/rc.conf": 'sshd_enable="YES"'})
    run(guest, "assign_hostname")
    assert text(guest, "/etc/rc.conf") == 'sshd_enable="YES"\nhostname="web1.example.org"\n'


def test_openbsd_and_netbsd_keep_their_name_in_myname(guest_of: GuestOf) -> None:
    """R-TASK-HOST-6: NetBSD's rc.conf would count more, so that it says the same."""
    openbsd, netbsd = bsd(guest_of, OsFamily.OPENBSD), bsd(guest_of, OsFamily.NETBSD)
    plain = bsd(guest_of, OsFamily.NETBSD, {"/etc/rc.conf": "rc_configured=YES\n"})
    for guest in (openbsd, netbsd, plain):
        run(guest, "assign_hostname")
        assert (text(guest, "/etc/myname"), mode(guest, "/etc/myname")) == ("web1.example.org\n", 0o644)
    assert text(openbsd, "/etc/rc.conf") == TREE["/etc/rc.conf"]
    assert text(netbsd, "/etc/rc.conf").startswith('hostname="web1.example.org"')
    assert text(plain, "/etc/rc.conf") == "rc_configured=YES\n"


def test_a_name_that_no_host_may_have(guest_of: GuestOf) -> None:
    guest = bsd(guest_of, OsFamily.OPENBSD, assign_hostname=AssignHostname(name="a b"))
    with pytest.raises(RequestError, match="hostname"):
        run(guest, "assign_hostname")


# -- password -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "prefix"),
    [(OsFamily.FREEBSD, "$6$"), (OsFamily.OPENBSD, "$2b$"), (OsFamily.NETBSD, "$sha1$")],
)
def test_the_password_of_two_users(guest_of: GuestOf, family: OsFamily, prefix: str) -> None:
    """R-TASK-PW-4, R-TASK-PW-5: hash by the family's default; place, owner, mode and other lines stay."""
    guest = bsd(guest_of, family, change_password=asked(users=("alice", "root")))
    run(guest, "change_password")
    lines = text(guest, "/etc/master.passwd").splitlines()
    assert [line.split(":")[0] for line in lines] == ["root", "rooter", "alice"]
    assert lines[1] == MASTER.decode().splitlines()[1]
    hashes = [lines[0].split(":")[1], lines[2].split(":")[1]]
    assert all(libcrypt_accepts("new", stored) and stored.startswith(prefix) for stored in hashes)
    assert hashes[0] != hashes[1]
    assert mode(guest, "/etc/master.passwd") == 0o600


def test_dates_that_have_passed_do_not_lock_the_new_password(guest_of: GuestOf) -> None:
    """R-TASK-PW-4: ``change`` in the past becomes 0, ``expire`` in the future is kept."""
    guest = bsd(guest_of, OsFamily.FREEBSD, change_password=asked(users=("alice",)))
    run(guest, "change_password")
    fields = text(guest, "/etc/master.passwd").splitlines()[2].split(":")
    assert fields[4:] == ["staff", "0", "9000000000", "Alice", "/home/alice", "/bin/sh"]


def test_a_missing_user_leaves_everything_as_it_was(guest_of: GuestOf) -> None:
    """R-TASK-PW-2, T-81, T-82: names are whole fields, and all of them are looked up first."""
    guest = bsd(guest_of, OsFamily.FREEBSD, change_password=asked(users=("root", "roo", "a.ice")))
    with pytest.raises(RequestError, match=r"'roo': not in /etc/master.passwd.*'a.ice'"):
        run(guest, "change_password")
    assert changes(guest) == []


@pytest.mark.parametrize("family", BSDS)
def test_the_databases_are_made_at_the_first_boot(guest_of: GuestOf, family: OsFamily) -> None:
    """R-TASK-PW-4: the old secret database is gone, and the image's own rc.local runs afterwards."""
    own: dict[str, Node] = {"/etc/rc.local": File("echo own\n", mode=0o640)}
    own |= {"/etc/spwd.db.tmp": "t", "/etc/pwd.db.tmp": "t"}
    guest = bsd(guest_of, family, own, change_password=asked())
    run(guest, "change_password")
    if family is OsFamily.NETBSD:
        assert content(guest, "/etc/spwd.db") == b""
        assert not exists(guest, "/etc/spwd.db.tmp")
        assert not exists(guest, "/etc/pwd.db.tmp")
    else:
        assert not exists(guest, "/etc/spwd.db")
    script = text(guest, "/etc/rc.local")
    assert script.index("PATH=") < script.index("pwd_mkdb -p /etc/master.passwd") < script.index("mv -f")
    assert (text(guest, password.KEPT_RC_LOCAL), mode(guest, password.KEPT_RC_LOCAL)) == ("echo own\n", 0o640)
    assert content(guest, "/etc/pwd.db") == b"old"


def test_a_second_deployment_keeps_the_first_rc_local(guest_of: GuestOf) -> None:
    """R-TASK-PW-4: our own script is not taken for the image's."""
    guest = bsd(guest_of, OsFamily.FREEBSD, {"/etc/rc.local": "own\n"}, change_password=asked())
    run(guest, "change_password")
    run(guest, "change_password")
    assert text(guest, password.KEPT_RC_LOCAL) == "own\n"
    assert content(guest, "/etc/rc.local") == password.FIRST_BOOT


def test_a_given_hash_is_stored_unchanged(guest_of: GuestOf) -> None:
    """R-TASK-PW-5: one that the system does not know gives a warning."""
    given = "$6$abcdefgh$" + "x" * 86
    for family, warned in ((OsFamily.FREEBSD, False), (OsFamily.OPENBSD, True)):
        guest = bsd(guest_of, family, change_password=asked(password=None, password_hash=Secret(given)))
        run(guest, "change_password")
        assert f"root:{given}:0:0:" in text(guest, "/etc/master.passwd")
        assert any("does not know sha512" in warning for warning in warnings(guest)) is warned


def test_keys_alone_leave_the_databases_alone(guest_of: GuestOf) -> None:
    """R-TASK-KEY-1, R-TASK-PW-1: nothing but the key is written."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x"
    guest = bsd(guest_of, OsFamily.OPENBSD, change_password=asked(password=None, keys=(key,)))
    run(guest, "change_password")
    assert key in text(guest, "/root/.ssh/authorized_keys")
    assert content(guest, "/etc/spwd.db") == b"old"
    assert not exists(guest, "/etc/rc.local")


def test_master_passwd_must_be_there_and_whole(guest_of: GuestOf) -> None:
    """R-TASK-PW-4: missing, or lines of other than ten fields."""
    without = bsd(guest_of, OsFamily.FREEBSD, change_password=asked())
    without.root.remove("/etc/master.passwd")
    with pytest.raises(ImageError, match="missing"):
        run(without, "change_password")
    short = bsd(guest_of, OsFamily.FREEBSD, {"/etc/master.passwd": "root:x:0:0\n"}, change_password=asked())
    with pytest.raises(ImageError, match="4 fields, not 10"):
        run(short, "change_password")


def test_nothing_asked_is_a_warning(guest_of: GuestOf) -> None:
    """R-TASK-PW-1."""
    guest = bsd(guest_of, OsFamily.NETBSD, change_password=ChangePassword())
    run(guest, "change_password")
    assert changes(guest) == []
    assert "no password and no key" in warnings(guest)[0]


# -- others ---------------------------------------------------------------------------------------


def test_host_keys_are_removed_and_none_are_made(guest_of: GuestOf) -> None:
    """R-TASK-SSH-1, R-TASK-SSH-2: the BSDs make missing keys at boot."""
    tree: dict[str, Node] = {
        "/etc/ssh/sshd_config": "Port 22\n",
        "/etc/ssh/ssh_host_rsa_key": "old",
        "/etc/ssh/ssh_host_rsa_key.pub": "old",
    }
    guest = bsd(guest_of, OsFamily.NETBSD, tree)
    run(guest, "delete_ssh_keys")
    assert guest.root.list("/etc/ssh") == ["sshd_config"]


def test_cloud_init_is_refused(guest_of: GuestOf) -> None:
    """R-NET-13: rc.conf is what counts; an image that would configure itself is not supported."""
    with pytest.raises(RequestError, match="CLOUD_INIT=yes is supported for Linux only"):
        run(bsd(guest_of, OsFamily.FREEBSD, cloud_init=True), "initialize_datasource")
    run(bsd(guest_of, OsFamily.FREEBSD), "initialize_datasource")


def test_another_back_end_is_refused(guest_of: GuestOf) -> None:
    """R-NET-11: a BSD has its own; ``none`` leaves the network alone."""
    guest = bsd(guest_of, OsFamily.FREEBSD, configure_network=ConfigureNetwork(backend="netplan"))
    with pytest.raises(RequestError, match="NET_BACKEND=netplan is not for freebsd"):
        run(guest, "configure_network")
    run(
        bsd(guest_of, OsFamily.FREEBSD, configure_network=ConfigureNetwork(backend="none")),
        "configure_network",
    )


@pytest.mark.parametrize(
    ("family", "tree", "found"),
    [
        (OsFamily.FREEBSD, {"/etc/os-release": 'ID=freebsd\nVERSION_ID="14.1"\n'}, (14, 1)),
        (OsFamily.FREEBSD, {"/bin/freebsd-version": '#!/bin/sh\nUSERLAND_VERSION="9.3-RELEASE"\n'}, (9, 3)),
        (OsFamily.FREEBSD, {"/etc/freebsd-update.conf": "KeyPrint 10.1\n"}, None),
        (OsFamily.NETBSD, {"/etc/release": "NetBSD 10.0/amd64\nBuilt\n"}, (10, 0)),
        (OsFamily.OPENBSD, {f"/etc/signify/openbsd-{n}-base.pub": "" for n in ("75", "76")}, (7, 6)),
        (OsFamily.OPENBSD, {"/etc/motd": "OpenBSD 6.8 (GENERIC)\n"}, (6, 8)),
    ],
)  # fmt: skip
def test_the_release_is_read_as_text(
    guest_of: GuestOf, family: OsFamily, tree: dict[str, Node], found: tuple[int, int] | None
) -> None:
    """R-DISTRO-3, T-99: never from freebsd-update.conf; an unknown one counts as the newest, and is told."""
    guest = bsd(guest_of, family, tree)
    assert release.version(guest.root, family) == found
    assert release.version_of(guest) == (found or release.NEWEST)
    assert bool(warnings(guest)) == (found is None)
