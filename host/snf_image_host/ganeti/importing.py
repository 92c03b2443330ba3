"""``import``: standard input, byte for byte, to a disk (R-SCR-IMPORT-1, D-11).

Zeros are not written where the disk reads as zeros anyway. What makes the disk bootable is written last,
so that a dump that breaks off leaves a disk that does not boot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Final

from snf_image_contract.names import TaskName
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.copying.buffers import Buffer, make_buffers
from snf_image_host.copying.disarming import AnyTarget, disarm, open_target
from snf_image_host.copying.target import MIB
from snf_image_host.deploy import customize
from snf_image_host.deployment import TargetDisk, WipeTail
from snf_image_host.disk_server import open_every_disk
from snf_image_host.disks import Disk
from snf_image_host.errors import NodeError, UserError
from snf_image_host.extents import GRANULE
from snf_image_host.ganeti.call import Call, Run
from snf_image_host.ganeti.environment import (
    check_api_version,
    read_disk,
    read_name,
    read_variant,
)
from snf_image_host.ganeti.node_files import load_node_config
from snf_image_host.parameters.problems import Problems
from snf_image_host.plan import plan
from snf_image_host.planning.disk_serving import disk_serving
from snf_image_host.planning.request import AskedImage, Request
from snf_image_host.reporter import Reporter
from snf_image_host.sinks import Lines

_STEP: Final = 4 * MIB
GROWING_TASKS: Final = frozenset(
    {
        TaskName.FIX_PARTITION_TABLE,
        TaskName.FILESYSTEM_RESIZE_UNMOUNTED,
        TaskName.MOUNT_IMAGE,
        TaskName.FILESYSTEM_RESIZE_MOUNTED,
        TaskName.UMOUNT_IMAGE,
        TaskName.FILESYSTEM_RESIZE_AFTER_UMOUNT,
    }
)
"""What runs on a larger disk 0 with IMPORT_GROW=yes (D-11)."""


def import_disk(call: Call) -> None:
    """OS parameters are neither needed nor looked at (D-11)."""
    problems = Problems()
    check_api_version(call.environment, problems)
    call.name = read_name(call.environment, "INSTANCE_NAME", problems)
    for variable in ("HYPERVISOR", "DISK_COUNT"):
        if not call.environment.get(variable):
            problems.error(f"{variable} is missing")
    disk = read_disk(call.environment, "IMPORT", problems)
    variant = read_variant(call.environment, problems)
    problems.raise_user_error()
    config = dataclasses.replace(load_node_config(call.files, variant), os_parameters={})
    assert disk is not None  # noqa: S101 - or there was a problem
    with open_every_disk((disk,), disk_serving(config), Reporter(Lines(call.log))) as (opened,):
        received = receive(sys.stdin.fileno(), opened, config.wipe_tail)
        size = opened.size
    call.log.write(f"snf-image: {received} bytes were written to a disk of {size}\n")
    if config.import_grow and received < size and call.environment.get("IMPORT_INDEX", "0") == "0":
        _grow(call, config, disk)


def receive(source: int, disk: Disk, wipe_tail: WipeTail) -> int:
    """All bytes of the descriptor ``source`` to ``disk``; how many there were.

    :class:`UserError` for more of them than the disk has, :class:`NodeError` if something fails. Behind the
    dump the last MiB of the disk is emptied, whatever ``wipe_tail`` says of the rest (D-10).
    """
    (buffer,) = make_buffers(1, _STEP)
    try:
        with open_target(disk) as target:
            return _receive(source, target, buffer, wipe_tail)
    except BaseException:
        disarm(disk)
        raise


def _receive(source: int, target: AnyTarget, buffer: Buffer, wipe_tail: WipeTail) -> int:
    disk = target.disk
    disarm(disk)
    at = 0
    head = b""
    for length in _filled(source, buffer):
        if at + length > disk.size:
            _drain(source)
            raise UserError(
                f"the dump is larger than the disk, which has {disk.size} bytes", hint="give it a larger disk"
            )
        first = 0
        if at == 0:
            first = min(GRANULE, length)
            head = bytes(buffer.view[:first])
        _write(target, buffer, first, length, at)
        at += length
    if at == 0:
        raise UserError("the dump is empty")
    _wipe_behind(target, at, wipe_tail)
    target.flush()
    # The rest of the first part of the disk, and its boot sector after everything else.
    target.write(memoryview(head)[512:], 512)
    target.flush()
    target.write(memoryview(head)[:512], 0)
    target.flush()
    return at


def _filled(source: int, buffer: Buffer) -> Iterator[int]:
    """Fill ``buffer`` again and again; how many bytes are in it, less than all only at the end."""
    while True:
        length = 0
        while length < len(buffer.view):
            try:
                count = os.readv(source, [buffer.view[length:]])
            except OSError as error:
                raise NodeError(f"the dump cannot be read: {error.strerror}") from None
            if count == 0:
                break
            length += count
        if length:
            yield length
        if length < len(buffer.view):
            return


def _write(target: AnyTarget, buffer: Buffer, first: int, length: int, at: int) -> None:
    """What of the buffer is not held back; ``at``: where on the disk it begins."""
    for start, end, is_zero in buffer.runs(length):
        start = max(start, first)  # noqa: PLW2901 - the head is held back
        if start >= end:
            continue
        if not is_zero:
            target.write_direct(buffer.view[start:end], at + start)
        elif not target.disk.reads_zero:
            target.zero(at + start, end - start)


def _wipe_behind(target: AnyTarget, start: int, how: WipeTail) -> None:
    disk = target.disk
    if disk.reads_zero or start >= disk.size:
        return
    last = max(start, disk.size - MIB)
    if how == "discard":
        target.discard(start, last - start)
    elif how == "zero":
        target.zero(start, last - start)
    target.zero(last, disk.size - last)


def _drain(source: int) -> None:
    """Read the rest, so that whoever sends it sees our error and not a broken pipe."""
    with contextlib.suppress(OSError):
        while os.read(source, _STEP):
            pass


def _grow(call: Call, config: NodeConfig, disk: TargetDisk) -> None:
    run = Run(call, config, "import")
    with run.told():
        request = Request(
            action="customize",
            image=AskedImage(path=None, shown="the imported disk", digest=False),
            disks=(disk,),
            only=GROWING_TASKS,
            evidence=None if run.journal is None else run.journal.evidence,
            again=f"# on the master node, once more:\ngnt-backup import … {call.name}",
        )
        run.deployment = dataclasses.replace(plan(request, config), instance=call.name or "")
        run.succeeded(customize(run.deployment, run.reporter).as_json())
    call.log.write("snf-image: the last file system fills the disk now\n")
