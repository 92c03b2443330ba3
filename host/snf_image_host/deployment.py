"""What was decided: frozen, validated once, before anything is written.

:class:`Deployment` is made by ``plan()`` from what was asked (parameters, options) and from the node's
configuration. After that nobody reads the environment or a configuration file.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from snf_image_contract.job import Job
from snf_image_contract.names import ImageFormat

Accelerator = Literal["auto", "kvm", "tcg"]
WipeTail = Literal["no", "discard", "zero"]


SourceKind = Literal["path", "image-dir", "url", "program"]
VerifyPolicy = Literal["require", "if-present", "off"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What may be fetched, from where, and how long it may take (R-FETCH-1 to R-FETCH-5). In seconds.

    ``min_rate``: bytes a second that a server must send on average over ``idle_timeout``; 0 for no limit.
    ``user``: account that the operator set, None for a uid of its own as root.
    """

    schemes: tuple[str, ...] = ("https", "http", "ftps", "ftp")
    hosts: tuple[str, ...] = ()
    allow_private: bool = True
    max_redirects: int = 5
    timeout: float = 30.0
    idle_timeout: float = 300.0
    min_rate: int = 16384
    insecure: bool = False
    ca_file: str | None = None
    user: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the source must prove to be. Digests in lower case hexadecimal digits.

    ``checksums``, ``signature``: paths or URLs, None to look beside the image. ``trusted_keys``: directory.
    """

    policy: VerifyPolicy = "off"
    sha512: str | None = None
    checksums: str | None = None
    signature: str | None = None
    trusted_keys: str = "/etc/snf-image/trusted-keys"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """What the node's configuration says about sources. Sizes in bytes.

    ``containers``: names of those that may be unwrapped.
    """

    containers: frozenset[str] = frozenset({"raw"})
    image_dir: str = "/var/lib/snf-image"
    allow_symlinks: bool = False
    fetch: FetchPolicy = FetchPolicy()
    spool_dir: str = "/var/tmp"  # noqa: S108 - each spool is a file without a name
    spool_max: int = 64 << 30
    cache_dir: str | None = None
    cache_size: int = 32 << 30
    qemu: str = "qemu-system-x86_64"
    uid_range: tuple[int, int] = (2_100_000_000, 2_100_065_535)
    runtime_dir: str = "/run/snf-image"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """The image, or ``path`` None to leave the disk as it is (``null``).

    ``kind``: ``path`` is opened with the caller's rights, ``image-dir`` is a name below IMAGE_DIR, ``url``
    is fetched, ``program`` is an image identifier for the external program ``program``.
    ``container``: ``raw`` takes the bytes as they are, ``auto`` looks at them, another word is the container
    that they must be (R-FMT-1). ``sha256``: what the source must have; a mismatch is an image error.
    ``shown``: how the image is named in messages (no credentials). ``name_in_image_dir``: its name there.
    """

    path: str | None
    shown: str
    format: ImageFormat
    sha256: str | None = None
    digest: bool = True
    kind: SourceKind = "path"
    container: str = "raw"
    program: str | None = None
    name_in_image_dir: str | None = None
    verification: Verification = Verification()
    settings: SourceSettings = SourceSettings()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskServing:
    """How disks with a URI are served. ``user``: account that the operator set, None for a uid of its own."""

    qemu_nbd: str = "qemu-nbd"
    user: str | None = None
    uid_range: tuple[int, int] = (2_100_000_000, 2_100_065_535)
    runtime_dir: str = "/run/snf-image"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetDisk:
    """A disk of the instance: a block device, a regular file, or what ``uri`` leads to.

    ``path`` of one with a URI: how it is named in messages, without credentials. ``program``: what writes the
    image to it, None for us.
    ``create_size``: bytes; a missing file is made with that size (``--disk-size``), an existing file may
    only be of it or smaller, and is then enlarged. None: the disk must exist.
    """

    index: int
    path: str
    read_only: bool = False
    create_size: int | None = None
    uri: str | None = None
    program: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HelperSettings:
    """How the helper VM is run. Times in seconds, 0 means no limit. ``memory`` in MiB.

    ``user``: account that the operator set, else None (a uid of its own from ``uid_range`` as root, the
    caller otherwise, D-7). ``tcg_factor`` multiplies times under TCG. ``state_dir``: remembered probes.
    ``warm``: start from a saved state if there is one, and make one if there is none.
    ``parallel``: how many VMs may run at once, 0 for as many as there is memory for; ``wait_timeout``: how
    long a deployment waits for its turn.
    """

    directory: str
    accelerator: Accelerator = "auto"
    memory: int = 512
    cpus: int = 1
    qemu: str = "qemu-system-x86_64"
    user: str | None = None
    uid_range: tuple[int, int] = (2_100_000_000, 2_100_065_535)
    soft_timeout: float = 120.0
    hard_timeout: float = 5.0
    start_timeout: float = 60.0
    tcg_factor: float = 5.0
    debug: bool = False
    protocol: Literal["json", "text"] = "json"
    param_medium: Literal["auto", "virtio", "floppy"] = "auto"
    max_messages: int = 1000
    state_dir: str = "/var/cache/snf-image"
    runtime_dir: str = "/run/snf-image"
    warm: bool = False
    parallel: int = 0
    wait_timeout: float = 600.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment, decided. ``job`` lacks only what is made while the copy runs (SSH host keys).

    ``copy`` False: ``customize`` or ``inspect``, the disk is used as it is. ``want_host_keys``: comment
    of the SSH host keys to make, None for none. ``report``: where the receipt goes. ``notes``: what only a
    verbose log shows. ``evidence``: where evidence is kept, None for the usual place; ``again``: the command
    that does the same once more, None for the one that runs.
    """

    instance: str
    image: ImageSource
    disks: tuple[TargetDisk, ...]
    helper: HelperSettings
    job: Job
    serving: DiskServing = DiskServing()
    copy: bool = True
    run_helper: bool = True
    wipe_tail: WipeTail = "discard"
    copy_idle_timeout: float = 300.0
    want_host_keys: str | None = None
    report: str | None = None
    keep: bool = False
    evidence: str | None = None
    again: str | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
