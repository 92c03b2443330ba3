"""Keys with which users may log in."""

from __future__ import annotations

import os
import posixpath

import pytest

from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.unix.accounts import Account
from snf_image_helper.unix.authorized_keys import add_keys, key_files, with_keys
from trees import (
    Directory,
    Fifo,
    File,
    GuestOf,
    Link,
    Node,
    Tree,
    changes,
    exists,
    mode,
    owner,
    text,
    warnings,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@home"
OTHER = "ssh-rsa AAAAB3NzaC1yc2EAAAAD other"
CONFIG = "/etc/ssh/sshd_config"
ME = Account(name="bob", uid=os.getuid(), gid=os.getgid(), home="/home/bob", shadowed=True)
BOB = Account(name="bob", uid=1234, gid=567, home="/home/bob", shadowed=True)


def add(guest: Guest, account: Account = BOB, *keys: str) -> None:
    for file in key_files(guest, [account]):
        add_keys(guest, file, keys or (KEY,))


def where(guest_of: GuestOf, config: str, account: Account = BOB, tree: Tree | None = None) -> str:
    files = key_files(guest_of({CONFIG: config, **(tree or {})}), [account])
    return files[0].path


def test_the_file_and_its_directory_are_made(guest_of: GuestOf) -> None:
    """R-TASK-KEY-2: 0700 and 0600, owned by the user; the home is not touched."""
    guest = guest_of({CONFIG: "", "/home/bob": Directory(mode=0o755)})
    home_owner = owner(guest, "/home/bob")
    add(guest)
    assert text(guest, "/home/bob/.ssh/authorized_keys") == f"{KEY}\n"
    assert (mode(guest, "/home/bob/.ssh"), owner(guest, "/home/bob/.ssh")) == (0o700, (1234, 567))
    path = "/home/bob/.ssh/authorized_keys"
    assert (mode(guest, path), owner(guest, path)) == (0o600, (1234, 567))
    assert (mode(guest, "/home/bob"), owner(guest, "/home/bob")) == (0o755, home_owner)
    assert warnings(guest) == []


def test_a_missing_home_is_made(guest_of: GuestOf) -> None:
    """R-TASK-KEY-2: with a warning; what is above it is root's."""
    guest = guest_of({CONFIG: "", "/etc": None})
    add(guest)
    assert (mode(guest, "/home"), owner(guest, "/home")) == (0o755, (0, 0))
    assert (mode(guest, "/home/bob"), owner(guest, "/home/bob")) == (0o700, (1234, 567))
    assert warnings(guest) == ["user 'bob': home directory /home/bob is missing, made"]


def test_keys_are_appended_once(guest_of: GuestOf) -> None:
    """R-TASK-KEY-2: after a newline; the same type and blob is the same key, whatever its comment."""
    guest = guest_of({CONFIG: "", "/home/bob/.ssh/authorized_keys": f"{OTHER}"})
    add(guest, BOB, KEY, KEY + " again")
    add(guest, BOB, KEY.replace("me@home", "elsewhere"))
    assert text(guest, "/home/bob/.ssh/authorized_keys") == f"{OTHER}\n{KEY}\n"


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        KEY.rsplit(" ", 1)[0],
        f'command="echo \\"a b\\" ssh-rsa",no-pty {KEY}',
        f'from="10.0.0.0/8" {KEY}',
        f"  {KEY}",
        f"no-pty\t{KEY}",
    ],
)
def test_keys_behind_options_are_known(line: str) -> None:
    """R-TASK-KEY-2: options with quoted blanks are no part of the key."""
    data = f"{line}\n".encode()
    assert with_keys(data, [KEY.encode()]) == data


@pytest.mark.parametrize("line", [f"# {KEY}", KEY.replace("AAAAC3", "AAAAC4"), 'command="' + KEY, ""])
def test_what_is_not_that_key(line: str) -> None:
    assert with_keys(f"{line}\n".encode(), [KEY.encode()]) == f"{line}\n{KEY}\n".encode()


def test_an_existing_file_becomes_the_users_own(guest_of: GuestOf) -> None:
    """R-TASK-KEY-2: sshd reads no file that others may write."""
    guest = guest_of({CONFIG: "", "/home/bob/.ssh/authorized_keys": File(OTHER, mode=0o666)})
    add(guest)
    path = "/home/bob/.ssh/authorized_keys"
    assert (mode(guest, path), owner(guest, path)) == (0o600, (1234, 567))


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ("", "/home/bob/.ssh/authorized_keys"),
        ("AuthorizedKeysFile .ssh/a .ssh/b\n", "/home/bob/.ssh/a"),
        ("authorizedkeysFILE a\nAuthorizedKeysFile b\n", "/home/bob/a"),
        ("AuthorizedKeysFile /etc/ssh/keys/%u\n", "/etc/ssh/keys/bob"),
        ("AuthorizedKeysFile %h/.keys/%U-%%-%u\n", "/home/bob/.keys/1234-%-bob"),
        ("AuthorizedKeysFile .ssh/$(touch/x)`id`\n", "/home/bob/.ssh/$(touch/x)`id`"),
        ("Match User bob\nAuthorizedKeysFile x\n", "/home/bob/.ssh/authorized_keys"),
    ],
)
def test_where_sshd_looks(guest_of: GuestOf, config: str, path: str) -> None:
    """T-86, T-87, R-TASK-KEY-1: the first file of the first value; tokens; nothing is evaluated."""
    assert where(guest_of, config) == path


def test_a_value_of_an_included_file_counts(guest_of: GuestOf) -> None:
    """T-87."""
    tree: Tree = {"/etc/ssh/sshd_config.d/1.conf": "AuthorizedKeysFile first\n"}
    config = "Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile second\n"
    assert where(guest_of, config, BOB, tree) == "/home/bob/first"


@pytest.mark.parametrize("config", ["AuthorizedKeysFile none\n", "AuthorizedKeysFile None\n"])
def test_no_file_at_all(guest_of: GuestOf, config: str) -> None:
    """T-88, R-TASK-KEY-1: the user is skipped with a warning."""
    guest = guest_of({CONFIG: config, "/home/bob": None})
    add(guest)
    assert changes(guest) == []
    assert warnings(guest) == ["user 'bob': sshd_config says AuthorizedKeysFile none; no key is added"]


@pytest.mark.parametrize("value", ["%x/keys", "keys/%", "%H"])
def test_an_unknown_token_is_an_error(guest_of: GuestOf, value: str) -> None:
    """R-TASK-KEY-1."""
    with pytest.raises(ImageError, match="unknown token"):
        where(guest_of, f"AuthorizedKeysFile {value}\n")


def test_no_sshd_config(guest_of: GuestOf) -> None:
    """R-TASK-KEY-1: a warning, and the default."""
    guest = guest_of({"/home/bob": None})
    add(guest)
    assert exists(guest, "/home/bob/.ssh/authorized_keys")
    assert "sshd_config: missing" in warnings(guest)[0]


@pytest.mark.parametrize("existing", [None, f"{OTHER}\n"])
def test_a_directory_outside_the_home_keeps_its_owner(guest_of: GuestOf, existing: str | None) -> None:
    """T-89, R-TASK-KEY-2: and so does a file that is there already."""
    tree: dict[str, Node] = {
        CONFIG: "AuthorizedKeysFile /etc/ssh/keys/%u\n",
        "/etc/ssh/keys": Directory(mode=0o751),
        "/home/bob": None,
    }
    if existing is not None:
        tree["/etc/ssh/keys/bob"] = File(existing, mode=0o644)
    guest = guest_of(tree)
    before = (mode(guest, "/etc/ssh/keys"), owner(guest, "/etc/ssh/keys"))
    add(guest)
    assert (mode(guest, "/etc/ssh/keys"), owner(guest, "/etc/ssh/keys")) == before
    assert text(guest, "/etc/ssh/keys/bob") == f"{existing or ''}{KEY}\n"
    assert mode(guest, "/etc/ssh/keys/bob") == (0o600 if existing is None else 0o644)
    assert not exists(guest, "/home/bob/.ssh")


def test_a_missing_directory_outside_the_home_is_roots(guest_of: GuestOf) -> None:
    """R-TASK-KEY-2."""
    guest = guest_of({CONFIG: "AuthorizedKeysFile /etc/ssh/keys/%u\n", "/home/bob": None})
    add(guest)
    assert (mode(guest, "/etc/ssh/keys"), owner(guest, "/etc/ssh/keys")) == (0o755, (0, 0))
    assert (mode(guest, "/etc/ssh/keys/bob"), owner(guest, "/etc/ssh/keys/bob")) == (0o600, (1234, 567))


def test_a_link_of_another_user_is_an_error(guest_of: GuestOf) -> None:
    """R-TASK-KEY-3: it could be turned elsewhere between our look and sshd's."""
    stranger = Account(name="bob", uid=os.getuid() + 1, gid=1, home="/home/bob", shadowed=True)
    guest = guest_of({CONFIG: "", "/home/bob/.ssh": Link("/srv/keys"), "/srv/keys": None})
    if os.getuid() == 0:
        os.lchown(f"{guest.target}/home/bob/.ssh", 4321, 4321)
    with pytest.raises(ImageError, match=r"/home/bob/\.ssh is a link of uid"):
        key_files(guest, [stranger])
    assert changes(guest) == []


def test_a_link_of_ones_own_is_followed_within_the_image(guest_of: GuestOf) -> None:
    """R-TASK-KEY-3, R-TASK-5: an absolute link stays beneath the root."""
    guest = guest_of({CONFIG: "", "/home/bob/.ssh": Link("/srv/keys"), "/srv/keys": None})
    add(guest, ME)
    assert text(guest, "/srv/keys/authorized_keys") == f"{KEY}\n"


@pytest.mark.parametrize("target", ["/root/outside", "../../../../../../outside", ".ssh"])
def test_links_out_of_the_image_or_in_a_circle(guest_of: GuestOf, target: str) -> None:
    """T-78, R-TASK-5: nothing outside is made; a loop is an error."""
    guest = guest_of({CONFIG: "", "/home/bob/.ssh": Link(target)})
    outside = posixpath.join(posixpath.dirname(guest.target), "outside")
    try:
        add(guest, ME)
    except ImageError as error:
        assert str(error).startswith("/home/bob/.ssh")  # noqa: PT017 - both endings are right
    assert not os.path.lexists(outside)


@pytest.mark.parametrize("node", [Fifo(), None])
def test_no_regular_file(guest_of: GuestOf, node: Node) -> None:
    """R-TASK-6: found before anything is written."""
    guest = guest_of({CONFIG: "", "/home/bob/.ssh/authorized_keys": node})
    with pytest.raises(ImageError, match="not a regular file"):
        key_files(guest, [BOB])


@pytest.mark.parametrize("path", ["/home", "/home/bob", "/home/bob/.ssh"])
def test_a_file_in_the_place_of_a_directory(guest_of: GuestOf, path: str) -> None:
    """T-82: found before anything is written."""
    with pytest.raises(ImageError, match=rf"^{path}: is not a directory"):
        key_files(guest_of({CONFIG: "", path: "a file"}), [BOB])


@pytest.mark.parametrize("home", ["", "home/bob", "../x"])
def test_a_home_that_is_no_path(guest_of: GuestOf, home: str) -> None:
    account = Account(name="bob", uid=1, gid=1, home=home, shadowed=True)
    with pytest.raises(ImageError, match="no absolute path"):
        where(guest_of, "", account)


def test_a_home_at_the_root(guest_of: GuestOf) -> None:
    """Some appliances keep root's home at /."""
    guest = guest_of({CONFIG: ""})
    add(guest, Account(name="root", uid=0, gid=0, home="/", shadowed=True))
    assert text(guest, "/.ssh/authorized_keys") == f"{KEY}\n"


@pytest.mark.parametrize(
    ("config", "home"),
    [
        ("AuthorizedKeysFile %h/.ssh/authorized_keys", "/"),
        ("", "//home/bob"),
        ("AuthorizedKeysFile //keys/%u/authorized_keys", "/home/bob"),
    ],
)
def test_a_path_that_begins_with_two_slashes(guest_of: GuestOf, config: str, home: str) -> None:
    """R-TASK-KEY-2: the directory above "//" is "//" for POSIX, so that looking upwards has to end there."""
    guest = guest_of({CONFIG: config})
    account = Account(name="bob", uid=1234, gid=567, home=home, shadowed=True)
    (file,) = key_files(guest, [account])
    add_keys(guest, file, (KEY,))
    assert text(guest, file.path) == f"{KEY}\n"
    assert (mode(guest, file.path), owner(guest, file.path)) == (0o600, (1234, 567))
