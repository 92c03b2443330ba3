"""Host keys of the guest's sshd."""

from __future__ import annotations

import base64
import dataclasses
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from snf_image_contract.job import HostKey
from snf_image_contract.secret import Secret
from snf_image_helper.guest import Guest
from snf_image_helper.linux.ssh_host_keys import delete_ssh_keys
from snf_image_helper.unix import ssh_host_keys
from snf_image_helper.unix.ssh_host_keys import fingerprint
from snf_image_helper.unix.ssh_key_types import key_type
from snf_image_process import run
from trees import (
    Fifo,
    GuestOf,
    HardLink,
    Link,
    Node,
    Tree,
    changes,
    content,
    exists,
    mode,
    owner,
    text,
    warnings,
)

TYPES = {"rsa": b"ssh-rsa", "ecdsa": b"ecdsa-sha2-nistp256", "ed25519": b"ssh-ed25519", "dsa": b"ssh-dss"}
CONFIG = "/etc/ssh/sshd_config"


def public(kind: str, mark: bytes = b"old") -> str:
    """A public key line whose blob begins as one of that type does."""
    name = TYPES[kind]
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (name, mark))
    return f"{name.decode()} {base64.b64encode(blob).decode()} root@image\n"


def private(kind: str) -> str:
    """The plain part of a private key in OpenSSH's form."""
    blob = base64.b64decode(public(kind).split()[1])

    def field(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    body = (
        b"openssh-key-v1\0" + field(b"none") + field(b"none") + field(b"") + bytes([0, 0, 0, 1]) + field(blob)
    )
    text = base64.encodebytes(body).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n"


def from_host(kind: ssh_host_keys.KeyType) -> HostKey:
    line = public(kind, b"new").replace("root@image", "root@web1").strip()
    return HostKey(type=kind, private=Secret(f"PRIVATE {kind}"), public=line)


MADE = (from_host("rsa"), from_host("ecdsa"), from_host("ed25519"))
DEBIAN: Tree = {"/etc/os-release": "ID=debian\n", "/usr/sbin/sshd": "", CONFIG: "Port 22\n"}
FEDORA: Tree = {"/etc/os-release": "ID=fedora\n", "/usr/sbin/sshd": "", CONFIG: "Port 22\n"}


def keys_of(*kinds: str) -> dict[str, Node]:
    tree: dict[str, Node] = {}
    for kind in kinds:
        tree[f"/etc/ssh/ssh_host_{kind}_key"] = private(kind)
        tree[f"/etc/ssh/ssh_host_{kind}_key.pub"] = public(kind)
    return tree


def renew(guest_of: GuestOf, tree: Tree, *, host_keys: tuple[HostKey, ...] = MADE) -> Guest:
    guest = dataclasses.replace(guest_of(tree), host_keys=lambda: host_keys)
    delete_ssh_keys(guest)
    return guest


def in_ssh(guest: Guest) -> list[str]:
    return sorted(os.listdir(f"{guest.target}/etc/ssh"))


def test_debian_gets_the_keys_that_the_host_made(guest_of: GuestOf) -> None:
    """R-TASK-SSH-2: 0600 and 0644, root's; the old ones are gone."""
    guest = renew(guest_of, {**DEBIAN, **keys_of("rsa", "ed25519")})
    for kind in ("rsa", "ecdsa", "ed25519"):
        path = f"/etc/ssh/ssh_host_{kind}_key"
        assert text(guest, path) == f"PRIVATE {kind}\n"
        assert text(guest, f"{path}.pub").endswith(" root@web1\n")
        assert (mode(guest, path), owner(guest, path)) == (0o600, (0, 0))
        assert (mode(guest, f"{path}.pub"), owner(guest, f"{path}.pub")) == (0o644, (0, 0))
    assert warnings(guest) == []


def test_nothing_but_the_keys_changes(guest_of: GuestOf) -> None:
    """T-139."""
    guest = renew(guest_of, {**DEBIAN, **keys_of("rsa"), "/etc/ssh/moduli": "m", "/etc/ssh/ssh_config": "c"})
    assert {os.path.dirname(path) for _, path in changes(guest)} == {"/etc/ssh"}
    assert all("/ssh_host_" in path for _, path in changes(guest))
    assert text(guest, CONFIG) == "Port 22\n"


def test_other_families_make_their_own_at_boot(guest_of: GuestOf) -> None:
    """R-TASK-SSH-2: only deletion; keys, certificates and links."""
    tree: Tree = {
        **FEDORA,
        **keys_of("rsa", "ecdsa"),
        "/etc/ssh/ssh_host_rsa_key-cert.pub": "cert",
        "/etc/ssh/ssh_host_ed25519_key": Link("/srv/key"),
        "/srv/key": private("ed25519"),
        "/etc/ssh/ssh_host_directory": None,
        "/etc/ssh/ssh_config": "",
    }
    guest = renew(guest_of, tree)
    assert in_ssh(guest) == ["ssh_config", "ssh_host_directory", "sshd_config"]


def test_a_debian_without_a_server_needs_no_keys(guest_of: GuestOf) -> None:
    """R-TASK-SSH-2: neither sshd nor its package."""
    status = "Package: openssh-server\nStatus: deinstall ok config-files\n\n"
    tree: Tree = {"/etc/os-release": "ID=debian\n", CONFIG: "", "/var/lib/dpkg/status": status}
    assert in_ssh(renew(guest_of, tree)) == ["sshd_config"]


def test_a_server_by_its_package(guest_of: GuestOf) -> None:
    """R-TASK-SSH-2: dpkg says that it is installed."""
    status = "Package: a\n\nPackage: openssh-server\nStatus: install ok installed\nVersion: 1\n\n"
    tree: Tree = {"/etc/os-release": "ID=debian\n", CONFIG: "", "/var/lib/dpkg/status": status}
    assert "ssh_host_rsa_key" in in_ssh(renew(guest_of, tree))


def test_keys_that_the_configuration_names(guest_of: GuestOf) -> None:
    """R-TASK-SSH-1: whole keyword, any case, included files; made anew where they were."""
    tree: Tree = {
        **DEBIAN,
        CONFIG: "hostkey /srv/ssh/key\nInclude sshd_config.d/*\nHostKeyAlgorithms x\n#HostKey /keep\n",
        "/etc/ssh/sshd_config.d/a": "HostKey /opt/k2\nHostCertificate /opt/k2-cert.pub\n",
        "/srv/ssh/key": private("ed25519"),
        "/srv/ssh/key.pub": public("ed25519"),
        "/opt/k2": private("rsa"),
        "/opt/k2-cert.pub": public("rsa"),
        "/keep": private("rsa"),
    }
    guest = renew(guest_of, tree)
    assert text(guest, "/srv/ssh/key") == "PRIVATE ed25519\n"
    assert text(guest, "/opt/k2") == "PRIVATE rsa\n"
    assert not exists(guest, "/opt/k2-cert.pub")
    assert text(guest, "/keep") == private("rsa")
    assert exists(guest, "/etc/ssh/ssh_host_ecdsa_key")


@pytest.mark.parametrize(
    "where", ["/etc/shadow", "/etc/ssh/../shadow", "/link", "/etc/ssh/moduli", "/etc", "/pipe"]
)
def test_only_keys_are_removed(guest_of: GuestOf, where: str) -> None:
    """R-TASK-SSH-1: whatever a configuration calls a host key."""
    tree: Tree = {
        **FEDORA,
        CONFIG: f"HostKey {where}\nHostCertificate {where}\n",
        "/etc/shadow": "root:*:1::::::\n",
        "/link": Link("/etc/shadow"),
        "/etc/ssh/moduli": "m",
        "/pipe": Fifo(),
    }
    guest = renew(guest_of, tree)
    assert changes(guest) == []


def test_links_out_of_the_image_are_not_followed(guest_of: GuestOf, tmp_path: Path) -> None:
    """T-78: a key of the helper stays."""
    ours = tmp_path / "key"
    ours.write_text(private("rsa"))
    guest = renew(
        guest_of, {**DEBIAN, CONFIG: f"HostKey {ours}\n", "/etc/ssh/ssh_host_rsa_key": Link(str(ours))}
    )
    assert ours.read_text() == private("rsa")
    assert text(guest, "/etc/ssh/ssh_host_rsa_key") == "PRIVATE rsa\n"


@pytest.mark.parametrize("kind", ["dsa"])
def test_types_of_the_past_are_not_made(guest_of: GuestOf, kind: str) -> None:
    """R-TASK-SSH-2: a warning; the type is read from the key (T-92)."""
    guest = renew(guest_of, {**DEBIAN, **keys_of(kind), CONFIG: "HostKey /etc/ssh/ssh_host_xmss_key\n"})
    assert not exists(guest, f"/etc/ssh/ssh_host_{kind}_key")
    assert warnings(guest) == [
        "/etc/ssh/ssh_host_xmss_key: a host key of type xmss is not made anew",
        "/etc/ssh/ssh_host_dsa_key: a host key of type dsa is not made anew",
    ]


def test_no_sshd_config_is_a_warning(guest_of: GuestOf) -> None:
    """R-TASK-SSH-1."""
    guest = renew(guest_of, {"/etc/os-release": "ID=fedora\n", **keys_of("rsa")})
    assert in_ssh(guest) == []
    assert "sshd_config: missing" in warnings(guest)[0]


def test_a_key_of_several_names_does_not_pass_on_the_new_one(guest_of: GuestOf) -> None:
    """R-TASK-SSH-2: the old file is removed, so that another name of it holds the old key only."""
    guest = renew(guest_of, {**DEBIAN, **keys_of("rsa"), "/srv/k": HardLink("/etc/ssh/ssh_host_rsa_key")})
    assert text(guest, "/srv/k") == private("rsa")


def test_no_private_part_is_told_but_its_fingerprint_is(guest_of: GuestOf) -> None:
    """R-TASK-SSH-5."""
    guest = renew(guest_of, DEBIAN)
    guest.report.flush_changes()
    told = repr(vars(guest.report))
    assert "PRIVATE rsa" not in told
    assert fingerprint(MADE[0].public) in told


def test_with_cloud_init(guest_of: GuestOf) -> None:
    """R-TASK-SSH-4: it is told to, nothing else is done."""
    tree: Tree = {**DEBIAN, **keys_of("rsa"), "/etc/cloud/cloud.cfg.d": None}
    guest = guest_of(tree, cloud_init=True)
    delete_ssh_keys(guest)
    path = "/etc/cloud/cloud.cfg.d/98_snf-image-50DeleteSSHKeys.cfg"
    assert yaml.safe_load(content(guest, path)) == {"ssh_deletekeys": True}
    assert text(guest, "/etc/ssh/ssh_host_rsa_key") == private("rsa")


# -- made in the helper -------------------------------------------------------------------------------


@pytest.mark.requires("ssh-keygen")
def test_missing_types_are_made_by_the_helpers_own_program(guest_of: GuestOf) -> None:
    """T-77, T-139, R-TASK-SSH-2: whole keys, comment root@<short name>; the image's program is not run."""
    evil = "#!/bin/sh\ntouch /tmp/snf-image-evil\n"
    guest = renew(guest_of, {**DEBIAN, "/usr/bin/ssh-keygen": evil}, host_keys=MADE[:1])
    assert text(guest, "/etc/ssh/ssh_host_rsa_key") == "PRIVATE rsa\n"
    for kind in ("ecdsa", "ed25519"):
        path = f"/etc/ssh/ssh_host_{kind}_key"
        line = text(guest, f"{path}.pub")
        assert line.endswith(" root@web1\n")
        derived = run(["ssh-keygen", "-y", "-f", "/dev/stdin"], timeout=20, stdin=content(guest, path))
        assert derived.text.split()[:2] == line.split()[:2]
        listed = run(["ssh-keygen", "-l", "-f", "/dev/stdin"], timeout=20, stdin=line.encode()).text
        assert fingerprint(line) in listed
        assert key_type(content(guest, path)) == key_type(line.encode()) == kind
    assert not os.path.lexists("/tmp/snf-image-evil")


@pytest.mark.requires("ssh-keygen")
@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
@pytest.mark.parametrize(("kind", "bits"), [("rsa", "2048"), ("ecdsa", "384"), ("ed25519", "256")])
def test_the_type_of_real_keys(tmp_path: Path, form: str, kind: str, bits: str) -> None:
    """T-92, R-TASK-SSH-3: OpenSSH's form has one title for every type; PEM and PKCS#8 are decoded."""
    path = tmp_path / "key"
    run(
        ["ssh-keygen", "-q", "-t", kind, "-b", bits, "-m", form, "-N", "", "-f", str(path)],
        timeout=60,
    )
    assert key_type(path.read_bytes()) == kind
    assert key_type(path.with_suffix(".pub").read_bytes()) == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (private("rsa").encode(), "rsa"),
        (private("ed25519").encode(), "ed25519"),
        (private("ecdsa").encode(), "ecdsa"),
        (private("dsa").encode(), "dsa"),
        (b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0", "rsa1"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END", "unknown"),
        (b"-----BEGIN RSA PRIVATE KEY-----\n!\n-----END", "unknown"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END", "unknown"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END", None),
        (b"ssh-ed25519 not/base64!", None),
        (public("rsa").replace("ssh-rsa", "ssh-dss", 1).encode(), None),
        (b"root:*:1::::::\n", None),
        (b"", None),
    ],
)
def test_the_type_is_in_the_key_and_not_in_its_title(data: bytes, kind: str | None) -> None:
    """T-92, R-TASK-SSH-3."""
    assert key_type(data) == kind


@given(st.binary(), st.sampled_from([b"", b"openssh-key-v1\0", b"0\x82", b"0\x03\x02\x01"]))
def test_any_body_is_told_or_unknown(body: bytes, head: bytes) -> None:
    """A damaged key stops nothing."""
    pem = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(head + body) + b"-----END PRIVATE KEY-----\n"
    assert key_type(pem) in {"rsa", "ecdsa", "ed25519", "dsa", "unknown"}
