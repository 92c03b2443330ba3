"""Task SELinuxAutorelabel."""

from __future__ import annotations

import pytest

from snf_image_helper.linux.selinux import selinux_autorelabel
from trees import GuestOf, Node, changes, exists, warnings

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
