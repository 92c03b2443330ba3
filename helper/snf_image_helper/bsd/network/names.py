"""What the kernels of the BSDs call the NICs of a job: driver and index (R-NET-BSD-1)."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.bsd.release import version_of
from snf_image_helper.errors import RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network.interfaces import Interface, interfaces_of

Drivers = Mapping[OsFamily, tuple[str, ...]]


def _drivers(freebsd: tuple[str, ...], openbsd: tuple[str, ...], netbsd: tuple[str, ...]) -> Drivers:
    return {OsFamily.FREEBSD: freebsd, OsFamily.OPENBSD: openbsd, OsFamily.NETBSD: netbsd}


_NE2000: Final = _drivers(("ed",), ("ne",), ("ne",))
_INTEL100: Final = _drivers(("fxp",), ("fxp",), ("fxp",))
_DRIVERS: Final[Mapping[str, Drivers]] = {
    "": _drivers(("vtnet",), ("vio",), ("vioif",)),
    "paravirtual": _drivers(("vtnet",), ("vio",), ("vioif",)),
    # Which of the two drives it depends on the revision of the emulated chip: both get the configuration.
    "rtl8139": _drivers(("rl", "re"), ("rl", "re"), ("re",)),
    "ne2k_isa": _NE2000,
    "ne2k_pci": _NE2000,
    "i82551": _INTEL100,
    "i82557b": _INTEL100,
    "i82559er": _INTEL100,
    "pcnet": _drivers(("pcn",), ("pcn",), ("pcn",)),
    "e1000": _drivers(("em",), ("em",), ("wm",)),
}
_GONE_FROM_FREEBSD: Final = ("ed", "pcn")
_FREEBSD_LAST: Final = 12


def interfaces(guest: Guest) -> tuple[Interface, ...]:
    """The NICs by every name that they may have; :class:`RequestError` for a model without a driver."""
    asked = guest.job.configure_network
    counts: collections.Counter[str] = collections.Counter()
    found: list[Interface] = []
    for index, nic in enumerate(asked.nics):
        for driver in _drivers_of(guest, index, nic.model):
            names = tuple(f"{driver}{counts[driver]}" for _ in asked.nics)
            counts[driver] += 1
            found.append(interfaces_of(asked, names)[index])
    return tuple(found)


def _drivers_of(guest: Guest, index: int, model: str) -> tuple[str, ...]:
    family = guest.family.name
    drivers = _DRIVERS.get(model)
    if drivers is None:
        raise RequestError(f"NIC {index}: {family} has no driver known for model {model!r}")
    if family is OsFamily.FREEBSD and drivers[family][0] in _GONE_FROM_FREEBSD:
        release = version_of(guest)
        if release[0] > _FREEBSD_LAST:
            raise RequestError(
                f"NIC {index}: FreeBSD {release[0]} no longer has a driver for {model}; use paravirtual"
            )
    return drivers[family]
