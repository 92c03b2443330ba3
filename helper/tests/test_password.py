"""Task ChangePassword for Linux."""

from __future__ import annotations

import os
from typing import Any

import pytest
import yaml

from snf_image_contract.job import ChangePassword
from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.hash_methods import default_method, verifiable_methods
from snf_image_helper.linux.password import change_password
from trees import (
    Fifo,
    File,
    GuestOf,
    Link,
    Node,
    Tree,
    changes,
    content,
    exists,
    libcrypt_accepts,
    mode,
    text,
    warnings,
)

ME = f"{os.getuid()}:{os.getgid()}"
SHADOW = "daemon:*:1:0:99999:7:::\nroot:$6$old$old:1:0:99999:7:::\nbob:!:1:0:99999:7:::\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@home"
BASE: dict[str, Node] = {
    "/etc/passwd": f"root:x:{ME}:root:/root:/bin/sh\nbob:x:{ME}:Bob:/home/bob:/bin/sh\n",
    "/etc/shadow": File(SHADOW, mode=0o640),
    "/etc/ssh/sshd_config": "",
    "/root": None,
    "/home/bob": None,
}
XCRYPT = b"\x7fELF\0$y$\0$gy$\0$7$\0$2b$\0$6$\0$5$\0$sha1\0$1$\0"
GLIBC = b"\x7fELF\0$6$\0$5$\0$1$\0"
CONFIG = "/etc/cloud/cloud.cfg.d/98_snf-image-50ChangePassword.cfg"
META_DATA = "/var/lib/cloud/seed/nocloud-net/meta-data"


def run(guest_of: GuestOf, tree: Tree | None = None, *, cloud_init: bool = False, **asked: Any) -> Guest:
    for name in ("password", "password_hash"):
        if isinstance(asked.get(name), str):
            asked[name] = Secret(asked[name])
    guest = guest_of({**BASE, **(tree or {})}, cloud_init=cloud_init, change_password=ChangePassword(**asked))
    change_password(guest)
    return guest


def field(guest: Guest, user: str, number: int = 1) -> str:
    for line in text(guest, "/etc/shadow").splitlines():
        if line.startswith(f"{user}:"):
            return line.split(":")[number]
    raise AssertionError(user)


def verifies(guest: Guest, user: str, password: str) -> bool:
    return libcrypt_accepts(password, field(guest, user))


def test_the_new_password_verifies_and_the_old_one_does_not(guest_of: GuestOf) -> None:
    """R-TASK-PW-3, D-35: by libcrypt; mode and other lines are kept; today comes from the host's clock."""
    guest = run(guest_of, users=("root",), password="new öäü '\"$`\\")
    assert verifies(guest, "root", "new öäü '\"$`\\")
    assert not verifies(guest, "root", "old")
    assert mode(guest, "/etc/shadow") == 0o640
    assert field(guest, "root", 2) == "20454"
    assert [line.split(":")[0] for line in text(guest, "/etc/shadow").splitlines()] == [
        "daemon",
        "root",
        "bob",
    ]
    assert changes(guest) == [("modified", "/etc/shadow")]


def test_nothing_given_is_a_warning(guest_of: GuestOf) -> None:
    """R-TASK-PW-1."""
    guest = run(guest_of, users=("root",))
    assert changes(guest) == []
    assert warnings(guest) == ["no password and no key given: passwords stay as they are"]


def test_without_users_it_is_root(guest_of: GuestOf) -> None:
    """R-TASK-PW-1: with a warning."""
    guest = run(guest_of, password="x")
    assert verifies(guest, "root", "x")
    assert warnings(guest) == ["property USERS is not set: root it is"]


def test_users_share_no_salt(guest_of: GuestOf) -> None:
    """T-133."""
    guest = run(guest_of, users=("root", "bob"), password="same")
    assert field(guest, "root").split("$")[2] != field(guest, "bob").split("$")[2]
    assert verifies(guest, "root", "same")
    assert verifies(guest, "bob", "same")


@pytest.mark.parametrize("asked", [{"password": "x"}, {"password_hash": "$6$a$b"}, {"keys": (KEY,)}])
def test_a_missing_user_leaves_the_others_as_they_are(guest_of: GuestOf, asked: dict[str, Any]) -> None:
    """T-82, R-TASK-PW-2: everything is looked at before anything is written."""
    guest = guest_of(BASE, change_password=ChangePassword(users=("root", "alice"), **_secret(asked)))
    with pytest.raises(RequestError, match="user 'alice': not in /etc/"):
        change_password(guest)
    assert changes(guest) == []


def _secret(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: Secret(value) if isinstance(value, str) else value for name, value in asked.items()}


def test_keys_that_cannot_be_set_leave_the_password_as_it_is(guest_of: GuestOf) -> None:
    """T-82: the same holds between password and keys."""
    tree: Tree = {**BASE, "/home/bob/.ssh/authorized_keys": Fifo()}
    asked = ChangePassword(users=("root", "bob"), password=Secret("x"), keys=(KEY,))
    guest = guest_of(tree, change_password=asked)
    with pytest.raises(ImageError, match=r"^/home/bob/\.ssh/authorized_keys: not a regular file"):
        change_password(guest)
    assert changes(guest) == []


def test_a_given_hash_is_stored_unchanged(guest_of: GuestOf) -> None:
    """R-TASK-PW-5: whatever form it has."""
    for given in ("$6$salt$hash", "$y$j9T$a$b", "*", "!x", "abJnggxhB/yWI"):
        assert field(run(guest_of, users=("root",), password_hash=given), "root") == given


@pytest.mark.parametrize("bad", ["", "a:b", "a b", "a\nb", "ä", "x" * 1025])
def test_a_hash_that_would_break_shadow_or_open_the_account(guest_of: GuestOf, bad: str) -> None:
    """T-134, R-OSP-8: an empty hash is no password at all; the error does not show what was given."""
    guest = guest_of(BASE, change_password=ChangePassword(users=("root",), password_hash=Secret(bad)))
    with pytest.raises(RequestError, match="password hash") as caught:
        change_password(guest)
    assert "a:b" not in str(caught.value)
    assert changes(guest) == []


def test_an_empty_password_opens_no_account(guest_of: GuestOf) -> None:
    """T-83."""
    with pytest.raises(RequestError, match="the password is empty"):
        run(guest_of, users=("root",), password="")


def test_a_long_password_is_not_cut_by_bcrypt(guest_of: GuestOf) -> None:
    """R-OSP-7."""
    with pytest.raises(RequestError, match="takes at most 72"):
        run(guest_of, users=("root",), password="x" * 73, method="blowfish")


@pytest.mark.parametrize(("name", "prefix"), [("md5", "$1$"), ("sha256", "$5$"), ("yescrypt", "$y$j9T$")])
def test_the_property_decides_the_method(guest_of: GuestOf, name: str, prefix: str) -> None:
    """R-TASK-PW-5."""
    assert field(run(guest_of, users=("root",), password="x", method=name), "root").startswith(prefix)


LOGIN_DEFS: Tree = {"/etc/login.defs": "#ENCRYPT_METHOD SHA512\nENCRYPT_METHOD YESCRYPT\n"}
PAM: Tree = {"/etc/pam.d/common-password": "password [success=1] pam_unix.so obscure yescrypt\n"}
LIB = "/usr/lib/x86_64-linux-gnu/libcrypt.so.1.1.0"


@pytest.mark.parametrize(
    ("tree", "prefix"),
    [
        ({**LOGIN_DEFS, LIB: XCRYPT}, "$y$"),
        ({**PAM, "/usr/lib64/libcrypt.so.2": XCRYPT}, "$y$"),
        ({"/usr/lib/pam.d/system-auth": "-password required pam_unix.so yescrypt\n", LIB: XCRYPT}, "$y$"),
        ({**LOGIN_DEFS, LIB: GLIBC}, "$6$"),
        ({**PAM, "/lib/ld-musl-x86_64.so.1": XCRYPT}, "$6$"),
        (LOGIN_DEFS, "$6$"),
        ({LIB: XCRYPT}, "$6$"),
        ({LIB: XCRYPT, "/etc/login.defs": "#ENCRYPT_METHOD YESCRYPT\nENCRYPT_METHOD SHA512\n"}, "$6$"),
        ({LIB: XCRYPT, "/etc/login.defs": "YESCRYPT_COST_FACTOR 5\n"}, "$6$"),
        (
            {LIB: XCRYPT, "/etc/pam.d/common-password": "# password pam_unix.so yescrypt\nauth x yescrypt\n"},
            "$6$",
        ),
        ({LIB: XCRYPT, "/etc/pam.d/sshd": "password required pam_unix.so yescrypt\n"}, "$6$"),
    ],
)
@pytest.mark.parametrize("asked", [None, "auto"])
def test_yescrypt_if_the_image_asks_for_it_and_knows_it(
    guest_of: GuestOf, tree: Tree, prefix: str, asked: str | None
) -> None:
    """T-84, R-TASK-PW-5."""
    assert field(run(guest_of, tree, users=("root",), password="x", method=asked), "root").startswith(prefix)


def methods(guest: Guest) -> list[str]:
    return sorted(verifiable_methods(guest.root) or ())


def test_what_libraries_know_is_read_from_their_bytes(guest_of: GuestOf) -> None:
    """R-TASK-PW-5, R-TASK-7: nothing of the image is loaded."""
    assert methods(guest_of({"/lib/libcrypt-2.12.so": GLIBC})) == ["md5", "sha256", "sha512"]
    every = ["blowfish", "md5", "sha1", "sha256", "sha512", "yescrypt"]
    assert methods(guest_of({LIB: XCRYPT})) == every
    assert verifiable_methods(guest_of({"/usr/lib/libcrypto.so.3": XCRYPT}).root) is None
    dangling: Tree = {"/usr/lib/libcrypt.so.1": Link("libcrypt.so.1.1.0")}
    assert verifiable_methods(guest_of(dangling).root) is None
    assert default_method(guest_of({"/lib/ld-musl-aarch64.so.1": "", **LOGIN_DEFS}).root) == "sha512"


@pytest.mark.parametrize("asked", [{"password": "x", "method": "yescrypt"}, {"password_hash": "$y$j9T$a$b"}])
def test_a_method_that_the_image_cannot_verify_is_told(guest_of: GuestOf, asked: dict[str, Any]) -> None:
    """R-TASK-PW-5: a warning, and it is done all the same."""
    guest = run(guest_of, {LIB: GLIBC}, users=("root",), **asked)
    assert field(guest, "root").startswith("$y$")
    assert warnings(guest) == [
        "the image's libcrypt does not know yescrypt: login with this password will fail"
    ]


@pytest.mark.parametrize("passwd_field", ["", "*", "$1$a$b"])
def test_a_password_in_passwd_would_count_instead(guest_of: GuestOf, passwd_field: str) -> None:
    """R-TASK-PW-3: passwd is not changed, and a password that would not hold is no success."""
    with pytest.raises(ImageError, match="would not look into shadow"):
        run(guest_of, {"/etc/passwd": f"root:{passwd_field}:0:0::/root:\n"}, users=("root",), password="x")


def test_an_image_without_passwd(guest_of: GuestOf) -> None:
    """R-TASK-PW-3: of the two files the password needs shadow only."""
    asked = ChangePassword(users=("root",), password=Secret("new"))
    guest = guest_of({"/etc/shadow": SHADOW}, change_password=asked)
    change_password(guest)
    assert verifies(guest, "root", "new")


def test_an_expired_account_is_told(guest_of: GuestOf) -> None:
    """R-TASK-PW-3."""
    guest = run(guest_of, {"/etc/shadow": "root:x:1::::30:100:\n"}, users=("root",), password="x")
    assert warnings(guest) == ["user 'root': the account has expired (/etc/shadow, field 8), login will fail"]


def test_backups_and_passwd_stay(guest_of: GuestOf) -> None:
    """R-TASK-PW-3."""
    guest = run(guest_of, {"/etc/shadow-": SHADOW}, users=("root",), password="x")
    assert text(guest, "/etc/shadow-") == SHADOW
    assert changes(guest) == [("modified", "/etc/shadow")]


def test_no_secret_is_told(guest_of: GuestOf) -> None:
    """R-TASK-PW-6, R-SEC-2: neither events nor changes hold password or hash."""
    guest = run(guest_of, users=("root", "bob"), password="correct horse", keys=(KEY,))
    guest.report.flush_changes()
    told = repr(vars(guest.report))
    assert "correct" not in told
    assert field(guest, "root") not in told


def test_password_and_keys_together(guest_of: GuestOf) -> None:
    """R-TASK-PW-1, R-TASK-KEY-2."""
    guest = run(guest_of, users=("bob",), password="x", keys=(KEY,))
    assert verifies(guest, "bob", "x")
    assert text(guest, "/home/bob/.ssh/authorized_keys") == f"{KEY}\n"


@pytest.mark.parametrize("name", ["a b", "a:b", "../root", ""])
def test_what_is_no_user_name(guest_of: GuestOf, name: str) -> None:
    """R-TASK-PW-1."""
    with pytest.raises(RequestError, match="user name"):
        run(guest_of, users=(name,), password="x")


def test_links_lead_nowhere_but_into_the_image(guest_of: GuestOf) -> None:
    """T-78: /etc/shadow as an absolute link."""
    guest = run(
        guest_of,
        {"/etc/shadow": Link("/usr/shadow"), "/usr/shadow": File(SHADOW, mode=0o600)},
        users=("root",),
        password="x",
    )
    assert "root:$6$old" not in text(guest, "/usr/shadow")
    assert changes(guest) == [("modified", "/usr/shadow")]


# -- cloud-init ---------------------------------------------------------------------------------------

CLOUD: dict[str, Node] = {
    "/etc/cloud/cloud.cfg.d": None,
    "/etc/cloud/cloud.cfg": "system_info:\n  default_user:\n    name: debian\n",
}
NEW: Tree = {**CLOUD, "/usr/lib/python3/dist-packages/cloudinit/version.py": '__VERSION__ = "22.4.2"\n'}
OLD: Tree = {**CLOUD, "/usr/lib/python3/dist-packages/cloudinit/version.py": '__VERSION__ = "20.1"\n'}


def cloud_config(guest: Guest) -> dict[str, Any]:
    document = yaml.safe_load(content(guest, CONFIG))
    assert isinstance(document, dict)
    return document


def test_cloud_init_gets_hashes_and_never_clear_text(guest_of: GuestOf) -> None:
    """T-90, T-135, R-TASK-PW-7: mode 0600; users need not exist in the image."""
    guest = run(guest_of, NEW, cloud_init=True, users=("root", "ghost"), password="correct horse")
    document = cloud_config(guest)
    assert document["ssh_pwauth"] is True
    assert document["chpasswd"]["expire"] is False
    users = document["chpasswd"]["users"]
    assert [(user["name"], user["type"]) for user in users] == [("root", "hash"), ("ghost", "hash")]
    for user in users:
        assert libcrypt_accepts("correct horse", user["password"])
        assert user["password"].startswith("$6$")
    assert users[0]["password"] != users[1]["password"]
    assert mode(guest, CONFIG) == 0o600
    assert text(guest, "/etc/shadow") == SHADOW
    for directory, _, files in os.walk(guest.target):
        for name in files:
            with open(f"{directory}/{name}", "rb") as stream:
                assert b"correct" not in stream.read()


def test_the_configuration_goes_after_the_first_boot(guest_of: GuestOf) -> None:
    """R-TASK-PW-7, R-TASK-CI-6."""
    guest = run(guest_of, NEW, cloud_init=True, users=("root",), password="x")
    scripts = os.listdir(f"{guest.target}/var/lib/cloud/scripts/per-once")
    assert any(CONFIG in text(guest, f"/var/lib/cloud/scripts/per-once/{name}") for name in scripts)


@pytest.mark.parametrize("tree", [OLD, CLOUD])
def test_an_older_cloud_init_gets_a_list(guest_of: GuestOf, tree: Tree) -> None:
    """R-TASK-PW-7: before 22.2, and where the version is unknown."""
    guest = run(guest_of, tree, cloud_init=True, users=("root", "bob"), password="x")
    lines = cloud_config(guest)["chpasswd"]["list"].splitlines()
    assert [line.split(":")[0] for line in lines] == ["root", "bob"]
    assert all(line.split(":")[1].startswith("$6$") for line in lines)


@pytest.mark.parametrize("given", ["$y$j9T$a$b", "$2b$12$abc", "!", "plain"])
def test_an_older_cloud_init_would_take_some_hashes_for_passwords(guest_of: GuestOf, given: str) -> None:
    """T-90: so they are refused; a newer one is told that they are hashes."""
    with pytest.raises(RequestError, match="older than 22\\.2"):
        run(guest_of, OLD, cloud_init=True, users=("root",), password_hash=given)
    guest = run(guest_of, NEW, cloud_init=True, users=("root",), password_hash=given)
    assert cloud_config(guest)["chpasswd"]["users"][0]["password"] == given


def test_keys_go_to_the_meta_data(guest_of: GuestOf) -> None:
    """T-91, R-TASK-PW-7: each a quoted string, whatever its comment says."""
    odd = KEY + ": a # b ' \" %"
    guest = run(guest_of, NEW, cloud_init=True, users=("debian", "alice"), keys=(KEY, odd))
    assert yaml.safe_load(content(guest, META_DATA))["public-keys"] == [KEY, odd]
    assert warnings(guest) == ["user 'alice': cloud-init decides whether its keys are set"]
    assert not exists(guest, CONFIG)
    assert not exists(guest, "/root/.ssh")


def test_root_gets_its_keys_from_cloud_init(guest_of: GuestOf) -> None:
    """R-TASK-PW-7: cloud-init would else put a refusal in front of root's keys."""
    guest = run(guest_of, NEW, cloud_init=True, users=("root",), keys=(KEY,))
    assert cloud_config(guest) == {"disable_root": False}


def test_the_first_cloud_init_that_is_told_of_hashes(guest_of: GuestOf) -> None:
    """R-TASK-PW-7: 22.2 itself knows them; what is made is SHA-512, whatever was asked for."""
    tree = {**CLOUD, "/usr/lib/python3/dist-packages/cloudinit/version.py": '__VERSION__ = "22.2"\n'}
    guest = run(guest_of, tree, cloud_init=True, users=("root",), password="x", method="sha256")
    (user,) = cloud_config(guest)["chpasswd"]["users"]
    assert (user["type"], user["password"][:3]) == ("hash", "$6$")
    assert warnings(guest) == ["with cloud-init the password is hashed by sha512, not sha256"]


@pytest.mark.parametrize("broken", ["system_info: !!bool maybe\n", "system_info: [\n", "- a list\n"])
def test_a_configuration_of_cloud_init_that_nobody_can_read(guest_of: GuestOf, broken: str) -> None:
    """R-TASK-PW-7: only the name of the default user is missed, which is told."""
    tree = {**NEW, "/etc/cloud/cloud.cfg": broken}
    guest = run(guest_of, tree, cloud_init=True, users=("root",), keys=(KEY,))
    (warning,) = warnings(guest)
    assert warning.startswith("default user of cloud-init not found: /etc/cloud/cloud.cfg: not ")
    assert KEY in text(guest, META_DATA)


def test_without_cloud_init_in_the_image(guest_of: GuestOf) -> None:
    """R-TASK-CI-1."""
    with pytest.raises(RequestError, match="cloud-init not found"):
        run(guest_of, cloud_init=True, users=("root",), password="x")
