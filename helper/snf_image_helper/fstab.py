"""fstab of a guest: read as data, never evaluated; which entries are mounted, and which are left out."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import posixpath
import re
from collections.abc import Iterable
from typing import Final, Literal

from snf_image_helper.errors import ImageError
from snf_image_helper.kernel_mount import unescape

LINUX_TYPES: Final = frozenset(
    ("auto", "ext2", "ext3", "ext4", "msdos", "vfat", "ntfs", "ntfs3", "btrfs", "xfs")
)
"""File system types that are mounted for family linux (R-TASK-MNT-7)."""
_NO_SOURCES: Final = frozenset(("none", "proc", "tmpfs", "sysfs", "devpts"))
_REMOVABLE: Final = ("/dev/fd*", "/dev/floppy*", "/dev/cdrom*", "/dev/sr*")
_REMOVABLE_TARGETS: Final = ("/mnt/floppy*", "/mnt/cdrom*", "/media/floppy*", "/media/cdrom*")
_KERNEL_TREES: Final = ("/dev", "/proc", "/sys", "/run")

Tag = Literal["UUID", "LABEL", "PARTUUID", "PARTLABEL", "DEVICE"]
_LINKS: Final[dict[str, Tag]] = {
    "/dev/disk/by-uuid/": "UUID",
    "/dev/disk/by-label/": "LABEL",
    "/dev/disk/by-partuuid/": "PARTUUID",
    "/dev/disk/by-partlabel/": "PARTLABEL",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of fstab, escapes decoded. ``line`` counts from 1."""

    line: int
    source: str
    target: str
    types: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def nofail(self) -> bool:
        return "nofail" in self.options

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"/etc/fstab line {self.line} ({self.source} on {self.target})"

    def option(self, name: str) -> str | None:
        """The value of option ``name=value``, None if it is not given."""
        values = [text.partition("=")[2] for text in self.options if text.startswith(f"{name}=")]
        return values[-1] if values else None


def parse(data: bytes) -> tuple[Entry, ...]:
    """The entries of a file; comments, blank lines, lines without a type or with a NUL are no entries."""
    found = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        fields = [os.fsdecode(unescape(field)) for field in line.split()]
        if len(fields) < 3 or fields[0].startswith("#") or b"\0" in line:
            continue
        options = fields[3] if len(fields) > 3 else "defaults"
        found.append(
            Entry(
                line=number,
                source=fields[0],
                target=fields[1],
                types=tuple(fields[2].split(",")),
                options=tuple(options.split(",")),
            )
        )
    return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A name of a file system or partition: a persistent one, or (DEVICE) one that only its system knows."""

    tag: Tag
    value: str


def source_of(text: str) -> Source | None:
    """What a source field names persistently (R-TASK-MNT-9); None for any other name."""
    match = re.fullmatch(r"(UUID|LABEL|PARTUUID|PARTLABEL)=(.*)", text, re.DOTALL)
    if match is not None:
        value = match[2]
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        tag: Tag = match[1]  # type: ignore[assignment]  # the expression allows nothing else
        return Source(tag=tag, value=value)
    for prefix, name in _LINKS.items():
        if text.startswith(prefix):
            return Source(tag=name, value=_unescape_link(text.removeprefix(prefix)))
    return None


def _unescape_link(name: str) -> str:
    r"""udev writes unusual bytes of a label as ``\x20``."""
    raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes((int(match[1], 16),)), os.fsencode(name))
    return os.fsdecode(raw)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An entry that is to be mounted, and the name of what."""

    entry: Entry
    source: Source


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Entries to mount, parents before children, and why others are left out."""

    wanted: tuple[Wanted, ...]
    warnings: tuple[str, ...]


def select(entries: tuple[Entry, ...]) -> Selection:
    """Which entries of a Linux guest are mounted (R-TASK-MNT-7 to R-TASK-MNT-9).

    :class:`ImageError` for a device name that is not persistent, unless the entry says nofail.
    """
    wanted: list[Wanted] = []
    warnings: list[str] = []
    for entry in entries:
        if is_root(entry):
            continue
        reason = left_out(entry, LINUX_TYPES)
        source = source_of(entry.source)
        if reason is None and source is None:
            reason = f"{entry.source} is no persistent name of a device"
            if entry.source.startswith("/dev/") and not entry.nofail:
                raise ImageError(f"{entry.where}: {reason}; use UUID= or LABEL=")
        if reason is not None or source is None:
            warnings.append(f"{entry.where}: not mounted: {reason}")
        else:
            wanted.append(Wanted(entry=entry, source=source))
    return Selection(wanted=by_depth(wanted), warnings=tuple(warnings))


def by_depth(wanted: Iterable[Wanted]) -> tuple[Wanted, ...]:
    """Parents before children, then in byte order."""
    return tuple(sorted(wanted, key=lambda item: (_depth(item.entry.target), os.fsencode(item.entry.target))))


def is_root(entry: Entry) -> bool:
    return entry.target.startswith("/") and _plain(entry.target) == "/"


def _plain(target: str) -> str:
    """The path as text, without doubled slashes; what links and ``..`` mean is the kernel's business."""
    return "/" + posixpath.normpath(target).strip("/") if ".." not in target.split("/") else target


def _depth(target: str) -> int:
    return len([part for part in target.split("/") if part])


def left_out(entry: Entry, types: frozenset[str]) -> str | None:
    """Why an entry is not mounted (R-TASK-MNT-8), None if it is to be. ``types``: those that are mounted."""
    if entry.target in ("none", "swap") or "swap" in entry.types:
        return "swap, or no mount point"
    if not entry.target.startswith("/"):
        return "the mount point is no absolute path"
    if below_kernel_tree(_plain(entry.target)):
        return "a mount point of the running system"
    if entry.source in _NO_SOURCES:
        return "no device"
    if not {"bind", "rbind"}.isdisjoint(entry.options) or "overlay" in entry.types:
        return "a view of other directories"
    if any(fnmatch.fnmatchcase(entry.source, pattern) for pattern in _REMOVABLE) or any(
        fnmatch.fnmatchcase(_plain(entry.target), pattern) for pattern in _REMOVABLE_TARGETS
    ):
        return "a removable medium"
    if "noauto" in entry.options:
        return "option noauto"
    if types.isdisjoint(entry.types):
        return f"type {','.join(entry.types)}"
    return None


def below_kernel_tree(path: str) -> bool:
    """Whether a path is, or lies below, a directory that a running system fills itself."""
    return any(path == tree or path.startswith(f"{tree}/") for tree in _KERNEL_TREES)
