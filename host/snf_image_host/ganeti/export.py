"""``export``: a disk, byte for byte, to standard output (R-SCR-EXPORT-1).

Holes of a file are not read but sent as zeros, so that what is compressed behind us is small and fast.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

from snf_image_host.deployment import TargetDisk
from snf_image_host.disks import OpenDisk, open_disks
from snf_image_host.errors import NodeError
from snf_image_host.extents import extents
from snf_image_host.ganeti.call import Call
from snf_image_host.ganeti.environment import (
    check_api_version,
    read_descriptor,
    read_name,
    read_path,
)
from snf_image_host.parameters.problems import Problems

_STEP: Final = 1024 * 1024


def export(call: Call) -> None:
    """Nothing but the disk goes to standard output; its size goes where Ganeti wants to know it."""
    problems = Problems()
    check_api_version(call.environment, problems)
    call.name = read_name(call.environment, "INSTANCE_NAME", problems)
    for variable in ("HYPERVISOR", "DISK_COUNT"):
        if not call.environment.get(variable):
            problems.error(f"{variable} is missing")
    path = read_path(call.environment, "EXPORT", problems)
    size_fd = read_descriptor(call.environment, "EXP_SIZE_FD", problems)
    problems.raise_user_error()
    disk = TargetDisk(index=0, path=path or "", read_only=True)
    with open_disks((disk,)) as (opened,):
        if size_fd is not None:
            _tell_size(size_fd, opened.size)
        send(opened, sys.stdout.fileno())


def _tell_size(fd: int, size: int) -> None:
    try:
        os.write(fd, f"{size}\n".encode("ascii"))
        os.close(fd)
    except OSError as error:
        raise NodeError(f"the size of the disk cannot be told on EXP_SIZE_FD: {error.strerror}") from None


def send(disk: OpenDisk, output: int) -> None:
    """All bytes of ``disk`` to the descriptor ``output``; :class:`NodeError` if either fails."""
    zeros = memoryview(bytes(_STEP))
    with contextlib.suppress(OSError):
        os.posix_fadvise(disk.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    for extent in extents(disk.fd, disk.size):
        for offset, length in extent.parts(_STEP):
            data = zeros[:length] if extent.is_hole else memoryview(_read(disk, offset, length))
            _write(output, data)


def _read(disk: OpenDisk, offset: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        try:
            part = os.pread(disk.fd, length, offset)
        except OSError as error:
            raise NodeError(f"{disk.path} cannot be read at byte {offset}: {error.strerror}") from None
        if not part:
            raise NodeError(f"{disk.path} ended early, at byte {offset}")
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(output: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(output, data) :]
        except OSError as error:
            raise NodeError(f"the dump cannot be written: {error.strerror}") from None
