"""What the three BSDs have in common: all but the network."""

from __future__ import annotations

from snf_image_contract.names import OsFamily
from snf_image_helper.bsd.hostname import assign_hostname
from snf_image_helper.bsd.password import change_password
from snf_image_helper.errors import RequestError
from snf_image_helper.families import Action, Family
from snf_image_helper.guest import Guest
from snf_image_helper.unix.personality import enforce_personality
from snf_image_helper.unix.ssh_host_keys import remove_host_keys


def bsd_family(name: OsFamily, configure_network: Action) -> Family:
    """The table of one BSD."""
    return Family(
        name=name,
        default_users=("root",),
        initialize_datasource=refuse_cloud_init,
        assign_hostname=assign_hostname,
        change_password=change_password,
        configure_network=with_backend_checked(configure_network),
        delete_ssh_keys=delete_ssh_keys,
        enforce_personality=enforce_personality,
    )


def refuse_cloud_init(guest: Guest) -> None:
    """Images that configure themselves are supported of Linux only (R-NET-13: rc.conf is what counts)."""
    if guest.job.cloud_init:
        raise RequestError(
            f"CLOUD_INIT=yes is supported for Linux only, and this image holds {guest.family.name}"
        )


def with_backend_checked(configure_network: Action) -> Action:
    """A BSD has one back-end; another one that was asked for is an error, ``none`` leaves all alone."""

    def configure(guest: Guest) -> None:
        backend = guest.job.configure_network.backend
        if backend == "none":
            return
        if backend is not None and backend != guest.family.name:
            raise RequestError(f"NET_BACKEND={backend} is not for {guest.family.name} images")
        configure_network(guest)

    return configure


def delete_ssh_keys(guest: Guest) -> None:
    """No two instances of one image share a host key; missing ones are made at boot (R-TASK-SSH-2)."""
    remove_host_keys(guest)
