"""Task SELinuxAutorelabel (R-TASK-SEL-1)."""

from __future__ import annotations

from typing import Final

from snf_image_helper import edit
from snf_image_helper.guest import Guest
from snf_image_helper.linux.distribution import identify

CONFIG: Final = "/etc/selinux/config"
AUTORELABEL: Final = "/.autorelabel"


def selinux_autorelabel(guest: Guest) -> None:
    """Have the guest label every file at its first boot, if it is one that enforces labels.

    Files that tasks write after this one are labelled then as well (R-TASK-1).
    """
    policy = _policy(guest)
    if policy is None:
        return
    if identify(guest.root).ostree:
        # Its root is read-only and labelled by the commit; a relabelling boot would fail on it.
        guest.warn(
            "SELinux is enabled on an image of OSTree or bootc: no relabelling boot is asked for; "
            "files written here get their labels from restorecon or a policy update in the guest"
        )
        return
    guest.root.write(AUTORELABEL, b"", mode=0o644)


def _policy(guest: Guest) -> str | None:
    """The path of the policy's file contexts; None if SELinux is off or has no policy here."""
    values = edit.assignments(guest.root.read_optional(CONFIG) or b"")
    if values.get(b"SELINUX", b"").strip().lower() not in (b"enforcing", b"permissive"):
        return None
    name = values.get(b"SELINUXTYPE", b"targeted").strip().decode("utf-8", "surrogateescape") or "targeted"
    if "/" in name or "\0" in name:
        return None
    path = f"/etc/selinux/{name}/contexts/files/file_contexts"
    return path if guest.root.is_file(path) else None
