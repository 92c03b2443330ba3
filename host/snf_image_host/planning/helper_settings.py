"""How the helper VM is to be run: the node's configuration, replaced where the request says so."""

from __future__ import annotations

import os
import tempfile
from typing import TypeVar

from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import HelperSettings
from snf_image_host.planning.request import Overrides

T = TypeVar("T")


def helper_settings(config: NodeConfig, overrides: Overrides) -> HelperSettings:
    """Settings of one deployment."""
    return HelperSettings(
        directory=_first(overrides.helper_dir, config.helper_dir),
        accelerator=_first(overrides.accelerator, config.helper_accel),
        memory=_first(overrides.memory, config.helper_memory),
        cpus=_first(overrides.cpus, config.helper_cpus),
        qemu=config.qemu,
        user=config.helper_user,
        uid_range=config.helper_uid_range,
        soft_timeout=_first(overrides.soft_timeout, config.helper_soft_timeout),
        hard_timeout=config.helper_hard_timeout,
        tcg_factor=config.helper_tcg_timeout_factor,
        warm=_first(overrides.warm, config.helper_warm),
        parallel=config.helper_parallel,
        wait_timeout=config.helper_wait_timeout,
        debug=overrides.debug or config.helper_debug,
        protocol=config.helper_protocol,
        param_medium=config.param_medium,
        max_messages=config.monitor_max_messages,
        state_dir=state_directory(),
        runtime_dir=runtime_directory(),
    )


def state_directory() -> str:
    """Where what is remembered between deployments lives: the node's, or the caller's cache (D-8)."""
    if os.geteuid() == 0:
        return "/var/cache/snf-image"
    # The specification of base directories: a relative path there counts as not set.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "snf-image")


def runtime_directory() -> str:
    """Below it each deployment makes a private directory for its sockets, whose paths must be short."""
    if os.geteuid() == 0:
        return "/run/snf-image"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK):
        return os.path.join(runtime, "snf-image")
    return tempfile.gettempdir()


def _first(asked: T | None, configured: T) -> T:
    return configured if asked is None else asked
