"""The fixture images and what is known of them without looking: ``build/fixtures/NAME.json``."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from typing import Final

from snf_image_contract import codec
from snf_image_vmtests import places

BSDS: Final = ("freebsd", "netbsd", "openbsd")
"""Families that have UFS and their passwords in master.passwd."""
_SECTORS = 2048
"""Sectors of a mebibyte."""
_MAX_RECORD = 1024 * 1024


class FixtureImageError(Exception):
    """A fixture image is not there or not what its record says."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a value stands in an image: the whole of ``path``, or the value of ``key`` in it."""

    path: str
    key: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """``old_password`` None: not known."""

    name: str
    uid: int
    home: str
    old_password: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an image without looking at it.

    ``grows``: the last partition is one that is enlarged.
    ``network_file``: where the configuration of the first interface belongs. ``kernel_names``: interfaces
    are called as the kernel calls them, whatever their hardware addresses. ``own_swap``: its fstab has some.
    """

    family: str
    distribution: str
    root_partition: int
    root_filesystem: str
    table: str
    boots: bool = False
    grows: bool = True
    accounts: tuple[Account, ...]
    hostname: Setting
    network_file: str | None = None
    network_backend: str | None = None
    kernel_names: bool = False
    own_swap: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFacts:
    """One partition of the image; ``start`` and ``size`` in mebibytes.

    ``inside``: a partition of the disklabel in partition ``number``. ``cylinder``: sectors of that label's,
    of which OpenBSD uses whole ones only.
    ``first_sector`` and ``sectors``, of 512 bytes, where it is not made of whole mebibytes.
    """

    number: int
    start: int
    size: int
    filesystem: str | None = None
    mount: str | None = None
    container: bool = False
    inside: bool = False
    cylinder: int = 63 * 16
    first_sector: int | None = None
    sectors: int | None = None

    @property
    def start_sector(self) -> int:
        return self.start * _SECTORS if self.first_sector is None else self.first_sector

    @property
    def offset(self) -> int:
        """In bytes, of the disk."""
        return self.start_sector * 512

    @property
    def sector_count(self) -> int:
        return self.size * _SECTORS if self.sectors is None else self.sectors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FixtureImage:
    """An image to deploy: its file, its digest, its facts."""

    name: str
    path: str
    sha256: str
    size: int
    facts: Facts
    partitions: tuple[PartitionFacts, ...]

    def mounts(self) -> dict[str, int]:
        """Numbers of partitions by where they are mounted."""
        return {part.mount: part.number for part in self.partitions if part.mount is not None}

    def root(self) -> PartitionFacts:
        """The partition with the root file system; it may lie in a disklabel."""
        (found,) = (part for part in self.partitions if part.mount == "/")
        return found

    def last_partition(self) -> PartitionFacts:
        """The partition that a deployment enlarges: the last on the disk; a container is not one."""
        candidates = (part for part in self.partitions if not part.container)
        return max(candidates, key=lambda part: part.start_sector)

    def account(self, name: str) -> Account:
        for account in self.facts.accounts:
            if account.name == name:
                return account
        raise FixtureImageError(f"{self.name}: no account {name}")


@functools.cache
def load_fixture(name: str) -> FixtureImage:
    """The fixture image of this name; :class:`FixtureImageError` says how to build it."""
    record = os.path.join(places.fixture_directory(), f"{name}.json")
    try:
        with open(record, "rb") as file:
            plain = codec.loads(file.read(), limit=_MAX_RECORD, where=name)
    except FileNotFoundError:
        raise FixtureImageError(f"{name}: not built; run `make fixtures`") from None
    try:
        facts = codec.decode(Facts, plain["facts"], where=f"{name}.facts")
        partitions = tuple(
            codec.decode(PartitionFacts, part, where=f"{name}.partitions") for part in plain["partitions"]
        )
        sha256 = plain["files"][f"{name}.raw"]
    except (codec.ContractError, KeyError, TypeError) as error:
        raise FixtureImageError(f"{record}: {error}; run `make fixtures`") from None
    path = os.path.join(places.fixture_directory(), f"{name}.raw")
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise FixtureImageError(f"{name}: not built; run `make fixtures`") from None
    return FixtureImage(name=name, path=path, sha256=sha256, size=size, facts=facts, partitions=partitions)


def names() -> tuple[str, ...]:
    """Every fixture image that is built, in order."""
    found = []
    for entry in sorted(os.listdir(places.fixture_directory())):
        if entry.endswith(".json"):
            with open(os.path.join(places.fixture_directory(), entry), encoding="utf-8") as file:
                if json.load(file).get("facts"):
                    found.append(entry.removesuffix(".json"))
    return tuple(found)
