"""How disks with a URI are served, as the node's configuration says."""

from __future__ import annotations

from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import DiskServing
from snf_image_host.planning.helper_settings import runtime_directory


def disk_serving(config: NodeConfig) -> DiskServing:
    """Settings of one deployment."""
    return DiskServing(
        qemu_nbd=config.qemu_nbd,
        user=config.disk_uri_user,
        uid_range=config.helper_uid_range,
        runtime_dir=runtime_directory(),
    )
