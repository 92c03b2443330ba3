"""Slots: virtio disks that the VM has from its start, behind which the host puts the real ones later.

To add a device to a running VM costs its kernel a third of a second under emulation: ACPI, the PCI bus,
resources. A slot is found once, before there is anything to do.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from snf_image_contract.job import PARAMETER_SERIAL, disk_serial
from snf_image_helper.disks import BLKRRPART, SYS_BLOCK, attribute, by_serial
from snf_image_helper.errors import TaskError

DRIVER: Final = "/sys/bus/virtio/drivers/virtio_blk"


class Slots:
    """The slots of the instance's first disk and of the medium, both empty still; :class:`TaskError`."""

    def __init__(self) -> None:
        present = by_serial()
        self.medium = f"/dev/{_slot(present, PARAMETER_SERIAL)}"
        """Device node. It has the size that media have, so that there is nothing to take."""
        self._disk = _slot(present, disk_serial(0))
        self._empty_size = attribute(self._disk, "size")

    def take_disk(self) -> None:
        """Have the kernel see the size and the partitions of the disk that is in the slot now; OSError.

        The host tells the kernel of the new size, but cannot for a disk that must not be written to: that the
        kernel finds by driving the device anew, which takes longer.
        """
        if attribute(self._disk, "size") == self._empty_size:
            device = os.path.basename(os.readlink(f"{SYS_BLOCK}/{self._disk}/device"))
            for action in ("unbind", "bind"):
                _write(f"{DRIVER}/{action}", device)
            return
        fd = os.open(f"/dev/{self._disk}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, BLKRRPART)
        finally:
            os.close(fd)


def _slot(present: dict[str, str], serial: str) -> str:
    name = present.get(serial)
    if name is None:
        raise TaskError(f"there is no slot for disk {serial}")
    return name


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
