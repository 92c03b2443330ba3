"""The helper VM's devices as qemu's JSON, for the command line and for QMP alike.

JSON because it has no separator that a value could contain (T-28). Everything is stated: nothing is left
to a default of qemu's that another release may change.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from snf_image_contract.job import HELPER_SERIAL

Json = dict[str, Any]

ROOT_NODE: Final = "helper-root"
# Addresses on the PCI bus. 0 and 1 are the machine's own bridge.
_SCSI_ADDRESS: Final = 2
_RNG_ADDRESS: Final = 3
FIRST_DISK_ADDRESS: Final = 4
MEDIUM_ADDRESS: Final = 31
FIRST_DISK_NODE: Final = "disk-0"
MEDIUM_NODE: Final = "parameters"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How a disk is used. ``direct``: past the page cache; ``discard``: what the guest discards is freed."""

    read_only: bool
    direct: bool = False
    discard: bool = False

    def options(self) -> Json:
        return {
            "read-only": self.read_only,
            "discard": "unmap" if self.discard else "ignore",
            "cache": {"direct": self.direct, "no-flush": False},
        }


def raw_node(*, node: str, file: Json | str, mode: Mode) -> Json:
    """A block node of raw bytes, of another node or on a new one; formats are never probed (T-32)."""
    return {"driver": "raw", "node-name": node, **mode.options(), "file": file}


def file_node(*, fdset: int, is_block: bool) -> Json:
    """What is below it: a file or a block device, on a descriptor that qemu was given."""
    return {
        "driver": "host_device" if is_block else "file",
        "filename": f"/dev/fdset/{fdset}",
        # The disk is locked by the host process, for the whole deployment (R-DST-LOCAL-3).
        "locking": "off",
    }


def served_node(*, connection: str, export: str) -> Json:
    """The same behind a connection that qemu was given under a name."""
    return {"driver": "nbd", "server": {"type": "fd", "str": connection}, "export": export}


def empty_node(size: int) -> Json:
    """The same while the disk is still to come: ``size`` zeros."""
    return {"driver": "null-co", "size": size, "read-zeroes": True}


def named(node: str, below: Json, mode: Mode) -> Json:
    """``below`` as a node of its own, for :func:`raw_node` to name."""
    return {"node-name": node, **mode.options(), **below}


def virtio_disk(*, node: str, serial: str, address: int) -> Json:
    """A virtio block device. Errors go to the guest: a VM that stops on a full disk would only hang."""
    return {
        "driver": "virtio-blk-pci",
        "id": f"{node}-device",
        "drive": node,
        "serial": serial,
        "addr": f"0x{address:x}",
        "num-queues": 1,
        "rerror": "report",
        "werror": "report",
    }


def root_disk() -> tuple[Json, Json]:
    """The helper's own root on a bus of its own, so that the instance's disks begin with vda (D-19)."""
    controller = {"driver": "virtio-scsi-pci", "id": "scsi", "addr": f"0x{_SCSI_ADDRESS:x}", "num_queues": 1}
    disk = {
        "driver": "scsi-hd",
        "bus": "scsi.0",
        "drive": ROOT_NODE,
        "serial": HELPER_SERIAL,
        "rerror": "report",
        "werror": "report",
    }
    return controller, disk


def floppy(*, node: str) -> Json:
    """The first floppy drive, for foreign helpers."""
    return {"driver": "floppy", "drive": node, "unit": 0}


def random_device() -> Json:
    """Feeds the guest's random number generator (R-HLP-3); its back-end is ``rng``."""
    return {"driver": "virtio-rng-pci", "rng": "rng", "addr": f"0x{_RNG_ADDRESS:x}"}
