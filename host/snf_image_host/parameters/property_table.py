"""The table of image properties."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, Final

from snf_image_contract.job import HashMethod, MachineIdMode, NetworkBackend
from snf_image_contract.names import OsFamily
from snf_image_host.image_container import Container
from snf_image_host.parameters.problems import ParseError
from snf_image_host.parameters.table import Row
from snf_image_host.parameters.values import (
    choice,
    encode_base64,
    integer,
    parse_base64,
    parse_boolean,
    parse_swap,
    parse_words,
)

_LINUX: Final = frozenset({OsFamily.LINUX})
_WINDOWS: Final = frozenset({OsFamily.WINDOWS, OsFamily.WINDOWS_LEGACY})
_UNIX: Final = frozenset(OsFamily) - _WINDOWS

HASH_METHODS: Final[tuple[str, ...]] = typing.get_args(HashMethod)
MACHINE_ID_MODES: Final[tuple[str, ...]] = typing.get_args(MachineIdMode)
NETWORK_BACKENDS: Final[tuple[str, ...]] = typing.get_args(NetworkBackend)
EXCLUDE_TASK: Final = "EXCLUDE_TASK_"
"""What the names of the properties that exclude one task begin with."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PropertyRow(Row):
    """``families``: those it applies to (R-PROP-7); empty: every one."""

    families: frozenset[OsFamily] = frozenset()

    @property
    def is_boolean(self) -> bool:
        return self.parse is parse_boolean


def parse_family(text: str) -> OsFamily:
    """A family as property OSFAMILY spells it."""
    return OsFamily(choice(*OsFamily)(text))


def parse_program(text: str) -> str:
    """Canonical base64 of a program with a ``#!`` line (R-TASK-CUS-1)."""
    program = parse_base64(text)
    if not program.startswith(b"#!"):
        raise ParseError("the program does not begin with #!", echo=False)
    return encode_base64(program)


def _boolean(
    name: str, text: str, *, since: str = "0.x", families: frozenset[OsFamily] = frozenset()
) -> PropertyRow:
    return PropertyRow(
        name=name,
        values="yes or no",
        parse=parse_boolean,
        default="no",
        help=text,
        since=since,
        families=families,
        example="yes",
    )


def _row(name: str, values: str, parse: Callable[[str], Any], **more: Any) -> PropertyRow:
    return PropertyRow(name=name, values=values, parse=parse, **more)


PROPERTIES: Final[tuple[PropertyRow, ...]] = (
    _row(
        "OSFAMILY",
        "one of " + ", ".join(OsFamily),
        parse_family,
        default_shown="detected; linux for extdump, windows for ntfsdump",
        help="Family of the operating system in the image.",
        example="linux",
    ),
    _row(
        "ROOT_PARTITION",
        "number of a partition, as the Linux kernel counts",
        integer(1, 1024),
        default_shown="detected; 1 for extdump and ntfsdump",
        help="Partition that holds the root file system.",
        example="1",
    ),
    _row(
        "USERS",
        "names separated by white space, or a JSON array of names",
        parse_words,
        default="",
        default_shown="root, or Administrator on Windows, with a warning",
        help="Accounts that get the password and the authorized keys.",
        example="root debian",
    ),
    _boolean("DO_SYNC", "Accepted and without effect: what grows is always written to the disk with fsync."),
    _boolean(
        "IGNORE_UNATTEND",
        "Replace an answer file that the image brings. Always so with os_answer_file.",
        families=_WINDOWS,
    ),
    _boolean(
        "ALLOW_MOUNTED_TASK_OVERWRITING",
        "Let programs in the image replace tasks. Needs the operator's ALLOW_TASK_OVERWRITING=yes.",
    ),
    _boolean(
        "OFFLINE_NTFSRESIZE",
        "Grow NTFS in the helper instead of at the first boot.",
        families=_WINDOWS,
    ),
    _boolean(
        "OFFLINE_NTFSRESIZE_NOCHECK",
        "After growing NTFS in the helper, do not make Windows check it at the first boot.",
        families=_WINDOWS,
    ),
    _row(
        "PASSWD_HASHING_METHOD",
        "one of " + ", ".join(HASH_METHODS),
        choice(*HASH_METHODS),
        default_shown="what suits the image",
        help="How the password is hashed.",
        example="sha512",
        families=_UNIX,
    ),
    _row(
        "SWAP",
        "<partition number>:<MB>, or the letter of a disk of its own",
        parse_swap,
        help="A swap partition of that number and size behind the last partition, or a whole disk as swap.",
        example="2:512",
        families=_LINUX,
    ),
    _boolean("CLOUD_INIT", "Let cloud-init in the image do the configuration.", families=_UNIX),
    _row(
        "CUSTOM_TASK",
        "base64 of a program that begins with #!",
        parse_program,
        help="A program that runs in the helper after all other tasks, with the image mounted.",
        secret=True,
        example="IyEvYmluL3NoCnRydWUK",
    ),
    _boolean("NM_NETWORKING", "Configure the network by NetworkManager keyfiles.", families=_LINUX),
    _boolean("EXCLUDE_ALL_TASKS", "Copy only: no task, no detection."),
    _boolean("EXCLUDE_MOUNTED_TASKS", "Skip every task that needs the image mounted."),
    _boolean("EXCLUDE_FILESYSTEMRESIZE_TASKS", "Skip the three tasks that grow file systems."),
    _boolean(
        "ALLOW_UNCLEAN_NTFS",
        "Mount NTFS although its log needs recovery or Windows hibernates on it.",
        since="1.0",
        families=_WINDOWS,
    ),
    _row(
        "MACHINE_ID",
        "one of " + ", ".join(MACHINE_ID_MODES),
        choice(*MACHINE_ID_MODES),
        default="auto",
        help="What becomes of /etc/machine-id; auto renews an id, and leaves what awaits its first boot.",
        since="1.0",
        example="random",
        families=_LINUX,
    ),
    _row(
        "NET_BACKEND",
        "one of auto, " + ", ".join(NETWORK_BACKENDS),
        choice("auto", *NETWORK_BACKENDS),
        default="auto",
        help="Which network configuration is written; auto looks at what the image has.",
        since="1.0",
        example="networkd",
        families=_UNIX,
    ),
    _row(
        "CONTAINER",
        "one of auto, " + ", ".join(Container),
        choice("auto", *Container),
        default="raw",
        help="What the image is wrapped in: raw takes every byte as it is, auto looks at the first ones, "
        "another word is what they must say. IMAGE_CONTAINERS of the node must allow it.",
        since="1.0",
        example="auto",
    ),
)
"""Every property but EXCLUDE_TASK_<TaskName>, of which there is one for each excludable task."""

BY_NAME: Final = {row.name: row for row in PROPERTIES}
