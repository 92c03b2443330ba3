"""Task SELinuxAutorelabel (R-TASK-SEL-1)."""

from __future__ import annotations

from typing import Final

from snf_image_helper import edit
from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.distribution import identify
from snf_image_process import ProcessError

CONFIG: Final = "/etc/selinux/config"
AUTORELABEL: Final = "/.autorelabel"
LABEL: Final = "security.selinux"


def selinux_autorelabel(guest: Guest) -> None:
    """See to it that every file written here has its label when a guest that enforces labels needs it.

    Where all files that were touched are known, they get their labels when the tree is about to be unmounted,
    those that later tasks write included (R-TASK-1). Where they are not, the guest labels every file at its
    first boot; one of OSTree cannot, because its root is read-only.
    """
    policy = _policy(guest)
    if policy is None:
        return
    reason = _why_not_exact(guest)
    relabels = not identify(guest.root).ostree
    if reason is None:
        guest.before_unmount.append(lambda: _label_touched(guest, policy, relabels=relabels))
    elif relabels:
        guest.root.write(AUTORELABEL, b"", mode=0o644)
    else:
        guest.warn(f"{reason}; label them in the guest (restorecon), an OSTree does not relabel itself")
        guest.before_unmount.append(lambda: _label_touched(guest, policy, relabels=False))


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


def _why_not_exact(guest: Guest) -> str | None:
    """Why labelling what tasks touched would not be enough; None if it is."""
    job = guest.job
    if guest.root.extended_attribute(CONFIG, LABEL) is None:
        return "the image's files have no SELinux labels"
    if job.run_custom_task.program is not None or job.allow_task_overwriting or job.operator_tasks:
        return "programs that are not ours write to the image, and their files get no SELinux labels"
    return None


def _label_touched(guest: Guest, policy: str, *, relabels: bool) -> None:
    """Label what was touched as the policy says; what has a label keeps it. ``relabels``: the guest can."""
    try:
        missing = {
            path: status.st_mode
            for path in guest.root.touched
            if (status := guest.root.lstat(path)) is not None
            and guest.root.extended_attribute(path, LABEL) is None
        }
        for path, label in _labels(guest, policy, missing):
            # With its NUL, as setfilecon(3) writes it.
            value = label.encode("utf-8", "surrogateescape") + b"\0"
            guest.root.set_extended_attribute(path, LABEL, value, detail=f"SELinux label {label}")
    except (ImageError, ProcessError, OSError, ValueError) as error:
        if relabels:
            guest.root.write(AUTORELABEL, b"", mode=0o644)
            guest.warn(
                f"the guest relabels itself at its first boot, because {policy} cannot be used: {error}"
            )
        else:
            guest.warn(f"{policy} cannot be used; what was written here has no SELinux label: {error}")


def _labels(guest: Guest, policy: str, files: dict[str, int]) -> list[tuple[str, str]]:
    """(path, label) of each of ``files`` (path to mode) to which the policy gives one."""
    if not files:
        return []
    from snf_image_helper import file_contexts  # noqa: PLC0415 - only where there is something to label

    contents = {suffix: guest.root.read_optional(policy + suffix) for suffix in file_contexts.SUFFIXES}
    contexts = {suffix: data for suffix, data in contents.items() if data is not None}
    found = file_contexts.ask(contexts, list(files.items()))
    return [(path, label) for path, label in zip(files, found, strict=True) if label is not None]
