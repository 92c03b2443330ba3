"""Task SELinuxAutorelabel."""

from __future__ import annotations

from typing import Any

import pytest

from snf_image_contract.job import OperatorTask, RunCustomTask
from snf_image_contract.secret import Secret
from snf_image_helper import file_contexts
from snf_image_helper.guest import Guest
from snf_image_helper.linux.selinux import selinux_autorelabel
from trees import File, GuestOf, Node, Tree, changes, exists, warnings

CONTEXTS = "/etc/selinux/targeted/contexts/files/file_contexts"


def tree(config: str, **more: Node) -> dict[str, Node]:
    return {"/etc/selinux/config": config, CONTEXTS: "/.* system_u:object_r:default_t:s0\n", **more}


@pytest.mark.parametrize(
    "config",
    [
        "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
        "# SELINUX=disabled\nSELINUX=permissive\n",
        'SELINUX="enforcing"\n',
    ],
)
def test_an_image_that_labels_relabels_itself(guest_of: GuestOf, config: str) -> None:
    """R-TASK-SEL-1."""
    guest = guest_of(tree(config))
    selinux_autorelabel(guest)
    assert changes(guest) == [("created", "/.autorelabel")]


@pytest.mark.parametrize(
    "config",
    [
        "SELINUX=disabled\n",
        "#SELINUX=enforcing\n",
        "",
        "SELINUXTYPE=enforcing\n",
        "SELINUX=enforcing\nSELINUXTYPE=minimum\n",
        "SELINUX=enforcing\nSELINUXTYPE=../../root/x\n",
    ],
)
def test_others_are_left_alone(guest_of: GuestOf, config: str) -> None:
    """T-121, R-TASK-SEL-1: SELinux is off, or its policy is not there."""
    guest = guest_of(tree(config))
    selinux_autorelabel(guest)
    assert changes(guest) == []


def test_no_selinux_at_all(guest_of: GuestOf) -> None:
    """T-121."""
    guest = guest_of({"/etc": None})
    selinux_autorelabel(guest)
    assert changes(guest) == []


def test_an_ostree_image_is_never_relabelled_at_boot(guest_of: GuestOf) -> None:
    """T-121, R-TASK-SEL-1."""
    guest = guest_of(tree("SELINUX=enforcing\n") | {"/ostree": None})
    selinux_autorelabel(guest)
    assert not exists(guest, "/.autorelabel")
    assert "OSTree" in warnings(guest)[0]


ENFORCING = File(
    "SELINUX=enforcing\n", attributes={"security.selinux": b"system_u:object_r:selinux_config_t:s0\0"}
)
POLICY = """\
/.*\tsystem_u:object_r:default_t:s0
/etc(/.*)?\tsystem_u:object_r:etc_t:s0
/etc/hostname\t--\tsystem_u:object_r:hostname_etc_t:s0
/etc/unlabelled\t--\t<<none>>
"""


def labelled(more: Tree | None = None) -> dict[str, Node]:
    """An image with labels and its policy."""
    return {"/etc/selinux/config": ENFORCING, CONTEXTS: POLICY, **(more or {})}


def label(guest: Guest, path: str) -> str | None:
    value = guest.root.extended_attribute(path, "security.selinux")
    return None if value is None else value.decode()


def finish(guest: Guest) -> None:
    """What UmountImage does before it unmounts."""
    for action in guest.before_unmount:
        action()


@pytest.mark.requires("root")
@pytest.mark.parametrize("ostree", [False, True])
def test_what_was_written_gets_the_labels_of_the_images_policy(guest_of: GuestOf, ostree: bool) -> None:
    """R-TASK-SEL-1, R-TASK-1: earlier and later tasks' files, by kind and by the policy's other files."""
    guest = guest_of(
        labelled(
            {
                f"{CONTEXTS}.homedirs": "/home/[^/]+/\\.ssh(/.*)?\tunconfined_u:object_r:ssh_home_t:s0\n",
                f"{CONTEXTS}.local": "/etc/local\tsystem_u:object_r:local_t:s0\n",
                f"{CONTEXTS}.subs_dist": "/srv/etc /etc\n",
                "/home/alice": None,
                "/etc/kept": File(
                    "old\n", attributes={"security.selinux": b"custom_u:object_r:custom_t:s0\0"}
                ),
                "/etc/bare": "old\n",
                "/srv/etc": None,
            }
            | ({"/ostree": None} if ostree else {})
        )
    )
    guest.root.write("/etc/hostname", b"web1\n")
    selinux_autorelabel(guest)
    guest.root.mkdir("/home/alice/.ssh", mode=0o700)
    guest.root.write("/home/alice/.ssh/authorized_keys", b"key\n")
    for name in ("kept", "bare", "local", "unlabelled"):
        guest.root.write(f"/etc/{name}", b"new\n")
    guest.root.write("/srv/etc/hostname", b"web1\n")
    guest.root.symlink("/etc/shadow", "/etc/link")
    guest.root.write("/etc/gone", b"")
    guest.root.remove("/etc/gone")
    finish(guest)
    assert warnings(guest) == []
    assert not exists(guest, "/.autorelabel")
    assert {path: label(guest, path) for path in guest.root.touched if exists(guest, path)} == {
        "/etc/hostname": "system_u:object_r:hostname_etc_t:s0\0",
        "/home/alice/.ssh": "unconfined_u:object_r:ssh_home_t:s0\0",
        "/home/alice/.ssh/authorized_keys": "unconfined_u:object_r:ssh_home_t:s0\0",
        "/etc/kept": "custom_u:object_r:custom_t:s0\0",
        "/etc/bare": "system_u:object_r:etc_t:s0\0",
        "/etc/local": "system_u:object_r:local_t:s0\0",
        "/etc/unlabelled": None,
        "/srv/etc/hostname": "system_u:object_r:hostname_etc_t:s0\0",
        "/etc/link": "system_u:object_r:etc_t:s0\0",
    }
    assert ("attributes", "/etc/hostname") in changes(guest)
    assert ("attributes", "/etc/kept") not in changes(guest)


@pytest.mark.requires("root")
def test_where_nothing_was_written_nothing_is_asked_for(guest_of: GuestOf) -> None:
    guest = guest_of(labelled())
    selinux_autorelabel(guest)
    finish(guest)
    assert (changes(guest), warnings(guest)) == ([], [])


@pytest.mark.requires("root")
@pytest.mark.parametrize(
    "fields",
    [
        {"run_custom_task": RunCustomTask(program=Secret("IyEvYmluL3NoCg=="))},
        {"allow_task_overwriting": True},
        {"operator_tasks": (OperatorTask(file="65Audit"),)},
    ],
    ids=["custom", "overwriting", "operator"],
)
def test_files_of_other_programs_have_the_guest_relabel(guest_of: GuestOf, fields: dict[str, Any]) -> None:
    """R-TASK-SEL-1: what such a program touches is not known here."""
    guest = guest_of(labelled(), **fields)
    selinux_autorelabel(guest)
    finish(guest)
    assert changes(guest) == [("created", "/.autorelabel")]


BAD_POLICIES = [b"\x8a\xff\x7c\xf9\x05\0\0\0", f"/.*\t{'x' * 5000}\n".encode()]
"""One as libselinux compiles them, which must not be loaded from a stranger, and one with an absurd label."""


@pytest.mark.requires("root")
@pytest.mark.parametrize("policy", BAD_POLICIES, ids=["compiled", "label"])
def test_a_policy_that_cannot_be_used_has_the_guest_relabel(guest_of: GuestOf, policy: bytes) -> None:
    guest = guest_of(labelled({CONTEXTS: policy}))
    guest.root.write("/etc/hostname", b"web1\n")
    selinux_autorelabel(guest)
    finish(guest)
    assert exists(guest, "/.autorelabel")
    assert label(guest, "/etc/hostname") is None
    assert "relabels itself at its first boot" in warnings(guest)[0]


@pytest.mark.requires("root")
@pytest.mark.parametrize("policy", BAD_POLICIES, ids=["compiled", "label"])
def test_an_ostree_image_whose_policy_cannot_be_used_is_told_of(guest_of: GuestOf, policy: bytes) -> None:
    guest = guest_of(labelled({CONTEXTS: policy, "/ostree": None}))
    guest.root.write("/etc/hostname", b"web1\n")
    selinux_autorelabel(guest)
    finish(guest)
    assert not exists(guest, "/.autorelabel")
    assert "has no SELinux label" in warnings(guest)[0]


@pytest.mark.requires("root")
def test_a_policy_that_takes_for_ever_is_given_up(guest_of: GuestOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern can be made that takes years; libselinux is run apart, and killed."""
    monkeypatch.setattr(file_contexts, "_SECONDS", 0.001)
    guest = guest_of(labelled())
    guest.root.write("/etc/hostname", b"web1\n")
    selinux_autorelabel(guest)
    finish(guest)
    assert exists(guest, "/.autorelabel")
    assert "0.001" in warnings(guest)[0]
