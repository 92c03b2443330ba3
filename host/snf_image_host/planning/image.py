"""The image as it was decided: what was asked for and what the node's configuration says about sources."""

from __future__ import annotations

from snf_image_contract.names import ImageFormat
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import FetchPolicy, ImageSource, SourceSettings, Verification
from snf_image_host.image_container import Container
from snf_image_host.parameters.checks import Parameters
from snf_image_host.planning.helper_settings import runtime_directory
from snf_image_host.planning.request import AskedImage


def image_source(
    asked: AskedImage, parameters: Parameters, config: NodeConfig, image_format: ImageFormat
) -> ImageSource:
    """One image; nothing of it has been looked at."""
    return ImageSource(
        path=asked.path,
        shown=asked.shown,
        format=image_format,
        sha256=asked.sha256,
        digest=asked.digest,
        kind=asked.kind,
        container="auto" if asked.any_container else parameters.properties.container,
        program=asked.program,
        name_in_image_dir=asked.path if asked.kind == "image-dir" else asked.name_in_image_dir,
        verification=Verification(
            policy=config.image_verify,
            sha512=asked.sha512,
            checksums=asked.checksums,
            signature=asked.signature,
            trusted_keys=config.trusted_keys_dir,
        ),
        settings=source_settings(config, any_container=asked.any_container),
    )


def source_settings(config: NodeConfig, *, any_container: bool = False) -> SourceSettings:
    """What the node's configuration says about sources."""
    return SourceSettings(
        containers=frozenset(map(str, Container) if any_container else config.image_containers),
        image_dir=config.image_dir,
        allow_symlinks=config.image_dir_allow_symlinks,
        fetch=fetch_policy(config),
        spool_dir=config.spool_dir,
        spool_max=config.spool_max_size,
        cache_dir=config.image_cache_dir,
        cache_size=config.image_cache_size,
        qemu=config.qemu,
        uid_range=config.helper_uid_range,
        runtime_dir=runtime_directory(),
    )


def fetch_policy(config: NodeConfig) -> FetchPolicy:
    """What may be fetched from where (R-FETCH-1 to R-FETCH-5)."""
    return FetchPolicy(
        schemes=config.fetch_allowed_schemes,
        hosts=config.fetch_allowed_hosts,
        allow_private=config.fetch_allow_private,
        max_redirects=config.fetch_max_redirects,
        timeout=config.fetch_timeout,
        idle_timeout=config.copy_idle_timeout,
        min_rate=config.fetch_min_rate,
        insecure=config.fetch_insecure,
        ca_file=config.fetch_ca_file,
        user=config.fetch_user,
    )
