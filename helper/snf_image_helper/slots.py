"""Slots: virtio disks that the VM has from its start, behind which the host puts the real ones later.

To add a device to a running VM costs its kernel a third of a second under emulation: ACPI, the PCI bus, its
resources. A slot is found once, before there is anything to do. The kernel lets go of it until it is filled,
and so reads size and partitions of what is in it by then.
"""

from __future__ import annotations

import os
from typing import Final

DRIVER: Final = "/sys/bus/virtio/drivers/virtio_blk"
BUS: Final = "/sys/bus/virtio"


def let_go() -> None:
    """Have the kernel forget the slots, which are empty; OSError."""
    for name in sorted(os.listdir(DRIVER)):
        if name.startswith("virtio"):
            _write(f"{DRIVER}/unbind", name)


def take() -> None:
    """Have the kernel take every device that it let go of, in their order on the bus; OSError."""
    # A device's real path has its address on the PCI bus, so that the first disk comes first.
    devices = [os.path.realpath(f"{BUS}/devices/{name}") for name in os.listdir(f"{BUS}/devices")]
    for device in sorted(devices):
        if not os.path.exists(f"{device}/driver"):
            _write(f"{BUS}/drivers_probe", os.path.basename(device))


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
