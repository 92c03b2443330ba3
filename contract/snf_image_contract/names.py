"""Words that host and helper share: families, formats, tasks."""

from __future__ import annotations

import enum
from typing import Final


class OsFamily(enum.StrEnum):
    """The families of operating systems, as property OSFAMILY spells them."""

    LINUX = "linux"
    WINDOWS = "windows"
    WINDOWS_LEGACY = "windows-legacy"
    FREEBSD = "freebsd"
    NETBSD = "netbsd"
    OPENBSD = "openbsd"

    @property
    def is_windows(self) -> bool:
        return self in (OsFamily.WINDOWS, OsFamily.WINDOWS_LEGACY)

    @property
    def is_bsd(self) -> bool:
        return self in (OsFamily.FREEBSD, OsFamily.NETBSD, OsFamily.OPENBSD)


class ImageFormat(enum.StrEnum):
    """What the image is a dump of (R-FMT-1)."""

    DISKDUMP = "diskdump"
    EXTDUMP = "extdump"
    NTFSDUMP = "ntfsdump"

    @property
    def needs_partition_header(self) -> bool:
        """Whether the dump is of a file system, so that a partition table must be made for it (R-FMT-2)."""
        return self is not ImageFormat.DISKDUMP

    @property
    def implied_family(self) -> OsFamily | None:
        """The family that the format alone tells (R-PROP-8)."""
        return {ImageFormat.EXTDUMP: OsFamily.LINUX, ImageFormat.NTFSDUMP: OsFamily.WINDOWS}.get(self)

    @property
    def implied_root_partition(self) -> int | None:
        return 1 if self.needs_partition_header else None


class TaskName(enum.StrEnum):
    """Every configuration task, in the order in which they run (R-TASK-1)."""

    FIX_PARTITION_TABLE = "FixPartitionTable"
    FILESYSTEM_RESIZE_UNMOUNTED = "FilesystemResizeUnmounted"
    MOUNT_IMAGE = "MountImage"
    INITIALIZE_DATASOURCE = "InitializeDatasource"
    INSTALL_UNATTEND = "InstallUnattend"
    FILESYSTEM_RESIZE_MOUNTED = "FilesystemResizeMounted"
    ADD_SWAP = "AddSwap"
    ASSIGN_HOSTNAME = "AssignHostname"
    CHANGE_MACHINE_ID = "ChangeMachineId"
    CHANGE_PASSWORD = "ChangePassword"  # noqa: S105 - a task's name
    CONFIGURE_NETWORK = "ConfigureNetwork"
    DELETE_SSH_KEYS = "DeleteSSHKeys"
    DISABLE_REMOTE_DESKTOP_CONNECTIONS = "DisableRemoteDesktopConnections"
    SELINUX_AUTORELABEL = "SELinuxAutorelabel"
    ENFORCE_PERSONALITY = "EnforcePersonality"
    RUN_CUSTOM_TASK = "RunCustomTask"
    UMOUNT_IMAGE = "UmountImage"
    FILESYSTEM_RESIZE_AFTER_UMOUNT = "FilesystemResizeAfterUmount"

    @property
    def number(self) -> int:
        return _NUMBERS[self]

    @property
    def excludable(self) -> bool:
        """Attribute E: property EXCLUDE_TASK_<name> skips the task."""
        return "E" in _ATTRIBUTES[self]

    @property
    def mounted(self) -> bool:
        """Attribute M: property EXCLUDE_MOUNTED_TASKS skips the task."""
        return "M" in _ATTRIBUTES[self]

    @property
    def resizes(self) -> bool:
        """Attribute F: property EXCLUDE_FilesystemResize_TASKS skips the task."""
        return "F" in _ATTRIBUTES[self]

    @property
    def left_to_cloud_init(self) -> bool:
        """Attribute C: skipped when CLOUD_INIT=yes."""
        return "C" in _ATTRIBUTES[self]

    @property
    def replaceable(self) -> bool:
        """Attribute O: the image may bring its own (R-TASK-8)."""
        return "O" in _ATTRIBUTES[self]

    @property
    def place(self) -> tuple[int, str]:
        """By what tasks are ordered: number, then name in byte order."""
        return self.number, self.value


MAX_OPERATOR_TASKS: Final = 100
MAX_OPERATOR_TASK_NAME: Final = 64


def is_operator_task(name: str) -> bool:
    """Whether a task that an operator adds may have this name: letters and digits, and no built-in task's."""
    return (
        0 < len(name) <= MAX_OPERATOR_TASK_NAME
        and name.isascii()
        and name.isalnum()
        and name[0].isalpha()
        and name.upper() not in _FOLDED
    )


def operator_task_place(file: str) -> tuple[int, str] | None:
    """Number and name of the file ``NNName`` of an operator's task; None if it cannot be one."""
    number, name = file[:2], file[2:]
    if len(number) == 2 and number.isascii() and number.isdecimal() and is_operator_task(name):
        return int(number), name
    return None


def runs_mounted(place: tuple[int, str]) -> bool:
    """Whether the image is mounted when the turn of ``place`` comes."""
    return TaskName.MOUNT_IMAGE.place < place < TaskName.UMOUNT_IMAGE.place


_FOLDED: Final = frozenset(name.upper() for name in TaskName)
_TABLE: Final = (
    (TaskName.FIX_PARTITION_TABLE, 10, "EC"),
    (TaskName.FILESYSTEM_RESIZE_UNMOUNTED, 20, "EFC"),
    (TaskName.MOUNT_IMAGE, 30, "M"),
    (TaskName.INITIALIZE_DATASOURCE, 35, "MO"),
    (TaskName.INSTALL_UNATTEND, 35, "MOC"),
    (TaskName.FILESYSTEM_RESIZE_MOUNTED, 40, "EMFOC"),
    (TaskName.ADD_SWAP, 50, "EMO"),
    (TaskName.ASSIGN_HOSTNAME, 50, "EMO"),
    (TaskName.CHANGE_MACHINE_ID, 50, "EMO"),
    (TaskName.CHANGE_PASSWORD, 50, "EMO"),
    (TaskName.CONFIGURE_NETWORK, 50, "EMO"),
    (TaskName.DELETE_SSH_KEYS, 50, "EMO"),
    (TaskName.DISABLE_REMOTE_DESKTOP_CONNECTIONS, 50, "EMOC"),
    (TaskName.SELINUX_AUTORELABEL, 50, "EMO"),
    (TaskName.ENFORCE_PERSONALITY, 60, "EMO"),
    (TaskName.RUN_CUSTOM_TASK, 70, "EMO"),
    (TaskName.UMOUNT_IMAGE, 80, "M"),
    (TaskName.FILESYSTEM_RESIZE_AFTER_UMOUNT, 81, "EFC"),
)
_NUMBERS: Final = {name: number for name, number, _ in _TABLE}
_ATTRIBUTES: Final = {name: attributes for name, _, attributes in _TABLE}
