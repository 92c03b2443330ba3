"""Manifests of whole trees, and what differs between two: nothing may but what the receipt says."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any, Final

_KINDS: Final = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
    tarfile.GNUTYPE_SPARSE: "file",
}
_XATTR: Final = "SCHILY.xattr."
FORMAT: Final = 2
"""Of saved manifests: another one for each change of what :class:`Item` has, or of what is read into it."""
LINKS: Final = "links"
NTFS_ATTRIBUTES: Final = ("system.ntfs_acl", "system.ntfs_attrib")
"""Security descriptor, and flags such as read-only and hidden: read by name, because no list has them."""
_LISTED_NAME: Final = re.compile(rb"# file: (.*)")
_LISTED_VALUE: Final = re.compile(rb"([\w.]+)=0x([0-9a-f]*)")
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
_CHUNK: Final = 1024 * 1024
TREE_CHANGES: Final = ("created", "modified", "removed", "renamed", "directory", "link", "attributes")
"""Kinds of change of a receipt that are about files."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file: everything that a deployment must not change unasked. Times are not part of it.

    ``content``: sha256 of a file, target of a link, numbers of a device.
    ``xattrs``: names and values in hexadecimal digits; of :data:`NTFS_ATTRIBUTES` sha256 sums of the values.
    ``links``: how many names the file system counts, of what is no directory.
    ``names``: all of them that are in the tree, if there are several.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    content: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()
    links: int = 1
    names: tuple[str, ...] = ()


_LINKED: Final = "linked"
"""Not a kind of change of a receipt: another name of the same file is in it."""
_MAY_DIFFER: Final = {
    "modified": ("content",),
    "attributes": ("mode", "uid", "gid", "xattrs"),
    _LINKED: ("links", "names"),
}
"""What of a file each kind of change speaks of; after another kind nothing is left to compare with."""
_SPEAKS_OF: Final = {"modified": "contents", "attributes": "attributes", _LINKED: "other names"}

Manifest = dict[str, Item]


def read_archive(path: str) -> Manifest:
    """The manifest of a tar archive that GNU tar made with ``--xattrs``; paths are absolute.

    Names of the tree's files begin with ``./``. Other members tell more: ``links`` has ``COUNT NAME`` of
    each file of several names, each ended by a zero byte, and the :data:`NTFS_ATTRIBUTES` have what getfattr
    prints, values in hexadecimal digits.
    """
    manifest: Manifest = {}
    same: dict[str, list[str]] = collections.defaultdict(list)
    beside: dict[str, bytes] = {}
    with tarfile.open(path, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            name = _absolute(member.name)
            if _is_beside(member):
                file = archive.extractfile(member)
                beside[member.name] = file.read() if file is not None else b""
            elif member.islnk():
                same[_absolute(member.linkname)].append(name)
            else:
                manifest[name] = _item(archive, member)
    for first, others in same.items():
        names = tuple(sorted([first, *others]))
        item = dataclasses.replace(manifest[first], names=names)
        manifest.update(dict.fromkeys(names, item))
    for name, more in _told_beside(beside).items():
        xattrs = tuple(sorted([*manifest[name].xattrs, *more.xattrs]))
        manifest[name] = dataclasses.replace(manifest[name], xattrs=xattrs, links=more.links)
    return manifest


@dataclasses.dataclass(slots=True, kw_only=True)
class _More:
    """What stands beside the tree about one of its files."""

    links: int = 1
    xattrs: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def _told_beside(beside: Mapping[str, bytes]) -> dict[str, _More]:
    told: dict[str, _More] = collections.defaultdict(_More)
    for entry in beside.get(LINKS, b"").split(b"\0")[:-1]:
        count, _, name = entry.partition(b" ")
        told[_absolute(os.fsdecode(name))].links = int(count)
    for attribute in NTFS_ATTRIBUTES:
        name = b""
        for line in beside.get(attribute, b"").splitlines():
            if found := _LISTED_NAME.fullmatch(line):
                name = _ESCAPED.sub(lambda escaped: bytes([int(escaped[1], 8)]), found[1])
            elif found := _LISTED_VALUE.fullmatch(line):
                digest = hashlib.sha256(bytes.fromhex(found[2].decode("ascii"))).hexdigest()
                told[_absolute(os.fsdecode(name))].xattrs.append((found[1].decode("ascii"), digest))
    return told


def read_files(path: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """The contents of those of the ``wanted`` paths that are regular files, by whichever of their names."""
    names = set(wanted)
    found: dict[str, bytes] = {}
    with tarfile.open(path, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            first = archive.getmember(member.linkname) if member.islnk() else member
            if _absolute(member.name) in names and first.isreg() and not _is_beside(member):
                file = archive.extractfile(first)
                found[_absolute(member.name)] = file.read() if file is not None else b""
    return found


def save(manifest: Manifest, path: str) -> None:
    """Write a manifest, whole or not at all."""
    partial = f"{path}.{os.getpid()}"
    with open(partial, "w", encoding="ascii") as file:
        json.dump({name: dataclasses.astuple(item) for name, item in manifest.items()}, file)
    os.replace(partial, path)


def load(path: str) -> Manifest:
    with open(path, encoding="ascii") as file:
        plain: dict[str, list[Any]] = json.load(file)
    fields = [field.name for field in dataclasses.fields(Item)]
    return {name: _from_plain(dict(zip(fields, values, strict=True))) for name, values in plain.items()}


def _from_plain(plain: dict[str, Any]) -> Item:
    plain["xattrs"] = tuple((name, value) for name, value in plain["xattrs"])
    plain["names"] = tuple(plain["names"])
    return Item(**plain)


def differences(before: Manifest, after: Manifest) -> dict[str, str]:
    """Paths that differ, each with what is different about it."""
    found = dict.fromkeys(after.keys() - before.keys(), "created")
    found |= dict.fromkeys(before.keys() - after.keys(), "removed")
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if old != new:
            fields = [field.name for field in dataclasses.fields(Item)]
            found[name] = ", ".join(field for field in fields if getattr(old, field) != getattr(new, field))
    return found


def groups(*trees: Manifest) -> dict[str, frozenset[str]]:
    """Of each file that has several names in one of the ``trees``: all its names in any of them."""
    found: dict[str, frozenset[str]] = {}
    for tree in trees:
        for name, item in tree.items():
            if item.names:
                found[name] = found.get(name, frozenset()).union(item.names)
    return found


def unexplained(
    found: Mapping[str, str], receipt: Mapping[str, Any], linked: Mapping[str, frozenset[str]] | None = None
) -> list[str]:
    """What the tree and the receipt do not agree on, as sentences; empty if they tell the same story.

    ``linked``: see :func:`groups`. A receipt has a change under one name of a file; its others show it, too.
    """
    touched, moved = _told(receipt)
    kinds = {path: _kinds(path, touched, moved, (linked or {}).get(path, frozenset())) for path in found}
    said = [
        f"{path}: {what}, but the receipt does not say so"
        for path, what in sorted(found.items())
        if not kinds[path] and not _is_below(path, moved)
    ]
    said += [f"{path}: in the receipt, but it is as it was" for path in sorted(touched.keys() - found.keys())]
    for path in sorted(path for path in found if kinds[path]):
        more = _unspoken(found[path], kinds[path])
        if more:
            spoken = " and ".join(_SPEAKS_OF[kind] for kind in sorted(kinds[path]))
            said.append(f"{path}: {', '.join(more)}, but the receipt speaks of its {spoken} only")
    return said


def _told(receipt: Mapping[str, Any]) -> tuple[dict[str, set[str]], set[str]]:
    """Kinds of change by path, and what was renamed: its old and its new paths."""
    touched: dict[str, set[str]] = collections.defaultdict(set)
    moved: set[str] = set()
    for task in receipt["tasks"]:
        for change in task["changes"] or ():
            if change["change"] not in TREE_CHANGES:
                continue
            touched[change["path"]].add(change["change"])
            if change["change"] == "renamed":
                target = change["detail"].removeprefix("to ")
                touched[target].add("created")
                moved |= {change["path"], target}
    return dict(touched), moved


def _kinds(path: str, touched: Mapping[str, set[str]], moved: set[str], names: frozenset[str]) -> set[str]:
    """What the receipt says of a file under this name, and under its others what is true of the file."""
    kinds = set(touched.get(path, ()))
    for other in names - {path}:
        if other in touched or _is_below(other, moved):
            kinds |= {_LINKED} | touched.get(other, set()) & {"modified", "attributes"}
    return kinds


def _is_below(path: str, tops: set[str]) -> bool:
    return any(path.startswith(f"{top}/") for top in tops)


def _unspoken(what: str, kinds: set[str]) -> list[str]:
    """The differences of a file that changes of these ``kinds`` do not explain."""
    if not kinds <= _MAY_DIFFER.keys():
        return []
    explained = {field for kind in kinds for field in _MAY_DIFFER[kind]}
    return [field for field in what.split(", ") if field not in explained]


def _is_beside(member: tarfile.TarInfo) -> bool:
    return member.name.partition("/")[0] != "."


def _absolute(name: str) -> str:
    return "/" + name.removeprefix(".").strip("/")


def _item(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
    kind = _KINDS.get(member.type, f"type {member.type!r}")
    content = member.linkname if member.issym() else ""
    if member.isdev() and not member.isfifo():
        content = f"{member.devmajor}:{member.devminor}"
    if member.isreg():
        content = _digest(archive, member)
    attributes = {
        name.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape").hex()
        for name, value in member.pax_headers.items()
        if name.startswith(_XATTR)
    }
    return Item(
        kind=kind,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        content=content,
        xattrs=tuple(sorted(attributes.items())),
    )


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    file = archive.extractfile(member)
    while file is not None and (chunk := file.read(_CHUNK)):
        digest.update(chunk)
    return digest.hexdigest()
