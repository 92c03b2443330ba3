"""What each task does for Linux."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.families import Family
from snf_image_helper.guest import Guest
from snf_image_helper.linux.cloud_init import initialize_datasource
from snf_image_helper.linux.hostname import assign_hostname
from snf_image_helper.linux.machine_id import change_machine_id
from snf_image_helper.linux.password import change_password
from snf_image_helper.linux.resize_mounted import resize_mounted
from snf_image_helper.linux.selinux import selinux_autorelabel
from snf_image_helper.linux.ssh_host_keys import delete_ssh_keys
from snf_image_helper.linux.swap import add_swap
from snf_image_helper.unix.personality import enforce_personality


def configure_network(guest: Guest) -> None:
    """As :func:`snf_image_helper.linux.network.configure_network`, imported where an interface was given."""
    from snf_image_helper.linux import network  # noqa: PLC0415 - fifteen modules, which many jobs do not need

    network.configure_network(guest)


FAMILY: Final = Family(
    name=OsFamily.LINUX,
    default_users=("root",),
    initialize_datasource=initialize_datasource,
    filesystem_resize_mounted=resize_mounted,
    add_swap=add_swap,
    assign_hostname=assign_hostname,
    change_machine_id=change_machine_id,
    change_password=change_password,
    configure_network=configure_network,
    delete_ssh_keys=delete_ssh_keys,
    selinux_autorelabel=selinux_autorelabel,
    enforce_personality=enforce_personality,
)
