"""What NTFS has in the place of owner and mode: security descriptors of new files, and short names.

ntfs-3g would give everybody full control of a file it creates, which for a script that Windows runs as
SYSTEM is an invitation. New files inherit from their directory, as they would in Windows, and private ones
are for SYSTEM and the administrators alone. Facts: MS-DTYP, sections 2.4 and 2.5.3.4; ntfs-3g's extended
attributes system.ntfs_acl, system.ntfs_attrib and system.ntfs_dos_name.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import struct
from typing import Final

DESCRIPTOR: Final = "system.ntfs_acl"
KEPT: Final = (DESCRIPTOR, "system.ntfs_attrib")
"""Attributes that a file's successor gets; listing its attributes does not show them."""
SHORT_NAME: Final = "system.ntfs_dos_name"

_OBJECT_INHERIT: Final = 0x01
_CONTAINER_INHERIT: Final = 0x02
_NO_PROPAGATE: Final = 0x04
_INHERIT_ONLY: Final = 0x08
_INHERITED: Final = 0x10
_SELF_RELATIVE: Final = 0x8000
_DACL_PRESENT: Final = 0x0004
_DACL_INHERITED: Final = 0x0400
_DACL_PROTECTED: Final = 0x1000
_FULL_CONTROL: Final = 0x001F01FF
_GENERIC: Final = {
    0x10000000: _FULL_CONTROL,
    0x20000000: 0x001200A0,
    0x40000000: 0x00120116,
    0x80000000: 0x00120089,
}
_ALLOW, _DENY = 0, 1
_MAX_ACES: Final = 256
_MAX_ATTRIBUTE: Final = 65536

_libc = ctypes.CDLL(None, use_errno=True)


def read_attribute(path: str, name: str) -> bytes | None:
    """An attribute of NTFS of what stands at ``path`` in this VM; None where there is none.

    Not by os.getxattr: that begins with a small buffer, and ntfs-3g answers EIO, not ERANGE, to that.
    """
    buffer = ctypes.create_string_buffer(_MAX_ATTRIBUTE)
    size: int = _libc.lgetxattr(os.fsencode(path), name.encode(), buffer, ctypes.c_size_t(_MAX_ATTRIBUTE))
    return buffer.raw[:size] if size > 0 else None


def sid(*numbers: int, authority: int = 5) -> bytes:
    """The binary form of ``S-1-<authority>-<numbers…>``."""
    head = struct.pack("<BB", 1, len(numbers)) + authority.to_bytes(6, "big")
    return head + b"".join(struct.pack("<I", number) for number in numbers)


SYSTEM: Final = sid(18)
ADMINISTRATORS: Final = sid(32, 544)
_CREATOR_OWNER: Final = sid(0, authority=3)
_CREATOR_GROUP: Final = sid(1, authority=3)


@dataclasses.dataclass(frozen=True, slots=True)
class Ace:
    """One entry of an access control list: allows (type 0) or denies (type 1) ``mask`` to ``who``."""

    type: int
    flags: int
    mask: int
    who: bytes

    def packed(self) -> bytes:
        return struct.pack("<BBHI", self.type, self.flags, 8 + len(self.who), self.mask) + self.who


def private(*, directory: bool) -> bytes:
    """A descriptor for SYSTEM and the administrators alone, deaf to what a parent would pass on."""
    flags = _OBJECT_INHERIT | _CONTAINER_INHERIT if directory else 0
    aces = [Ace(_ALLOW, flags, _FULL_CONTROL, who) for who in (SYSTEM, ADMINISTRATORS)]
    return _packed(aces, _DACL_PROTECTED)


def inherited(parent: bytes, *, directory: bool) -> bytes:
    """The descriptor that a new file or directory gets from that of its directory.

    A parent that passes nothing on, or whose descriptor cannot be read, gives a private one.
    """
    aces: list[Ace] = []
    for ace in _aces(parent):
        aces += _passed_on(ace, directory=directory)
    return _packed(aces, _DACL_INHERITED) if aces else private(directory=directory)


def _passed_on(ace: Ace, *, directory: bool) -> list[Ace]:
    wanted = _CONTAINER_INHERIT if directory else _OBJECT_INHERIT
    both = _OBJECT_INHERIT | _CONTAINER_INHERIT
    if not ace.flags & both:
        return []
    further = ace.flags & both if directory and not ace.flags & _NO_PROPAGATE else 0
    if not ace.flags & wanted:
        # Not for a directory itself, but for the files that will be in it.
        return [dataclasses.replace(ace, flags=further | _INHERIT_ONLY | _INHERITED)] if further else []
    effective = Ace(ace.type, _INHERITED | further, _specific(ace.mask), _real(ace.who))
    if effective.who == ace.who and effective.mask == ace.mask:
        return [effective]
    # What stands for something else is passed on as it is, beside what it means here.
    own = dataclasses.replace(effective, flags=_INHERITED)
    return [own, dataclasses.replace(ace, flags=further | _INHERIT_ONLY | _INHERITED)] if further else [own]


def _specific(mask: int) -> int:
    """The mask with generic rights spelled out for a file."""
    for generic, meaning in _GENERIC.items():
        if mask & generic:
            mask = mask & ~generic | meaning
    return mask


def _real(who: bytes) -> bytes:
    return {_CREATOR_OWNER: ADMINISTRATORS, _CREATOR_GROUP: SYSTEM}.get(who, who)


def _aces(descriptor: bytes) -> list[Ace]:
    """The plain entries of a self-relative descriptor; those of other types are left out."""
    try:
        control, offset = struct.unpack_from("<2xH12xI", descriptor)
        if not control & _DACL_PRESENT or not offset:
            return []
        (count,) = struct.unpack_from("<4xH", descriptor, offset)
        at, found = offset + 8, []
        for _ in range(min(count, _MAX_ACES)):
            kind, flags, size, mask = struct.unpack_from("<BBHI", descriptor, at)
            if size < 16:
                break
            if kind in (_ALLOW, _DENY):
                found.append(Ace(kind, flags, mask, descriptor[at + 8 : at + size]))
            at += size
    except struct.error:
        return []
    return found


def _packed(aces: list[Ace], control: int) -> bytes:
    body = b"".join(ace.packed() for ace in aces)
    acl = struct.pack("<BxHHxx", 2, 8 + len(body), len(aces)) + body
    owner, head = ADMINISTRATORS, 20
    offsets = (head, head + len(owner), 0, head + len(owner) + len(SYSTEM))
    control |= _SELF_RELATIVE | _DACL_PRESENT
    return struct.pack("<BxHIIII", 1, control, *offsets) + owner + SYSTEM + acl


def describe_new(parent: int, fd: int, mode: int, *, directory: bool) -> None:
    """Give a new file or directory its descriptor, if it lies on NTFS; elsewhere nothing happens.

    ``parent``: descriptor of its directory (O_PATH will do). ``mode``: one that keeps group and others out
    asks for a private descriptor.
    """
    above = read_attribute(f"/proc/self/fd/{parent}/.", DESCRIPTOR)
    if above is None:  # not NTFS
        return
    descriptor = inherited(above, directory=directory) if mode & 0o077 else private(directory=directory)
    os.setxattr(fd, DESCRIPTOR, descriptor)


def short_name(parent: int, name: str) -> bytes | None:
    """The second, short name that NTFS keeps for old programs; None if there is none."""
    return read_attribute(f"/proc/self/fd/{parent}/{name}", SHORT_NAME)


def copy_kept(parent: int, name: str, target: int) -> None:
    """Give the descriptor and the attributes of a file on NTFS to its successor; elsewhere nothing."""
    for attribute in KEPT:
        value = read_attribute(f"/proc/self/fd/{parent}/{name}", attribute)
        if value is not None:
            os.setxattr(target, attribute, value)


def give_short_name(parent: int, name: str, short: bytes) -> None:
    """Give a file back the short name of its predecessor; it may be taken, and nothing depends on it."""
    with contextlib.suppress(OSError):
        os.setxattr(f"/proc/self/fd/{parent}/{name}", SHORT_NAME, short, follow_symlinks=False)
