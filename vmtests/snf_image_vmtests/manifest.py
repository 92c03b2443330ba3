"""Manifests of whole trees, and what differs between two: nothing may but what the receipt says."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
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
_CHUNK: Final = 1024 * 1024
TREE_CHANGES: Final = ("created", "modified", "removed", "renamed", "directory", "link", "attributes")
"""Kinds of change of a receipt that are about files."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file: everything that a deployment must not change unasked. Times are not part of it.

    ``content``: sha256 of a file, target of a link, numbers of a device.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    content: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()


_MAY_DIFFER: Final = {"modified": ("content",), "attributes": ("mode", "uid", "gid", "xattrs")}
"""What of a file each kind of change speaks of; after another kind nothing is left to compare with."""
_SPEAKS_OF: Final = {"modified": "contents", "attributes": "attributes"}

Manifest = dict[str, Item]


def read_archive(path: str) -> Manifest:
    """The manifest of a tar archive that GNU tar made with ``--xattrs``; paths are absolute."""
    manifest: Manifest = {}
    with tarfile.open(path, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            name = _absolute(member.name)
            if member.islnk():
                manifest[name] = manifest[_absolute(member.linkname)]
            else:
                manifest[name] = _item(archive, member)
    return manifest


def read_files(path: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """The contents of those of the ``wanted`` paths that are regular files."""
    names = set(wanted)
    found: dict[str, bytes] = {}
    with tarfile.open(path, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            if _absolute(member.name) in names and member.isreg():
                file = archive.extractfile(member)
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
    return {
        name: Item(
            kind=kind, mode=mode, uid=uid, gid=gid, content=content,
            xattrs=tuple((key, value) for key, value in xattrs),
        )
        for name, (kind, mode, uid, gid, content, xattrs) in plain.items()
    }  # fmt: skip


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


def unexplained(found: Mapping[str, str], receipt: Mapping[str, Any]) -> list[str]:
    """What the tree and the receipt do not agree on, as sentences; empty if they tell the same story."""
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
    said = [
        f"{path}: {what}, but the receipt does not say so"
        for path, what in sorted(found.items())
        if path not in touched and not any(path.startswith(f"{top}/") for top in moved)
    ]
    said += [f"{path}: in the receipt, but it is as it was" for path in sorted(touched.keys() - found.keys())]
    for path in sorted(touched.keys() & found.keys()):
        more = _unspoken(found[path], touched[path])
        if more:
            kinds = " and ".join(_SPEAKS_OF[kind] for kind in sorted(touched[path]))
            said.append(f"{path}: {', '.join(more)}, but the receipt speaks of its {kinds} only")
    return said


def _unspoken(what: str, kinds: set[str]) -> list[str]:
    """The differences of a file that changes of these ``kinds`` do not explain."""
    if not kinds <= _MAY_DIFFER.keys():
        return []
    explained = {field for kind in kinds for field in _MAY_DIFFER[kind]}
    return [field for field in what.split(", ") if field not in explained]


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
