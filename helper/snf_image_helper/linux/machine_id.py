"""Task ChangeMachineId (R-TASK-MID-1 to R-TASK-MID-4)."""

from __future__ import annotations

import re
import stat
from typing import Final

from snf_image_contract.job import MachineIdMode
from snf_image_helper import uuids
from snf_image_helper.guest import Guest
from snf_image_helper.linux.distribution import identify

MACHINE_ID: Final = "/etc/machine-id"
DBUS_MACHINE_ID: Final = "/var/lib/dbus/machine-id"
_ID: Final = re.compile(rb"[0-9a-fA-F]{32}\s*\Z")
_KNOWS_UNINITIALIZED: Final = 247
_UNINITIALIZED: Final = b"uninitialized\n"
_RANDOM_SEEDS: Final = (
    "/var/lib/systemd/random-seed",
    "/boot/loader/random-seed",
    "/boot/efi/loader/random-seed",
    "/efi/loader/random-seed",
)


def change_machine_id(guest: Guest) -> None:
    """No two instances of one image share an id, nor the seed of their random numbers."""
    mode = guest.job.change_machine_id.mode
    if mode == "keep":
        return
    old = guest.root.read_optional(MACHINE_ID)
    new = _wanted(guest, mode, old)
    if new is not None and new != old:
        guest.root.write(MACHINE_ID, new, mode=0o444)
    _follow_in_dbus(guest, old if new is None else new)
    for path in _RANDOM_SEEDS:
        if guest.root.is_file(path):
            guest.root.remove(path)


def _wanted(guest: Guest, mode: MachineIdMode, old: bytes | None) -> bytes | None:
    """What the file is to hold; None: it stays as it is.

    With ``auto`` an image that is prepared for its first boot (no file, an empty one, or the word) is left
    alone: systemd then makes the id, and knows that this is a first boot.
    """
    if mode == "auto":
        return _new_id() if old is not None and _ID.match(old) else None
    if mode == "random":
        return _new_id()
    if mode == "uninitialized":
        version = identify(guest.root).systemd_version
        if version is not None and version >= _KNOWS_UNINITIALIZED:
            return _UNINITIALIZED
        guest.warn("systemd of the image is older than 247, or absent: /etc/machine-id is emptied instead")
    return b""


def _new_id() -> bytes:
    """A random id of the bits of a UUID of version 4, from the system's random source."""
    return uuids.new().replace("-", "").encode("ascii") + b"\n"


def _follow_in_dbus(guest: Guest, machine_id: bytes | None) -> None:
    """D-Bus' own copy: the same id, or none, or systemd would take it back at boot (R-TASK-MID-3)."""
    status = guest.root.lstat(DBUS_MACHINE_ID)
    if status is None or stat.S_ISLNK(status.st_mode):
        return
    if machine_id is not None and _ID.match(machine_id):
        guest.root.write(DBUS_MACHINE_ID, machine_id)
    elif guest.root.is_file(DBUS_MACHINE_ID):
        guest.root.remove(DBUS_MACHINE_ID)
