"""An image of somebody else, described in a few lines, so that it gets the cells of the project's own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from typing import Any, Final

from snf_image_contract import codec
from snf_image_process import ProcessError, run
from snf_image_vmtests import matrix_model
from snf_image_vmtests.fixture_images import Account, Facts, FixtureImage, PartitionFacts, Setting
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
    "windows": Setting(path="/unattend.xml"),
    "windows-legacy": Setting(path="/sysprep/sysprep.inf"),
}
"""Where each family keeps its name, unless the description says something else."""
_NETWORK_FILES: Final = {"freebsd": "/etc/rc.conf"}
_KERNEL_NAMES: Final = dict.fromkeys(FAMILIES, False) | dict.fromkeys(
    ("alpine", "slackware", "freebsd"), True
)
"""Families whose interfaces are called as the kernel calls them, unless the description says otherwise."""
_CHECKED: Final = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "vfat")
"""File systems whose checker the inspection VM has."""
_UFS: Final = {"1": "ufs1", "2": "ufs2"}
"""Those that the fixtures' reader judges, by the version that blkid tells."""
_CONTAINERS: Final = ("5", "f", "85")
_ROOM_MIB: Final = 256
_MIB: Final = 1024 * 1024
_SECTORS: Final = _MIB // 512


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the author of an image says of it.

    ``image``: a raw disk, relative to the description. ``mounts``: further partitions, as ``/boot=2``.
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
    except (ProcessError, OSError, ValueError, KeyError) as error:
        raise MatrixError(f"{where}: image {path}: {error}") from None
    mounts = _mounts(description, where)
    partitions = tuple(_partition(path, table, number, mounts) for number in range(len(table["partitions"])))
    root = next((part for part in partitions if part.number == description.root_partition), None)
    if root is None or root.filesystem is None:
        raise MatrixError(f"{where}: root_partition: {description.root_partition} has no known file system")
    absent = mounts.keys() - {part.number for part in partitions}
    if absent:
        raise MatrixError(f"{where}: mounts: there is no partition {min(absent)}")
    windows = description.family.startswith("windows")
    if not windows and not any(account.name == "root" for account in description.accounts):
        raise MatrixError(f"{where}: accounts: root, whose password is set, is not among them")
    told = description.kernel_names
    facts = Facts(
        family=description.family,
        distribution=description.family,
        root_partition=description.root_partition,
        root_filesystem=root.filesystem,
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
    elif description.family == "freebsd":
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


def _mounts(description: Description, where: str) -> dict[int, str]:
    mounts = {description.root_partition: "/"}
    for text in description.mounts:
        point, _, number = text.partition("=")
        if not point.startswith("/") or not number.isdecimal():
            raise MatrixError(f"{where}: mounts: {text!r} is not like /boot=2")
        if int(number) in mounts:
            raise MatrixError(f"{where}: mounts: partition {number} is mounted twice")
        mounts[int(number)] = point
    return mounts


def _partition(path: str, table: dict[str, Any], index: int, mounts: dict[int, str]) -> PartitionFacts:
    row = table["partitions"][index]
    number = int(row["node"].removeprefix(path).lstrip("p"))
    start, sectors = row["start"], row["size"]
    container = table["label"] == "dos" and row["type"] in _CONTAINERS
    kind = None if container else _filesystem(path, start * 512, sectors * 512)
    return PartitionFacts(
        number=number,
        start=start // _SECTORS,
        size=sectors // _SECTORS,
        first_sector=start,
        sectors=sectors,
        filesystem=kind,
        mount=mounts.get(number),
        container=container,
    )


def _filesystem(path: str, offset: int, size: int) -> str | None:
    argv = ["blkid", "-p", "-O", str(offset), "-S", str(size), "-o", "export", path]
    told = run(argv, timeout=60, accept=(0, 2)).text.splitlines()
    tags = dict(line.split("=", 1) for line in told if "=" in line)
    kind = tags.get("TYPE")
    return _UFS.get(tags.get("VERSION", "")) if kind == "ufs" else kind if kind in _CHECKED else None


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
