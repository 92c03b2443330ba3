"""What each task does for Linux."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.families import Family, Later

FAMILY: Final = Family(
    name=OsFamily.LINUX,
    default_users=("root",),
    initialize_datasource=Later("linux.cloud_init", "initialize_datasource"),
    filesystem_resize_mounted=Later("linux.resize_mounted", "resize_mounted"),
    add_swap=Later("linux.swap", "add_swap"),
    assign_hostname=Later("linux.hostname", "assign_hostname"),
    change_machine_id=Later("linux.machine_id", "change_machine_id"),
    change_password=Later("linux.password", "change_password"),
    configure_network=Later("linux.network", "configure_network"),
    delete_ssh_keys=Later("linux.ssh_host_keys", "delete_ssh_keys"),
    selinux_autorelabel=Later("linux.selinux", "selinux_autorelabel"),
    enforce_personality=Later("unix.personality", "enforce_personality"),
)
