"""Whole families of tasks on trees that are made to lead them astray."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from snf_image_contract.job import (
    ChangePassword,
    ConfigureNetwork,
    EnforcePersonality,
    HostKey,
    InitializeDatasource,
    Nic,
    PersonalityFile,
)
from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_helper.errors import TaskError
from snf_image_helper.families import Action, family_of
from trees import Device, Fifo, GuestOf, Link, Node, Socket

pytestmark = pytest.mark.slow

FAMILY = family_of(OsFamily.LINUX)
NEEDS_DISKS = {"filesystem_resize_mounted", "add_swap"}
ACTIONS: dict[str, Action] = {
    field.name: action
    for field in dataclasses.fields(FAMILY)
    if callable(action := getattr(FAMILY, field.name)) and field.name not in NEEDS_DISKS
}
OURS = b"of the helper"
PATHS = [
    "/.autorelabel",
    "/etc",
    "/etc/HOSTNAME",
    "/etc/cloud",
    "/etc/cloud/cloud.cfg.d",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/login.defs",
    "/etc/machine-id",
    "/etc/motd",
    "/etc/netplan",
    "/etc/network",
    "/etc/network/interfaces",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/selinux/config",
    "/etc/shadow",
    "/etc/ssh",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/sshd_config",
    "/etc/systemd/network",
    "/root",
    "/root/.ssh",
    "/root/.ssh/authorized_keys",
    "/usr",
    "/usr/sbin/sshd",
    "/var",
    "/var/lib",
    "/var/lib/cloud",
    "/var/lib/cloud/seed/nocloud-net/meta-data",
    "/var/lib/dbus/machine-id",
    "/var/lib/dpkg/status",
]
DIRECTORIES = {
    "/etc",
    "/etc/cloud",
    "/etc/cloud/cloud.cfg.d",
    "/etc/netplan",
    "/etc/network",
    "/etc/ssh",
    "/etc/systemd/network",
    "/root",
    "/root/.ssh",
    "/usr",
    "/var",
    "/var/lib",
    "/var/lib/cloud",
}
CASES = [
    *((path, False) for path in PATHS),
    *((path, True) for path in PATHS if path in {"/etc", "/usr"} or path.startswith(("/etc/cloud", "/var"))),
]
DEBIAN: dict[str, Node] = {
    "/etc/os-release": "ID=debian\nVERSION_ID=12\n",
    "/etc/hostname": "old\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/etc/passwd": f"root:x:{os.getuid()}:{os.getgid()}:root:/root:/bin/sh\n",
    "/etc/shadow": "root:!:1:0:99999:7:::\n",
    "/etc/ssh/sshd_config": "HostKey /etc/ssh/ssh_host_rsa_key\n",
    "/etc/ssh/ssh_host_rsa_key": "-----BEGIN RSA PRIVATE KEY-----\n",
    "/etc/selinux/config": "SELINUX=enforcing\n",
    "/etc/selinux/targeted/contexts/files/file_contexts": "",
    "/etc/network/interfaces": "auto lo\niface lo inet loopback\n",
    "/etc/cloud/cloud.cfg.d": None,
    "/usr/sbin/ifup": "",
    "/usr/sbin/sshd": "",
    "/usr/lib/systemd/systemd": "",
    "/root": None,
}
ASKED = {
    "change_password": ChangePassword(
        users=("root",), password=Secret("x"), keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me",)
    ),
    "configure_network": ConfigureNetwork(nics=(Nic(mac="aa:00:00:00:00:01", ipv4="dhcp"),)),
    "initialize_datasource": InitializeDatasource(user_data=Secret("eA==")),
    "enforce_personality": EnforcePersonality(
        files=(PersonalityFile(path="/etc/motd", contents=Secret("eA==")),)
    ),
}
HOST_KEYS = (
    HostKey(type="rsa", private=Secret("p"), public="ssh-rsa AAAA x"),
    HostKey(type="ecdsa", private=Secret("p"), public="ecdsa-sha2-nistp256 AAAA x"),
    HostKey(type="ed25519", private=Secret("p"), public="ssh-ed25519 AAAA x"),
)


def without(tree: dict[str, Node], path: str) -> dict[str, Node]:
    """The tree with nothing at ``path`` nor below it."""
    return {name: node for name, node in tree.items() if name != path and not name.startswith(f"{path}/")}


def every_task(guest_of: GuestOf, tree: dict[str, Node], *, cloud_init: bool) -> list[str]:
    """Run every task; the texts of the errors. Anything but a :class:`TaskError` is a bug."""
    guest = guest_of(tree, family=FAMILY, cloud_init=cloud_init, **ASKED)
    guest = dataclasses.replace(guest, host_keys=lambda: HOST_KEYS)
    errors: list[str] = []
    for action in ACTIONS.values():
        try:
            action(guest)
        except TaskError as error:
            errors += error.messages
    return errors


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A tree beside the guest's in which every path of ours can be found."""
    top = tmp_path / "outside"
    for path in DIRECTORIES:
        os.makedirs(f"{top}{path}", exist_ok=True)
        (top / path.strip("/") / "marker").write_bytes(OURS)
    for path in set(PATHS) - DIRECTORIES:
        where = top / path.strip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(OURS)
    return top


def state(top: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_uid, path.read_bytes() if path.is_file() else b"")
        for path in top.rglob("*")
    }


@pytest.mark.parametrize("kind", ["absolute", "relative"])
@pytest.mark.parametrize(("path", "cloud_init"), CASES)
def test_a_link_at_any_path_leads_nobody_out(
    guest_of: GuestOf, outside: Path, path: str, kind: str, *, cloud_init: bool
) -> None:
    """T-78, T-123, R-TASK-5: every task, with a link of the image where it writes or looks."""
    target = f"{outside}{path}"
    link = Link(target if kind == "absolute" else "../" * 30 + target.lstrip("/"))
    before = state(outside)
    every_task(guest_of, {**without(DEBIAN, path), path: link}, cloud_init=cloud_init)
    assert state(outside) == before


@pytest.mark.parametrize(("path", "cloud_init"), CASES)
def test_a_loop_at_any_path_ends(guest_of: GuestOf, path: str, *, cloud_init: bool) -> None:
    """R-TASK-5: an error about the image, or success where the path does not matter."""
    tree = {**without(DEBIAN, path), path: Link(path)}
    for text in every_task(guest_of, tree, cloud_init=cloud_init):
        assert "too many links" in text or "missing" in text or "cloud-init not found" in text, text


NODES = [
    Fifo(),
    Socket(),
    pytest.param(Device("character"), marks=pytest.mark.requires("root")),
    pytest.param(Device("block"), marks=pytest.mark.requires("root")),
    None,
    "x" * 100_000 + "\n\0\xff" * 500,
]


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(("path", "cloud_init"), CASES)
def test_anything_at_any_path_is_an_error_or_no_matter(
    guest_of: GuestOf, path: str, node: Node, *, cloud_init: bool
) -> None:
    """R-TASK-6: a FIFO, a socket, a device, a directory, bytes without sense; every error says where."""
    tree = {**without(DEBIAN, path), path: node}
    for text in every_task(guest_of, tree, cloud_init=cloud_init):
        assert "No such device" not in text, "a device was opened"
        assert "/" in text or "distribution is unknown" in text or "cloud-init" in text, text
