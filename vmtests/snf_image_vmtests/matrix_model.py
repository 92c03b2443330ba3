"""What the generated part of the matrix varies, what cannot be combined, and which cells come of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from snf_image_vmtests.pairwise import Parameters, Row


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What a system's disks may be, and what of the rest it does not have: ``lacks``, values by parameter.

    ``ascii_password``: it takes no other. ``dump_family``: OSFAMILY of its dumps, if it has to be said.
    """

    filesystems: tuple[str, ...]
    tables: tuple[str, ...]
    ascii_password: bool = False
    dump_family: str | None = None
    lacks: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


_EXT: Final = ("ext2", "ext3", "ext4", "ext4-no64bit", "ext4-nochecksum", "ext4-orphanfile")
LINUX_FILESYSTEMS: Final = (*_EXT, "xfs", "btrfs")
NOT_WINDOWS: Final = {
    "credential": ("hash", "keys"),
    "swap": ("partition", "disk"),
    "network": ("static", "static+slaac"),
    "cloud": ("yes",),
}
"""A hash is an error for Windows; the others are ignored, so that nothing could be proved of them."""

NOT_BSD: Final = {"swap": ("partition", "disk"), "cloud": ("yes",)}
"""Swap is ignored, so that nothing could be proved of it; cloud-init is refused."""

_LINUX: Final = System(filesystems=LINUX_FILESYSTEMS, tables=("mbr", "logical", "gpt", "dump"))

SYSTEMS: Final[dict[str, System]] = {
    "ubuntu": _LINUX,
    "rhel9": _LINUX,
    "fedora": _LINUX,
    "centos7": _LINUX,
    "opensuse": _LINUX,
    "sles16": _LINUX,
    "arch": _LINUX,
    "gentoo": _LINUX,
    "slackware": _LINUX,
    "alpine": _LINUX,
    "freebsd": System(filesystems=("ufs2", "ufs2-hashes", "ufs1"), tables=("gpt",), lacks=NOT_BSD),
    "netbsd": System(
        filesystems=("ufs1-ffs", "ufs1-ffs-bigendian", "ufs2-ffs", "ufs2-ffs-bigendian"),
        tables=("mbr", "gpt", "disklabel"),
        lacks=NOT_BSD,
    ),
    "openbsd": System(filesystems=("ufs1-ffs", "ufs2-ffs"), tables=("disklabel", "gptlabel"), lacks=NOT_BSD),
    "windows2022": System(filesystems=("ntfs",), tables=("mbr", "gpt", "dump"), lacks=NOT_WINDOWS),
    "windows7": System(filesystems=("ntfs",), tables=("mbr", "dump"), lacks=NOT_WINDOWS),
    "windows2003": System(
        filesystems=("ntfs",),
        tables=("mbr", "dump"),
        ascii_password=True,
        dump_family="windows-legacy",
        lacks=NOT_WINDOWS,
    ),
}

REQUESTS: Final[dict[str, tuple[str, ...]]] = {
    "hostname": ("none", "short", "fqdn"),
    "credential": ("none", "password", "hash", "keys", "password+keys"),
    "swap": ("none", "partition", "disk"),
    "network": ("none", "dhcp", "static", "static+slaac"),
    "cloud": ("no", "yes"),
}
"""What is asked of a deployment: the same for all who use the matrix."""

DUMPED: Final = (*_EXT, "ntfs")
"""File systems that can be deployed as a dump."""
SIZES: Final = {"xfs": 448, "btrfs": 320, "ntfs": 96}
"""Mebibytes of the new disk, by file system."""
DEFAULT_SIZE: Final = 160
SWAP_MIB: Final = 32
ASCII_PASSWORD: Final = "all of 100% ! ^ & | < > ( ) ; , = and a blank"  # noqa: S105 - meant to be known


def parameters(systems: Mapping[str, System] = SYSTEMS) -> Parameters:
    """Everything that is varied."""

    def excludes(name: str, value: str, other: str, second: str) -> bool:
        if name == "system":
            system = systems[value]
            own = {"filesystem": system.filesystems, "table": system.tables}
            return second in system.lacks.get(other, ()) or (other in own and second not in own[other])
        if (name, value) == ("table", "dump"):
            return other == "filesystem" and second not in DUMPED
        # Of cloud-init's swap it is the image's own first boot that has to make something.
        return (name, value) == ("cloud", "yes") and (other, second) == ("swap", "disk")

    values: dict[str, Sequence[str]] = {
        "system": tuple(systems),
        "filesystem": _united(system.filesystems for system in systems.values()),
        "table": _united(system.tables for system in systems.values()),
    }
    # Left to cloud-init, less of a result can be proved.
    return Parameters(values | REQUESTS, excludes, rare={"cloud": "yes"})


def cells(systems: Mapping[str, System] = SYSTEMS) -> list[dict[str, Any]]:
    """The generated cells as they are written down, in the order of systems and file systems."""
    space = parameters(systems)
    rows = space.covering()
    rows.sort(key=lambda row: [space.values[name].index(row[name]) for name in space.values])
    return [cell(row) for row in rows]


def requested(lacks: Mapping[str, tuple[str, ...]]) -> list[Row]:
    """Rows of requests alone, for one image that ``lacks`` some values."""

    def excludes(name: str, value: str, other: str, second: str) -> bool:
        return (name, value, other, second) == ("cloud", "yes", "swap", "disk")

    values = {
        name: tuple(value for value in given if value not in lacks.get(name, ()))
        for name, given in REQUESTS.items()
    }
    return Parameters(values, excludes, rare={"cloud": "yes"}).covering()


def cell(row: Row) -> dict[str, Any]:
    """One row as a cell of the matrix; its id says everything that it asks for."""
    system, filesystem, table = row["system"], row["filesystem"], row["table"]
    addition = "+cloud" if row["cloud"] == "yes" else ""
    # A dump is taken out of an image with a table.
    image = f"{system}{addition}-on-{'mbr' if table == 'dump' else table}-{filesystem}"
    made: dict[str, Any] = {
        "id": "-".join([system, filesystem, table, *request_words(row)]),
        "fixture": image,
        "disk_size": SIZES.get(filesystem, DEFAULT_SIZE),
    }
    made |= requests(row, swap_number=6 if table == "logical" else 2)
    if SYSTEMS[system].ascii_password and "password" in row["credential"]:
        made["password"] = ASCII_PASSWORD
    if table == "dump":
        made["dump"] = True
        family = SYSTEMS[system].dump_family
        made |= {"properties": [f"OSFAMILY={family}"]} if family else {}
    return made


def requests(row: Mapping[str, str], *, swap_number: int) -> dict[str, Any]:
    """The fields of a cell that say what is asked."""
    names = {"short": "name1", "fqdn": "name1.example.org"}
    swaps = {"partition": f"{swap_number}:{SWAP_MIB}", "disk": "b"}
    fields = {
        "hostname": names.get(row["hostname"]),
        "credential": None if row["credential"] == "none" else row["credential"],
        "swap": swaps.get(row["swap"]),
        "network": None if row["network"] == "none" else row["network"],
        "cloud_init": row["cloud"] == "yes" or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def request_words(row: Mapping[str, str]) -> list[str]:
    """What is asked, in words of an id."""
    swap = "" if row["swap"] == "none" else f"swap{row['swap']}"
    words = [
        row["hostname"],
        row["credential"],
        swap,
        row["network"],
        "cloud" if row["cloud"] == "yes" else "",
    ]
    return [word.replace("+", "-") for word in words if word not in ("none", "")] or ["nothing"]


def _united(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for group in groups for value in group))
