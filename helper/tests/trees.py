"""Guests on temporary trees, for tests of tasks: no disk, no mount, no root needed.

Run as an ordinary user, files belong to that user and ownership that a task gives is noted instead
(:func:`owner`), so that most tests of tasks need no root.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import warnings as python_warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

from snf_image_contract.events import Change, Event, Warned, decode_event
from snf_image_contract.job import AssignHostname, Job, JobDisk
from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.families import Family
from snf_image_helper.guest import Guest
from snf_image_helper.report import Reporter
from snf_image_helper.root import Root

with python_warnings.catch_warnings():
    python_warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

CLOCK = 1_767_225_600.0  # 2026-01-01, day 20454 since the epoch
INSTANCE = "web1.example.org"


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A regular file. ``uid`` and ``gid`` need root unless they are the caller's."""

    data: bytes | str = b""
    mode: int = 0o644
    uid: int | None = None
    gid: int | None = None
    attributes: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    mode: int = 0o755
    uid: int | None = None
    gid: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link that says ``target``."""

    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class HardLink:
    """Another name of the file ``path`` of the tree, which must stand before it."""

    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fifo:
    mode: int = 0o644


@dataclasses.dataclass(frozen=True, slots=True)
class Socket:
    """A socket that nobody listens on."""

    mode: int = 0o644


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """A device, which needs root. Without other numbers it has no driver: opening it fails."""

    kind: Literal["character", "block"]
    major: int = 240
    minor: int = 0
    mode: int = 0o666


Node = str | bytes | File | Directory | Link | HardLink | Fifo | Socket | Device | None
"""What stands at a path: contents of a file of mode 0644, or one of the classes; None: a directory."""
Tree = Mapping[str, Node]
GuestOf = Callable[..., Guest]
"""``guest_of(tree, *, task=…, family=…, rewrite_in_place=…, **fields of Job) -> Guest``."""


class RecordingReporter(Reporter):
    """Keeps every event and every change, for :func:`warnings` and :func:`changes`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.changes: list[Change] = []
        super().__init__(self._decode)

    def _decode(self, line: bytes) -> None:
        self.events.append(decode_event(line, len(self.events)))

    def change(self, change: Change) -> None:
        super().change(change)
        self.changes.append(change)


def make_tree(top: str, tree: Tree) -> None:
    """Make ``tree`` below the directory ``top``; missing directories between are made with mode 0755."""
    for path, node in tree.items():
        where = f"{top}/{path.strip('/')}"
        os.makedirs(os.path.dirname(where), exist_ok=True)
        _make_node(top, where, node)


def _make_node(top: str, where: str, node: Node) -> None:
    if node is None or isinstance(node, Directory):
        directory = node or Directory()
        os.makedirs(where, exist_ok=True)
        os.chmod(where, directory.mode)
        os.chown(where, _or_keep(directory.uid), _or_keep(directory.gid))
    elif isinstance(node, Link):
        os.symlink(node.target, where)
    elif isinstance(node, HardLink):
        os.link(f"{top}/{node.path.strip('/')}", where)
    elif isinstance(node, Fifo):
        os.mkfifo(where, node.mode)
    elif isinstance(node, Socket):
        os.mknod(where, stat.S_IFSOCK | node.mode)
    elif isinstance(node, Device):
        kind = stat.S_IFCHR if node.kind == "character" else stat.S_IFBLK
        os.mknod(where, kind | node.mode, os.makedev(node.major, node.minor))
    else:
        file = node if isinstance(node, File) else File(node)
        with open(where, "wb") as stream:
            stream.write(file.data.encode() if isinstance(file.data, str) else file.data)
        os.chown(where, _or_keep(file.uid), _or_keep(file.gid))
        os.chmod(where, file.mode)
        for name, value in file.attributes.items():
            os.setxattr(where, name, value)


def _or_keep(number: int | None) -> int:
    return -1 if number is None else number


def make_job(**fields: Any) -> Job:
    """A job for one instance with one disk; ``fields`` replace or add to its fields."""
    plain: dict[str, Any] = {
        "instance": INSTANCE,
        "clock": CLOCK,
        "disks": (JobDisk(index=0),),
        "assign_hostname": AssignHostname(name=INSTANCE),
    }
    return Job(**(plain | fields))


def make_guest(
    top: str,
    tree: Tree,
    *,
    task: TaskName | None = None,
    family: Family | None = None,
    rewrite_in_place: bool = False,
    **fields: Any,
) -> Guest:
    """A guest whose tree is made below ``top``; who calls closes its root descriptor."""
    make_tree(top, tree)
    report = RecordingReporter()
    if task is not None:
        report.begin(task)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    root = Root(fd, record=report.change, warn=report.warn, rewrite_in_place=rewrite_in_place)
    demand_containment(root, top)
    job = make_job(**fields)
    return Guest(
        root=root,
        family=family or Family(name=OsFamily.LINUX, default_users=("root",)),
        job=job,
        report=report,
        disks=Disks(
            all=tuple(
                Disk(index=disk.index, device=f"/dev/vd{'abcdefgh'[disk.index]}", size=4 << 30)
                for disk in job.disks
            )
        ),
        target=top,
    )


def demand_containment(root: Root, top: str) -> None:
    """Fail unless the door keeps paths beneath ``top``; it only looks.

    Tests name /etc/shadow and the like. Run by root through a door that is broken they would change the
    machine they run on.
    """
    inside = os.stat(top).st_ino, os.stat(top).st_dev
    probe = f"probe-{os.urandom(8).hex()}"
    os.symlink("/", f"{top}/{probe}")
    try:
        for path in ("/", "/..", f"/{probe}", f"/{probe}/..", f"/../{probe}"):
            status = root.stat(path)
            assert status is not None
            assert (status.st_ino, status.st_dev) == inside, f"the door is broken: {path} leads out"
    finally:
        os.unlink(f"{top}/{probe}")


def warnings(guest: Guest) -> list[str]:
    """Texts of the warnings so far."""
    assert isinstance(guest.report, RecordingReporter)
    return [event.message for event in guest.report.events if isinstance(event, Warned)]


def changes(guest: Guest) -> list[tuple[str, str]]:
    """(kind of change, path) of every change so far, in order."""
    assert isinstance(guest.report, RecordingReporter)
    return [(change.change, change.path) for change in guest.report.changes]


def content(guest: Guest, path: str) -> bytes:
    """The bytes of a file of the tree, read without the door."""
    with open(f"{guest.target}/{path.strip('/')}", "rb") as stream:
        return stream.read()


def text(guest: Guest, path: str) -> str:
    return content(guest, path).decode()


def mode(guest: Guest, path: str) -> int:
    """Permission bits of what stands at ``path``, a link not followed."""
    return os.lstat(f"{guest.target}/{path.strip('/')}").st_mode & 0o7777


def exists(guest: Guest, path: str) -> bool:
    """Whether anything, a dangling link included, stands at ``path``."""
    return os.path.lexists(f"{guest.target}/{path.strip('/')}")


NOTED: dict[tuple[int, int], tuple[int, int]] = {}
"""(device, inode) to the owner that a task gave, when the tests do not run as root."""


def note_owner(fd: int, uid: int, gid: int) -> None:
    """Stands in for giving a file away where the caller may not."""
    status = os.fstat(fd)
    NOTED[status.st_dev, status.st_ino] = (uid, gid)


def owner(guest: Guest, path: str) -> tuple[int, int]:
    """(uid, gid) that ``path`` has, or was to get."""
    status = os.lstat(f"{guest.target}/{path.strip('/')}")
    return NOTED.get((status.st_dev, status.st_ino), (status.st_uid, status.st_gid))


def libcrypt_accepts(password: str, stored: str) -> bool:
    """Whether a login with ``password`` would succeed against the stored hash."""
    return bool(stored) and crypt.crypt(password, stored) == stored
