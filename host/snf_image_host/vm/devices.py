"""The helper VM's devices as qemu's JSON, for the command line and for QMP alike.

JSON because it has no separator that a value could contain (T-28). Everything is stated: nothing is left
to a default of qemu's that another release may change.
"""

from __future__ import annotations

from typing import Any, Final

from snf_image_contract.job import HELPER_SERIAL

Json = dict[str, Any]

ROOT_NODE: Final = "helper-root"
# Slots of the PCI bus. 0 and 1 are the machine's own bridge.
_SCSI_SLOT: Final = 2
_RNG_SLOT: Final = 3
FIRST_DISK_SLOT: Final = 4
SLOTS: Final = 32


def raw_node(
    *, node: str, fdset: int, is_block: bool, read_only: bool, direct: bool = False, discard: bool = False
) -> Json:
    """A block node of raw bytes on a descriptor that qemu was given; formats are never probed (T-32)."""
    return {
        "driver": "raw",
        "node-name": node,
        "read-only": read_only,
        "discard": "unmap" if discard else "ignore",
        "cache": {"direct": direct, "no-flush": False},
        "file": {
            "driver": "host_device" if is_block else "file",
            "filename": f"/dev/fdset/{fdset}",
            # The disk is locked by the host process, for the whole deployment (R-DST-LOCAL-3).
            "locking": "off",
        },
    }


def served_node(*, node: str, connection: str, export: str, read_only: bool) -> Json:
    """A block node of raw bytes behind a connection that qemu was given under a name."""
    return {
        "driver": "raw",
        "node-name": node,
        "read-only": read_only,
        "discard": "ignore" if read_only else "unmap",
        "file": {"driver": "nbd", "server": {"type": "fd", "str": connection}, "export": export},
    }


def virtio_disk(*, node: str, serial: str, slot: int) -> Json:
    """A virtio block device. Errors go to the guest: a VM that stops on a full disk would only hang."""
    return {
        "driver": "virtio-blk-pci",
        "id": f"{node}-device",
        "drive": node,
        "serial": serial,
        "addr": f"0x{slot:x}",
        "num-queues": 1,
        "rerror": "report",
        "werror": "report",
    }


def root_disk() -> tuple[Json, Json]:
    """The helper's own root on a bus of its own, so that the instance's disks begin with vda (D-19)."""
    controller = {"driver": "virtio-scsi-pci", "id": "scsi", "addr": f"0x{_SCSI_SLOT:x}", "num_queues": 1}
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
    return {"driver": "virtio-rng-pci", "rng": "rng", "addr": f"0x{_RNG_SLOT:x}"}
