"""An image of somebody else, described in a few lines, so that it gets the cells of the project's own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from snf_image_contract import codec
from snf_image_process import ProcessError, run
from snf_image_vmtests import disklabel, matrix_model
from snf_image_vmtests.disklabel import DisklabelError, Extent
from snf_image_vmtests.fixture_images import BSDS, Account, Facts, FixtureImage, PartitionFacts, Setting
from snf_image_vmtests.matrix import Cell, MatrixError, decode_cells, load_plain

NAME: Final = "image"
"""What the cells of a described image call it."""
FAMILIES: Final = {
    "debian": Setting(path="/etc/hostname"),
    "redhat": Setting(path="/etc/hostname"),
    "suse": Setting(path="/etc/hostname"),
    "arch": Setting(path="/etc/hostname"),
    "alpine": Setting(path="/etc/hostname"),
    "gentoo": Setting(path="/etc/conf.d/hostname", key="hostname"),
    "slackware": Setting(path="/etc/HOSTNAME"),
    "freebsd": Setting(path="/etc/rc.conf", key="hostname"),
    "netbsd": Setting(path="/etc/myname"),
    "openbsd": Setting(path="/etc/myname"),
    "windows": Setting(path="/unattend.xml"),
    "windows-legacy": Setting(path="/sysprep/sysprep.inf"),
}
"""Where each family keeps its name, unless the description says something else."""
_NETWORK_FILES: Final = {
    "freebsd": "/etc/rc.conf",
    "netbsd": "/etc/ifconfig.vioif0",
    "openbsd": "/etc/hostname.vio0",
}
_KERNEL_NAMES: Final = dict.fromkeys(FAMILIES, False) | dict.fromkeys(("alpine", "slackware", *BSDS), True)
"""Families whose interfaces are called as the kernel calls them, unless the description says otherwise."""
_CHECKED: Final = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "vfat")
"""File systems whose checker the inspection VM has."""
_UFS: Final = {"1": "ufs1", "2": "ufs2"}
"""Those that the fixtures' reader judges, by the version that blkid tells."""
_CONTAINERS: Final = ("5", "f", "85")
_ROOT_LETTER: Final = "a"
"""Where a disklabel has the root, by the habit of all who start from one."""
_MOUNT: Final = re.compile("(/.+)=([1-9][0-9]*[a-z]?)")
_ROOM_MIB: Final = 256
_MIB: Final = 1024 * 1024
_SECTORS: Final = _MIB // 512


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the author of an image says of it.

    ``image``: a raw disk, relative to the description. ``mounts``: further partitions, as ``/boot=2``, or as
    ``/home=1e`` for partition e of the disklabel in partition 1.
    ``hostname``, ``network_file``, ``kernel_names``, ``own_swap``, ``grows``: as in :class:`Facts`.
    ``cloud_init``: it has cloud-init.
    """

    image: str
    family: str
    root_partition: int
    accounts: tuple[Account, ...] = (Account(name="root", uid=0, home="/root"),)
    mounts: tuple[str, ...] = ()
    hostname: Setting | None = None
    network_file: str | None = None
    kernel_names: bool | None = None
    cloud_init: bool = False
    own_swap: bool = False
    grows: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Cells, and the image that they are about, if it is not a fixture of the project."""

    cells: tuple[Cell, ...]
    image: FixtureImage | None = None


@functools.cache
def load(path: str) -> Matrix:
    """A matrix file of either kind; :class:`MatrixError` says what is wrong with it."""
    plain = load_plain(path)
    if "image" not in plain:
        return Matrix(cells=decode_cells(path, plain))
    own = plain.pop("cells", None)
    try:
        description = codec.decode(Description, plain, where=path)
    except codec.ContractError as error:
        raise MatrixError(str(error)) from None
    image = describe(description, path)
    if own is None:
        own = standard_cells(description, image)
    elif isinstance(own, list):
        own = [{"fixture": NAME} | cell if isinstance(cell, dict) else cell for cell in own]
    return Matrix(cells=decode_cells(path, {"cells": own}), image=image)


def describe(description: Description, where: str) -> FixtureImage:
    """Look at the image's partition table and file systems; nothing of it is mounted here."""
    if description.family not in FAMILIES:
        raise MatrixError(f"{where}: family: must be one of {', '.join(FAMILIES)}")
    path = os.path.join(os.path.dirname(os.path.abspath(where)), description.image)
    try:
        table = json.loads(run(["sfdisk", "--json", path], timeout=60).text)["partitiontable"]
        size, digest = os.stat(path).st_size, _sha256(path)
        found = _found(path, table, description.family)
    except (ProcessError, OSError, ValueError, KeyError, DisklabelError) as error:
        raise MatrixError(f"{where}: image {path}: {error}") from None
    root, filesystem = _root(description, found, where)
    mounts = _mounts(description, root, found, where)
    partitions = tuple(dataclasses.replace(found[place], mount=mounts.get(place)) for place in found)
    windows = description.family.startswith("windows")
    if not windows and not any(account.name == "root" for account in description.accounts):
        raise MatrixError(f"{where}: accounts: root, whose password is set, is not among them")
    told = description.kernel_names
    facts = Facts(
        family=description.family,
        distribution=description.family,
        root_partition=description.root_partition,
        root_filesystem=filesystem,
        table="gpt" if table["label"] == "gpt" else "mbr",
        grows=description.grows,
        accounts=description.accounts,
        hostname=description.hostname or FAMILIES[description.family],
        network_file=description.network_file or _NETWORK_FILES.get(description.family),
        kernel_names=_KERNEL_NAMES[description.family] if told is None else told,
        own_swap=description.own_swap,
    )
    return FixtureImage(name=NAME, path=path, sha256=digest, size=size, facts=facts, partitions=partitions)


def standard_cells(description: Description, image: FixtureImage) -> list[dict[str, Any]]:
    """Everything that can be asked of the image, each two of them together at least once."""
    size = -(-image.size // _MIB) + _ROOM_MIB
    number = _free_number(image)
    lacks: dict[str, tuple[str, ...]] = {} if description.cloud_init else {"cloud": ("yes",)}
    if description.family.startswith("windows"):
        lacks |= matrix_model.NOT_WINDOWS
    elif description.family in BSDS:
        lacks |= matrix_model.NOT_BSD
    elif number is None:
        lacks |= {"swap": ("partition",)}
    legacy = description.family == "windows-legacy"
    password = {"password": matrix_model.ASCII_PASSWORD} if legacy else {}
    return [
        {"id": "-".join(matrix_model.request_words(row)), "fixture": NAME, "disk_size": size}
        | password
        | matrix_model.requests(row, swap_number=number or 0)
        for row in matrix_model.requested(lacks)
    ]


def _free_number(image: FixtureImage) -> int | None:
    """The number that a swap partition behind the last one would have; None if there is none left."""
    numbers = {part.number for part in image.partitions}
    last = image.last_partition().number
    if image.facts.table == "mbr" and last > 4:
        return max(numbers) + 1
    limit = 4 if image.facts.table == "mbr" else 128
    return next((number for number in range(last + 1, limit + 1) if number not in numbers), None)


def _found(path: str, table: dict[str, Any], family: str) -> dict[str, PartitionFacts]:
    """The table's partitions by number; by number and letter, such as ``1a``, those of a disklabel."""
    found: dict[str, PartitionFacts] = {}
    for row in table.get("partitions", ()):
        number = int(row["node"].removeprefix(path).lstrip("p"))
        place = Extent(start=row["start"], sectors=row["size"])
        labelled = row["type"] in disklabel.SLICES.get(family, ())
        label = disklabel.read(path, place, family) if labelled else None
        if label is not None:
            for letter, extent in label.partitions.items():
                part = _facts(number, extent, _filesystem(path, extent))
                part = dataclasses.replace(part, inside=True, cylinder=label.cylinder)
                found[f"{number}{letter}"] = part
            continue
        container = table["label"] == "dos" and row["type"] in _CONTAINERS
        kind = None if container else _filesystem(path, place)
        found[str(number)] = dataclasses.replace(_facts(number, place, kind), container=container)
    return found


def _root(description: Description, found: Mapping[str, PartitionFacts], where: str) -> tuple[str, str]:
    """Which partition of ``found`` is the root's, and its file system."""
    number = str(description.root_partition)
    place = number if number in found else number + _ROOT_LETTER
    filesystem = found[place].filesystem if place in found else None
    if filesystem is None:
        raise MatrixError(f"{where}: root_partition: {number} has no known file system")
    return place, filesystem


def _mounts(
    description: Description, root: str, found: Mapping[str, PartitionFacts], where: str
) -> dict[str, str]:
    """Mount points by partition, named as in ``found``: of the root and of those in the description."""
    mounts = {root: "/"}
    for text in description.mounts:
        match = _MOUNT.fullmatch(text)
        if match is None:
            raise MatrixError(f"{where}: mounts: {text!r} is not like /boot=2")
        point, place = match.groups()
        if place in mounts:
            raise MatrixError(f"{where}: mounts: partition {place} is mounted twice")
        if place not in found:
            raise MatrixError(f"{where}: mounts: there is no partition {place}")
        mounts[place] = point
    return mounts


def _facts(number: int, place: Extent, kind: str | None) -> PartitionFacts:
    return PartitionFacts(
        number=number,
        start=place.start // _SECTORS,
        size=place.sectors // _SECTORS,
        first_sector=place.start,
        sectors=place.sectors,
        filesystem=kind,
    )


def _filesystem(path: str, place: Extent) -> str | None:
    extent = ["-O", str(place.start * disklabel.SECTOR), "-S", str(place.sectors * disklabel.SECTOR)]
    argv = ["blkid", "-p", *extent, "-o", "export", path]
    told = run(argv, timeout=60, accept=(0, 2)).text.splitlines()
    tags = dict(line.split("=", 1) for line in told if "=" in line)
    kind = tags.get("TYPE")
    return _UFS.get(tags.get("VERSION", "")) if kind == "ufs" else kind if kind in _CHECKED else None


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
