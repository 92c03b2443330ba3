"""What was asked: filled by the command line, and by Ganeti's environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from snf_image_contract.names import TaskName
from snf_image_contract.secret import Secret
from snf_image_host.deployment import Accelerator, SourceKind, TargetDisk

Action = Literal["deploy", "customize", "inspect"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AskedImage:
    """The image to copy. ``path`` None leaves the disk as it is (``null``). ``shown`` names it to users.

    ``kind`` says what ``path`` is (:class:`~snf_image_host.deployment.ImageSource`). ``any_container``: take
    apart whatever it is wrapped in, also what the node's configuration does not list. ``checksums``,
    ``signature``: a path or URL. ``name_in_image_dir``: where checksums lie beside an image that is open.
    """

    path: str | None
    shown: str
    sha256: str | None = None
    digest: bool = True
    kind: SourceKind = "path"
    program: str | None = None
    any_container: bool = False
    sha512: str | None = None
    checksums: str | None = None
    signature: str | None = None
    name_in_image_dir: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AskedNic:
    """A network interface, unread. Field names are those of ``--nic``; empty means not given.

    ``origin``: how problems name a field: ``NIC_0_MAC`` or ``--nic 1: mac``.
    """

    mac: str
    ip: str = ""
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""
    tags: str = ""
    model: str = ""
    name: str = ""
    mode: str = ""
    link: str = ""
    network: str = ""
    origin: Literal["environment", "option"] = "environment"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What replaces the node's configuration for once; None keeps it. ``soft_timeout`` in seconds."""

    helper_dir: str | None = None
    accelerator: Accelerator | None = None
    memory: int | None = None
    cpus: int | None = None
    soft_timeout: float | None = None
    warm: bool | None = None
    debug: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One deployment as it was asked for, nothing checked.

    ``hostname`` None: none was asked for, the image keeps its own. ``parameters``: texts of OS parameters
    by name; absent is "not set". ``nics`` None: the network was not spoken of and stays as it is;
    empty: the instance has no interface. ``disks``: the first holds the image.
    ``answer_file``: base64 of an answer file that takes the place of what os_answer_file names.
    ``required``: img_id and img_format must have been given. ``only``: the tasks that may run, None for all.
    ``evidence``: the directory below which evidence is kept, None for the usual one; ``again``: the command
    that does the same once more, None for the one that runs.
    """

    action: Action
    image: AskedImage
    disks: tuple[TargetDisk, ...]
    hostname: str | None = None
    parameters: Mapping[str, Secret] = dataclasses.field(default_factory=dict)
    nics: tuple[AskedNic, ...] | None = None
    answer_file: Secret | None = None
    overrides: Overrides = Overrides()
    report: str | None = None
    keep: bool = False
    required: bool = False
    only: frozenset[TaskName] | None = None
    evidence: str | None = None
    again: str | None = None
