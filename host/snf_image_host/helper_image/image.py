"""Reading manifest.json and deciding whether this host can use what it describes (R-HLP-17, D-8, D-20)."""

from __future__ import annotations

import dataclasses
import os
import stat
from typing import Final

from snf_image_contract import codec
from snf_image_contract.codec import ContractError
from snf_image_contract.job import CONTRACT_VERSION
from snf_image_contract.names import MAX_OPERATOR_TASKS, operator_task_place
from snf_image_host.errors import NodeError

MANIFEST: Final = "manifest.json"
_MAX_MANIFEST: Final = 4 * 1024 * 1024
_FORMAT: Final = 1
NEEDED: Final = ("initrd", "kernel", "root.img")
"""What a deployment boots; anything else in the directory is for others."""
REBUILD: Final = "build it with `snf-image helper build`, or install the package that carries it"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A file of the helper image: its name in the directory, size in bytes, sha256 in hex."""

    name: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A Debian package that the root file system was made of."""

    name: str
    version: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """The registry's image that was built on: its name, and ``sha256:…`` of its manifest, or ""."""

    image: str
    digest: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HelperImage:
    """A helper image that this host may use. ``cmdline``: words the kernel is to be given,
    and ``cmdline_tcg`` those that an emulated one is to be given besides.

    ``tasks``: the files ``NNName`` of tasks that the operator added (D-34). ``base``: None where Debian's
    packages were all there was to begin with.
    """

    directory: str
    build: str
    contract_version: int
    cmdline: str
    cmdline_tcg: str = ""
    artefacts: tuple[Artefact, ...]
    packages: tuple[Package, ...]
    tasks: tuple[str, ...] = ()
    base: BaseImage | None = None

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @property
    def kernel(self) -> str:
        return self.path("kernel")

    @property
    def initrd(self) -> str:
        return self.path("initrd")

    @property
    def root(self) -> str:
        return self.path("root.img")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    format: int
    build: str
    contract_version: int
    cmdline: str
    cmdline_tcg: str = ""
    packages: tuple[Package, ...]
    tasks: tuple[str, ...] = ()
    base: BaseImage | None = None


def load(directory: str) -> HelperImage:
    """The helper image of a directory, checked as far as that costs no time: owner, sizes, contract.

    :class:`NodeError` says what is wrong and how to get a helper image. Digests are :func:`verify`'s.
    """
    image = read_manifest(directory)
    if image.contract_version != CONTRACT_VERSION:
        raise NodeError(
            f"the helper image in {directory} speaks contract version {image.contract_version}, "
            f"this host speaks {CONTRACT_VERSION}",
            hint=REBUILD,
        )
    for name in ("", MANIFEST, *(artefact.name for artefact in image.artefacts)):
        demand_trusted(os.path.join(directory, name) if name else directory)
    for artefact in image.artefacts:
        size = os.path.getsize(image.path(artefact.name))
        if size != artefact.size:
            raise NodeError(
                f"{image.path(artefact.name)} has {size} bytes, its manifest says {artefact.size}",
                hint=REBUILD,
            )
    return image


def read_manifest(directory: str) -> HelperImage:
    """The manifest alone, whatever contract it speaks."""
    path = os.path.join(directory, MANIFEST)
    try:
        with open(path, "rb") as file:
            plain = codec.loads(file.read(_MAX_MANIFEST + 1), limit=_MAX_MANIFEST, where=path)
    except FileNotFoundError:
        raise NodeError(f"there is no helper image in {directory}", hint=REBUILD) from None
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from None
    except ContractError as error:
        raise NodeError(str(error), hint=REBUILD) from None
    try:
        files = plain.pop("files")
        head = codec.decode(_Head, plain, where=path)
        artefacts = tuple(_artefact(path, name, entry) for name, entry in sorted(files.items()))
        _demand_tasks(path, head.tasks)
    except (ContractError, AttributeError, KeyError, TypeError) as error:
        raise NodeError(f"{path} is not a manifest of a helper image: {error}", hint=REBUILD) from None
    if head.format != _FORMAT:
        raise NodeError(f"{path} has format {head.format}, this host knows {_FORMAT}", hint=REBUILD)
    absent = [name for name in NEEDED if name not in files]
    if absent:
        raise NodeError(f"{path} does not describe {', '.join(absent)}", hint=REBUILD)
    return HelperImage(
        directory=directory,
        build=head.build,
        contract_version=head.contract_version,
        cmdline=head.cmdline,
        cmdline_tcg=head.cmdline_tcg,
        artefacts=artefacts,
        packages=head.packages,
        tasks=head.tasks,
        base=head.base,
    )


def added_tasks(directory: str) -> tuple[str, ...]:
    """The files of tasks that the operator added; none if there is no image, which :func:`load` will say."""
    try:
        return read_manifest(directory).tasks
    except NodeError:
        return ()


def demand_trusted(path: str) -> None:
    """Refuse what somebody else could have put there: owned by root or us, written by nobody else."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise NodeError(f"{path} is missing", hint=REBUILD) from None
    if status.st_uid not in (0, os.geteuid()):
        raise NodeError(
            f"{path} belongs to uid {status.st_uid}, a helper image must belong to root or to its user",
            hint=f"chown root {path}",
        )
    if status.st_mode & stat.S_IWOTH or (
        status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
    ):
        raise NodeError(f"{path} can be written by others", hint=f"chmod go-w {path}")


def _artefact(path: str, name: str, entry: object) -> Artefact:
    if "/" in name or name in ("", ".", ".."):
        raise ContractError(f"{path}: {name!r} is no file name")
    file = codec.decode(_File, entry, where=f"files.{name}")
    return Artefact(name=name, size=file.size, sha256=file.sha256)


def _demand_tasks(path: str, tasks: tuple[str, ...]) -> None:
    if len(tasks) > MAX_OPERATOR_TASKS:
        raise ContractError(f"{path}.tasks: more than {MAX_OPERATOR_TASKS}")
    for file in tasks:
        if operator_task_place(file) is None:
            raise ContractError(f"{path}.tasks: {file[:80]!r} is no file of a task")
