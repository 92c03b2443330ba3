"""How disks with a URI are served, as the node's configuration says."""

from __future__ import annotations

import os
import tempfile

from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import DiskServing
from snf_image_host.planning.helper_settings import runtime_directory


def disk_serving(config: NodeConfig) -> DiskServing:
    """Settings of one deployment."""
    return DiskServing(
        qemu_nbd=config.qemu_nbd,
        user=config.disk_uri_user,
        uid_range=config.helper_uid_range,
        runtime_dir=_runtime_directory(),
    )


def _runtime_directory() -> str:
    """A directory that nobody else can write to: locks of disks are in it."""
    directory = runtime_directory()
    if directory == tempfile.gettempdir():
        return os.path.join(directory, f"snf-image-{os.geteuid()}")
    return directory
