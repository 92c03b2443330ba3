"""Adding disks to a helper VM that runs: a descriptor over QMP, a node on it, a device on that.

Each disk is opened anew from the descriptor that the host holds, so that the access mode is exactly what
qemu will use it for, and so that flags set by one side do not change the other's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
from collections.abc import Iterator
from typing import Protocol

from snf_image_contract.job import disk_serial
from snf_image_host.disks import ServedDisk
from snf_image_host.errors import NodeError
from snf_image_host.vm import devices
from snf_image_host.vm.commandline import ColdDisk
from snf_image_host.vm.qmp import Qmp, QmpError


class HelperDisk(Protocol):
    """A disk of the instance as the host has it open. ``size`` in bytes."""

    @property
    def fd(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def is_block(self) -> bool: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """A descriptor of its own for qemu; ``direct``: it bypasses the page cache."""

    fd: int
    direct: bool


def reopen(fd: int, *, read_only: bool) -> Reopened:
    """Open the file behind ``fd`` once more, without the page cache where the target allows.

    The mode must be exact: qemu refuses a writable descriptor for a read-only node.
    """
    flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
    path = f"/proc/self/fd/{fd}"
    try:
        return Reopened(fd=os.open(path, flags | os.O_DIRECT), direct=True)
    except OSError:
        pass  # no direct access there
    try:
        return Reopened(fd=os.open(path, flags), direct=False)
    except OSError as error:
        name = os.path.basename(os.readlink(path))
        raise NodeError(f"disk {name} cannot be opened for the helper VM: {error.strerror}") from None


def cold_disk(disk: HelperDisk) -> ColdDisk:
    """The disk for a VM that has it from the start; the descriptor in it is to be closed by the caller."""
    opened = reopen(disk.fd, read_only=disk.read_only)
    return ColdDisk(
        fd=opened.fd,
        serial=disk_serial(disk.index),
        is_block=disk.is_block,
        read_only=disk.read_only,
        direct=opened.direct,
    )


class DiskAdder:
    """Gives a running VM its disks, one after the other.

    The first disk and the medium come behind the devices that the VM has for them, whose mode is theirs;
    every other disk becomes a device of its own, at rising PCI addresses.
    """

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._address = devices.FIRST_DISK_ADDRESS + 1

    def add_disk(self, disk: HelperDisk | ServedDisk) -> None:
        """Add a disk of the instance under its serial; :class:`NodeError` if that cannot be."""
        if isinstance(disk, ServedDisk):
            self._add_served(disk)
            return
        opened = reopen(disk.fd, read_only=disk.read_only)
        mode = devices.Mode(read_only=disk.read_only, direct=opened.direct, discard=not disk.read_only)
        try:
            with self._told(disk.index):
                file = self._file(opened.fd, is_block=disk.is_block)
                self._add(disk, file, mode)
        finally:
            os.close(opened.fd)

    def add_medium(self, fd: int) -> None:
        """Add the parameter medium, read-only; it comes last."""
        node = devices.MEDIUM_NODE
        with self._told(None):
            self._put(node, self._file(fd, is_block=False), devices.Mode(read_only=True))

    def _add_served(self, disk: ServedDisk) -> None:
        """A disk behind a URI: the VM gets a connection and never learns the URI."""
        name = f"server-{disk.index}"
        mode = devices.Mode(read_only=disk.read_only, discard=not disk.read_only)
        with disk.connect() as connection, self._told(disk.index):
            connection.settimeout(None)
            self._qmp.execute("getfd", {"fdname": name}, fds=(connection.fileno(),))
            self._add(disk, devices.served_node(connection=name, export=disk.export), mode)

    def _file(self, fd: int, *, is_block: bool) -> devices.Json:
        added = self._qmp.execute("add-fd", fds=(fd,))
        return devices.file_node(fdset=added["fdset-id"], is_block=is_block)

    def _add(self, disk: HelperDisk | ServedDisk, below: devices.Json, mode: devices.Mode) -> None:
        node = f"disk-{disk.index}"
        if node == devices.FIRST_DISK_NODE:
            self._put(node, below, mode)
            if not mode.read_only:
                # It has that size already; this is what tells the guest's kernel.
                self._qmp.execute("block_resize", {"node-name": node, "size": disk.size})
            return
        self._qmp.execute("blockdev-add", devices.raw_node(node=node, file=below, mode=mode))
        device = devices.virtio_disk(node=node, serial=disk_serial(disk.index), address=self._address)
        self._qmp.execute("device_add", device)
        self._address += 1

    def _put(self, node: str, below: devices.Json, mode: devices.Mode) -> None:
        """Behind the device that is there for it."""
        file = f"{node}-file"
        self._qmp.execute("blockdev-add", devices.named(file, below, mode))
        reopened = devices.raw_node(node=node, file=file, mode=mode)
        self._qmp.execute("blockdev-reopen", {"options": [reopened]})

    @contextlib.contextmanager
    def _told(self, index: int | None) -> Iterator[None]:
        """``index`` None: the medium."""
        if index is not None and self._address >= devices.MEDIUM_ADDRESS:
            most = devices.MEDIUM_ADDRESS - devices.FIRST_DISK_ADDRESS
            raise NodeError(f"the helper VM takes at most {most} disks")
        what = "the parameter medium" if index is None else f"disk {index}"
        try:
            yield
        except (QmpError, KeyError, TypeError) as error:
            raise NodeError(f"{what} could not be added to the helper VM", details=(str(error),)) from None


def forbid_growth(pid: int, disks: tuple[HelperDisk | ServedDisk, ...]) -> None:
    """Keep a VM that was taken over from filling the node through a disk that is a file.

    No file of its may grow beyond the largest disk. The kernel does not count block devices.
    """
    files = (disk for disk in disks if not isinstance(disk, ServedDisk) and not disk.is_block)
    largest = max((disk.size for disk in files), default=0)
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, largest))
    except OSError:
        return  # it is gone, which is found out elsewhere
