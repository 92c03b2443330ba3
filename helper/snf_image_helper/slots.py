"""Slots: virtio disks that the VM has from its start, behind which the host puts the real ones later.

To add a device to a running VM costs its kernel a third of a second under emulation: ACPI, the PCI bus,
resources. A slot is found once, before there is anything to do. The medium's has the size that media have.
The first disk's has not: the kernel lets go of it until it is filled, and then finds its size and partitions.
"""

from __future__ import annotations

import os
from typing import Final

from snf_image_contract.job import disk_serial
from snf_image_helper.errors import TaskError

SYS_BLOCK: Final = "/sys/block"
DRIVER: Final = "/sys/bus/virtio/drivers/virtio_blk"


class FirstDiskSlot:
    """The slot of the instance's first disk, empty and let go of; OSError and :class:`TaskError`."""

    def __init__(self) -> None:
        self._device = _device_of(disk_serial(0))
        _write(f"{DRIVER}/unbind", self._device)

    def take(self) -> None:
        """Have the kernel drive what is in the slot now; OSError."""
        _write(f"{DRIVER}/bind", self._device)


def _device_of(serial: str) -> str:
    """Its name on the virtio bus."""
    for name in sorted(os.listdir(SYS_BLOCK)):
        path = f"{SYS_BLOCK}/{name}/serial"
        if not os.path.exists(path):
            continue
        with open(path, encoding="ascii") as file:
            if file.read().strip() == serial:
                return os.path.basename(os.readlink(f"{SYS_BLOCK}/{name}/device"))
    raise TaskError(f"there is no slot for disk {serial}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
