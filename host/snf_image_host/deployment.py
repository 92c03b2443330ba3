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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """The image: a path opened with the caller's rights, or None to leave the disk as it is (``null``).

    ``sha256``: 64 hex digits that the bytes of the image must have; a mismatch is an image error.
    ``shown``: how the image is named in messages (no credentials).
    """

    path: str | None
    shown: str
    format: ImageFormat
    sha256: str | None = None
    digest: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetDisk:
    """A disk of the instance: a block device or a regular file.

    ``create_size``: bytes; a missing file is made with that size (``--disk-size``), an existing file may
    only be of it or smaller, and is then enlarged. None: the disk must exist.
    """

    index: int
    path: str
    read_only: bool = False
    create_size: int | None = None


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
