"""``export``: a disk, byte for byte, to standard output (R-SCR-EXPORT-1).

Holes of a file are not read but sent as zeros, so that what is compressed behind us is small and fast.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

from snf_image_host.copying.served import ServedTarget
from snf_image_host.deployment import DiskServing
from snf_image_host.disk_server import open_every_disk
from snf_image_host.disks import Disk, OpenDisk, ServedDisk
from snf_image_host.errors import NodeError
from snf_image_host.extents import extents
from snf_image_host.ganeti.call import Call
from snf_image_host.ganeti.environment import (
    check_api_version,
    read_descriptor,
    read_disk,
    read_name,
    read_variant,
)
from snf_image_host.ganeti.node_files import load_node_config
from snf_image_host.parameters.problems import Problems
from snf_image_host.planning.disk_serving import disk_serving
from snf_image_host.reporter import Reporter
from snf_image_host.sinks import Lines

_STEP: Final = 1024 * 1024


def export(call: Call) -> None:
    """Nothing but the disk goes to standard output; its size goes where Ganeti wants to know it."""
    problems = Problems()
    check_api_version(call.environment, problems)
    call.name = read_name(call.environment, "INSTANCE_NAME", problems)
    for variable in ("HYPERVISOR", "DISK_COUNT"):
        if not call.environment.get(variable):
            problems.error(f"{variable} is missing")
    disk = read_disk(call.environment, "EXPORT", problems, read_only=True)
    variant = read_variant(call.environment, problems)
    size_fd = read_descriptor(call.environment, "EXP_SIZE_FD", problems)
    problems.raise_user_error()
    assert disk is not None  # noqa: S101 - or there was a problem
    # Only a disk with a URI needs to know anything of the node's configuration.
    serving = DiskServing() if disk.uri is None else disk_serving(load_node_config(call.files, variant))
    with open_every_disk((disk,), serving, Reporter(Lines(call.log))) as (opened,):
        if size_fd is not None:
            _tell_size(size_fd, opened.size)
        send(opened, sys.stdout.fileno())


def _tell_size(fd: int, size: int) -> None:
    try:
        os.write(fd, f"{size}\n".encode("ascii"))
        os.close(fd)
    except OSError as error:
        raise NodeError(f"the size of the disk cannot be told on EXP_SIZE_FD: {error.strerror}") from None


def send(disk: Disk, output: int) -> None:
    """All bytes of ``disk`` to the descriptor ``output``; :class:`NodeError` if either fails."""
    if isinstance(disk, ServedDisk):
        _send_served(disk, output)
        return
    zeros = memoryview(bytes(_STEP))
    with contextlib.suppress(OSError):
        os.posix_fadvise(disk.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    for extent in extents(disk.fd, disk.size):
        for offset, length in extent.parts(_STEP):
            data = zeros[:length] if extent.is_hole else memoryview(_read(disk, offset, length))
            _write(output, data)


def _send_served(disk: ServedDisk, output: int) -> None:
    buffer = memoryview(bytearray(_STEP))
    with ServedTarget(disk) as source:
        for offset in range(0, disk.size, _STEP):
            part = buffer[: min(_STEP, disk.size - offset)]
            source.read_into(part, offset)
            _write(output, part)


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
