"""The tasks, in the one order in which they run (R-TASK-1), and which of them a job skips.

A step's type says what it may touch: the unmounted disks, or the mounted tree behind its door.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from snf_image_contract.job import Job
from snf_image_contract.names import TaskName
from snf_image_helper import fix_partition_table
from snf_image_helper.families import Action, Family, Later
from snf_image_helper.machine import Machine


@dataclasses.dataclass(frozen=True, slots=True)
class DiskStep:
    """A task on disks of which nothing is mounted."""

    name: TaskName
    run: Callable[[Machine], None]


@dataclasses.dataclass(frozen=True, slots=True)
class MountStep:
    """The task that opens the door to the tree."""

    name: TaskName


@dataclasses.dataclass(frozen=True, slots=True)
class GuestStep:
    """A task on the mounted tree: what it does is the family's business; None: it does not apply."""

    name: TaskName
    action: Callable[[Family], Action | None]


@dataclasses.dataclass(frozen=True, slots=True)
class UmountStep:
    """The task that closes the door."""

    name: TaskName


Step = DiskStep | MountStep | GuestStep | UmountStep

ORDER: Final[tuple[Step, ...]] = (
    DiskStep(TaskName.FIX_PARTITION_TABLE, fix_partition_table.run),
    DiskStep(TaskName.FILESYSTEM_RESIZE_UNMOUNTED, Later("filesystem_resize", "unmounted")),
    MountStep(TaskName.MOUNT_IMAGE),
    GuestStep(TaskName.INITIALIZE_DATASOURCE, attrgetter("initialize_datasource")),
    GuestStep(TaskName.INSTALL_UNATTEND, attrgetter("install_unattend")),
    GuestStep(TaskName.FILESYSTEM_RESIZE_MOUNTED, attrgetter("filesystem_resize_mounted")),
    GuestStep(TaskName.ADD_SWAP, attrgetter("add_swap")),
    GuestStep(TaskName.ASSIGN_HOSTNAME, attrgetter("assign_hostname")),
    GuestStep(TaskName.CHANGE_MACHINE_ID, attrgetter("change_machine_id")),
    GuestStep(TaskName.CHANGE_PASSWORD, attrgetter("change_password")),
    GuestStep(TaskName.CONFIGURE_NETWORK, attrgetter("configure_network")),
    GuestStep(TaskName.DELETE_SSH_KEYS, attrgetter("delete_ssh_keys")),
    GuestStep(TaskName.DISABLE_REMOTE_DESKTOP_CONNECTIONS, attrgetter("disable_remote_desktop_connections")),
    GuestStep(TaskName.SELINUX_AUTORELABEL, attrgetter("selinux_autorelabel")),
    GuestStep(TaskName.ENFORCE_PERSONALITY, attrgetter("enforce_personality")),
    GuestStep(TaskName.RUN_CUSTOM_TASK, lambda _: Later("custom_task", "run")),
    UmountStep(TaskName.UMOUNT_IMAGE),
    DiskStep(TaskName.FILESYSTEM_RESIZE_AFTER_UMOUNT, Later("filesystem_resize", "after_umount")),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Why a task does nothing. ``quiet``: it does not apply to the family, which is no news (R-TASK-4)."""

    reason: str
    quiet: bool = False


def why_skipped(step: Step, job: Job, family: Family) -> Skip | None:
    """Whether a job leaves a task out, and why (R-TASK-3); the same answer for inspection and deployment."""
    for excluded in job.skipped:
        if excluded.task is step.name:
            return Skip(reason=excluded.reason)
    if isinstance(step, GuestStep) and step.action(family) is None:
        return Skip(reason=f"does not apply to {family.name}", quiet=True)
    return None
