"""Every variable of the node's configuration: what of a plan it decides, and what else reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.configuration.variables import VARIABLES, Variable, parse_account
from snf_image_host.deployment import (
    DiskServing,
    FetchPolicy,
    HelperSettings,
    SourceSettings,
    TargetDisk,
    Verification,
)
from snf_image_host.plan import plan
from snf_image_host.planning.request import AskedImage, Request

DECIDED: Final[Mapping[str, tuple[str, ...]]] = {
    "CLOUD_INIT_DEBUG": ("job.cloud_init_debug",),
    "HELPER_DIR": ("helper.directory",),
    "HELPER_SOFT_TIMEOUT": ("helper.soft_timeout",),
    "HELPER_HARD_TIMEOUT": ("helper.hard_timeout",),
    "HELPER_USER": ("helper.user",),
    "HELPER_UID_RANGE": ("helper.uid_range", "serving.uid_range", "image.settings.uid_range"),
    "HELPER_MEMORY": ("helper.memory",),
    "HELPER_CPUS": ("helper.cpus",),
    "HELPER_DEBUG": ("helper.debug",),
    "HELPER_ACCEL": ("helper.accelerator",),
    "HELPER_WARM": ("helper.warm",),
    "HELPER_PARALLEL": ("helper.parallel",),
    "HELPER_WAIT_TIMEOUT": ("helper.wait_timeout",),
    "HELPER_TCG_TIMEOUT_FACTOR": ("helper.tcg_factor",),
    "HELPER_PROTOCOL": ("helper.protocol",),
    "QEMU": ("helper.qemu", "image.settings.qemu"),
    "QEMU_NBD": ("serving.qemu_nbd",),
    "DISK_URI_USER": ("serving.user",),
    "PARAM_MEDIUM": ("helper.param_medium",),
    "MONITOR_MAX_MESSAGES": ("helper.max_messages",),
    "DNS_SERVERS": ("job.configure_network.dns_servers",),
    "DNS_SEARCH": ("job.configure_network.dns_search",),
    "WINDOWS_TIMEZONE": ("job.install_unattend.time_zone",),
    "IMAGE_DIR": ("image.settings.image_dir",),
    "IMAGE_DIR_ALLOW_SYMLINKS": ("image.settings.allow_symlinks",),
    "IMAGE_CONTAINERS": ("image.settings.containers",),
    "IMAGE_VERIFY": ("image.verification.policy",),
    "TRUSTED_KEYS_DIR": ("image.verification.trusted_keys",),
    "SPOOL_DIR": ("image.settings.spool_dir",),
    "SPOOL_MAX_SIZE": ("image.settings.spool_max",),
    "IMAGE_CACHE_DIR": ("image.settings.cache_dir",),
    "IMAGE_CACHE_SIZE": ("image.settings.cache_size",),
    "COPY_IDLE_TIMEOUT": ("copy_idle_timeout", "image.settings.fetch.idle_timeout"),
    "WIPE_TAIL": ("wipe_tail",),
    "FETCH_ALLOWED_SCHEMES": ("image.settings.fetch.schemes",),
    "FETCH_ALLOWED_HOSTS": ("image.settings.fetch.hosts",),
    "FETCH_ALLOW_PRIVATE": ("image.settings.fetch.allow_private",),
    "FETCH_MAX_REDIRECTS": ("image.settings.fetch.max_redirects",),
    "FETCH_TIMEOUT": ("image.settings.fetch.timeout",),
    "FETCH_MIN_RATE": ("image.settings.fetch.min_rate",),
    "FETCH_USER": ("image.settings.fetch.user",),
    "FETCH_INSECURE": ("image.settings.fetch.insecure",),
    "FETCH_CA_FILE": ("image.settings.fetch.ca_file",),
}
"""Where the value of a variable is found in what is decided."""
ELSEWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("IMAGE_DEBUG", "PROGRESS_MONITOR"), "whoever runs the plan reports accordingly"),
    **dict.fromkeys(("LOG_DIR", "LOG_KEEP", "LOG_MAX_SIZE"), "the scripts of Ganeti keep receipts"),
    **dict.fromkeys(("HELPER_URL", "HELPER_SHA256"), "snf-image-update-helper fetches the helper image"),
    "VARIANTS_DIR": "variants change what is asked, before the plan",
    "RENAME_GUEST": "the script rename asks for a plan, or not",
    "IMPORT_GROW": "the script import asks for a plan, or not",
    **dict.fromkeys(
        ("DHCP_TAGS", "STATEFUL_DHCPV6_TAGS", "STATELESS_DHCPV6_TAGS", "DEFAULT_NIC_CONFIG"),
        "of an instance that has an interface: test_plan_network.py",
    ),
    **dict.fromkeys(("UNATTEND", "ANSWER_FILE_DIR"), "files for a Windows: what is in them is decided"),
    "FETCH_MAX_PARAM_SIZE": "bounds documents that the plan itself fetches: test_plan_documents.py",
    **dict.fromkeys(
        ("ALLOW_CUSTOM_TASK", "ALLOW_TASK_OVERWRITING", "PERSONALITY_MAX_FILES", "PERSONALITY_MAX_SIZE"),
        "whether what is asked is refused: test_parameters_checks.py",
    ),
}
"""Variables that change nothing of a plain deployment, and why."""
NOT_CONFIGURED: Final = {
    *("helper.start_timeout", "helper.state_dir"),
    *("helper.runtime_dir", "serving.runtime_dir", "image.settings.runtime_dir"),
    *("image.verification.sha512", "image.verification.checksums", "image.verification.signature"),
}
"""Settings that are the request's, the caller's, or fixed."""
SETTINGS: Final = {
    "helper": HelperSettings,
    "serving": DiskServing,
    "image.settings": SourceSettings,
    "image.settings.fetch": FetchPolicy,
    "image.verification": Verification,
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What a dataclass says, and those in it, by the way to it."""
    for field in dataclasses.fields(value):
        inner, name = getattr(value, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{name}.")
        else:
            yield name, inner


def decided(**changes: Any) -> dict[str, Any]:
    """The plan of a plain deployment, with this configuration."""
    request = Request(
        action="deploy",
        image=AskedImage(path="/images/debian.raw", shown="debian.raw"),
        disks=(TargetDisk(index=0, path="/disks/web0.raw"),),
        # UNATTEND is read for what may be a Windows.
        parameters={"img_format": Secret("diskdump"), "img_properties": Secret('{"OSFAMILY": "linux"}')},
    )
    return dict(leaves(plan(request, NodeConfig.defaults(**changes), clock=1790000000.0)))


def another(row: Variable) -> Any:
    """A value that is not the default."""
    return row.parse("nobody" if row.parse is parse_account else row.example)


@pytest.mark.parametrize("row", VARIABLES, ids=lambda row: row.name)
def test_a_variable_decides_what_it_is_for_and_nothing_else(row: Variable) -> None:
    """R-CONF-1: each is in one of the two tables, so that none can be forgotten."""
    value, before = another(row), decided()
    after = decided(**{row.field: value})
    changed = {path: after[path] for path in after if after[path] != before[path]}
    wanted = frozenset(value) if row.name == "IMAGE_CONTAINERS" else value
    assert changed == dict.fromkeys(DECIDED.get(row.name, ()), wanted)
    assert (row.name in DECIDED) != (row.name in ELSEWHERE)


def test_no_setting_is_left_to_itself() -> None:
    """R-CONF-1: one that no variable decides, and that is not named here, would be its default for ever."""
    settings = {
        f"{path}.{field.name}" for path, kind in SETTINGS.items() for field in dataclasses.fields(kind)
    }
    of_variables = {path for paths in DECIDED.values() for path in paths}
    assert settings - SETTINGS.keys() == (settings & of_variables) | NOT_CONFIGURED
    assert not of_variables & NOT_CONFIGURED
