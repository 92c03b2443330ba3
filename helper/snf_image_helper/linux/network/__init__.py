"""Task ConfigureNetwork for Linux: one back-end, chosen by what the image has, told about each NIC.

The host has decided what each NIC gets; here it is written down in the words of the image's own software.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from snf_image_contract.job import NetworkBackend
from snf_image_helper.errors import RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init as guest_cloud_init
from snf_image_helper.linux.distribution import Distribution, LinuxFamily, identify
from snf_image_helper.linux.network import (
    choice,
    cloud_init,
    ifcfg,
    ifupdown,
    names,
    netifrc,
    netplan,
    networkd,
    nm,
    rc_inet1,
    rivals,
    wicked,
)
from snf_image_helper.linux.network.interfaces import Interface, interfaces_of

__all__ = ["chosen_backend", "configure_network"]

Configure = Callable[[Guest, tuple[Interface, ...]], None]


def configure_network(guest: Guest) -> None:
    """Write the configuration of every NIC (R-NET-11, R-NET-12)."""
    asked = guest.job.configure_network
    system = identify(guest.root)
    backend = _backend(guest, system)
    if backend == "none":
        return
    if backend is None:
        guest.warn(
            f"no way to configure the network of this image was found (family {system.family}): "
            "set property NET_BACKEND to one that it has"
        )
        return
    configure = _BACKENDS.get(backend)
    if configure is None:
        raise RequestError(f"NET_BACKEND={backend} is not for Linux images")
    if not asked.nics and backend != "ifupdown":
        return
    interfaces = interfaces_of(asked, names.kernel_names(guest, asked.nics))
    names.move_stale_rules(guest, asked.nics)
    if _needs_kernel_names(guest, backend):
        names.write_renames(guest, asked.nics)
    rivals.silence(guest, backend, interfaces)
    configure(guest, interfaces)


def chosen_backend(guest: Guest) -> str:
    """The back-end that this job would use on this image, ``none`` if there is none; nothing is written."""
    return _backend(guest, identify(guest.root)) or "none"


def _backend(guest: Guest, system: Distribution) -> NetworkBackend | None:
    asked = guest.job.configure_network.backend
    backend = asked or choice.choose(guest.root, system)
    if backend is None and guest.job.cloud_init and guest_cloud_init.is_installed(guest):
        return "cloud-init"
    return backend


def _needs_kernel_names(guest: Guest, backend: NetworkBackend) -> bool:
    return backend in ("ifupdown", "wicked", "netifrc", "rc.inet1") or (
        backend == "ifcfg" and _names_devices(guest)
    )


def _names_devices(guest: Guest) -> bool:
    """Whether ifcfg files name the kernel's device, as those of Enterprise Linux 6 do."""
    return identify(guest.root).version.partition(".")[0] in ("5", "6")


def _configure_ifupdown(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    alpine = identify(guest.root).family is LinuxFamily.ALPINE
    ifupdown.configure(guest, interfaces, alpine=alpine)


def _configure_ifcfg(guest: Guest, interfaces: tuple[Interface, ...]) -> None:
    ifcfg.configure(guest, interfaces, by_device=_names_devices(guest))


_BACKENDS: Final[dict[NetworkBackend, Configure]] = {
    "ifupdown": _configure_ifupdown,
    "ifcfg": _configure_ifcfg,
    "nm": nm.configure,
    "netplan": netplan.configure,
    "networkd": networkd.configure,
    "wicked": wicked.configure,
    "netifrc": netifrc.configure,
    "rc.inet1": rc_inet1.configure,
    "cloud-init": cloud_init.configure,
}
