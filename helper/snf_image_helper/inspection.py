"""What ``snf-image inspect`` tells of an image: nothing is run, nothing is changed (D-28)."""

from __future__ import annotations

from typing import Final

from snf_image_contract.events import (
    FoundPartition,
    FoundSystem,
    FoundUsers,
    OperatorTaskWouldRun,
    WouldRun,
)
from snf_image_contract.job import OperatorTask
from snf_image_contract.names import OsFamily
from snf_image_helper import filesystems, operator_tasks, partition_table
from snf_image_helper.detection import Detection
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.families import Family, family_of
from snf_image_helper.filesystems import Volume
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init
from snf_image_helper.linux.distribution import architecture, identify
from snf_image_helper.linux.network.choice import choose
from snf_image_helper.machine import Machine
from snf_image_helper.partition_table import Partition, Table
from snf_image_helper.report import clip
from snf_image_helper.root import Root
from snf_image_helper.root_mount import looked_at
from snf_image_helper.tasks import ORDER, why_skipped

MAX_USERS: Final = 100
"""Accounts that are named; more are counted."""
_MAX_NAME: Final = 256
_USERS_IN_AN_EVENT: Final = 16
"""So many of the longest names fit a line, however they are escaped."""
_NO_LOGIN: Final = (b"/nologin", b"/false", b"/sync", b"/shutdown", b"/halt")


def inspect(machine: Machine, detection: Detection) -> None:
    """Tell what was found, and what a deployment with the same job would do."""
    table = partition_table.read(machine.disks.first)
    volumes = filesystems.volumes(machine.disks.first, table)
    for partition in table.partitions:
        machine.report.emit(_found_partition(machine, partition, volumes, detection))
    family = family_of(machine.os_family)
    _tell_system(machine, table, volumes, family)
    for step in operator_tasks.in_order(ORDER, machine.job.operator_tasks):
        if isinstance(step, OperatorTask):
            _, name = operator_tasks.place_of(step)
            skipped = clip(step.skipped) if step.skipped else None
            machine.report.emit(OperatorTaskWouldRun(task=name, skipped=skipped))
            continue
        skip = why_skipped(step, machine.job, family)
        machine.report.emit(WouldRun(task=step.name, skipped=clip(skip.reason) if skip else None))


def _found_partition(
    machine: Machine, partition: Partition, volumes: tuple[Volume, ...], detection: Detection
) -> FoundPartition:
    signature = next((volume.signature for volume in volumes if volume.partition == partition), None)
    verdict = next((v for v in detection.verdicts if v.volume.partition == partition), None)
    return FoundPartition(
        number=partition.number,
        start=partition.start,
        sectors=partition.sectors,
        type=partition.type,
        name=clip(partition.name),
        filesystem=signature.kind if signature else "",
        label=clip(signature.label) if signature else "",
        uuid=clip(signature.uuid) if signature else "",
        role=_role(machine, partition),
        verdict=clip(verdict.reason) if verdict else "",
    )


def _role(machine: Machine, partition: Partition) -> str:
    """What the partition is for, in one or two words."""
    if partition.number == machine.root_partition:
        return "root"
    if partition.kind == "extended":
        return "extended"
    return partition.purpose or ""


def _tell_system(machine: Machine, table: Table, volumes: tuple[Volume, ...], family: Family) -> None:
    """The system and its users; of a tree that cannot be mounted, only what the table tells."""
    report = machine.report
    plain = FoundSystem(
        partition_table=table.label, os_family=machine.os_family, root_partition=machine.root_partition
    )
    volume = next((volume for volume in volumes if volume.number == machine.root_partition), None)
    if volume is None:
        report.emit(plain)
        return
    try:
        with looked_at(volume, volumes) as root:
            if machine.os_family.is_windows:
                system, users = _windows(root, plain)
            elif machine.os_family.is_bsd:
                system, users = _bsd(root, plain, machine.os_family)
            else:
                guest = Guest(root=root, family=family, job=machine.job, report=report, disks=machine.disks)
                system, users = _system(guest, plain), _users(root)
    except (ImageError, TaskError) as error:
        report.warn(f"{volume.name}: cannot be looked into: {error}")
        report.emit(plain)
        return
    report.emit(system)
    for event in users:
        report.emit(event)


def _system(guest: Guest, plain: FoundSystem) -> FoundSystem:
    found = identify(guest.root)
    installed = cloud_init.is_installed(guest)
    version = cloud_init.version(guest) if installed else None
    return FoundSystem(
        partition_table=plain.partition_table,
        os_family=plain.os_family,
        root_partition=plain.root_partition,
        distribution=clip(found.id or str(found.family), _MAX_NAME),
        version=clip(found.version, _MAX_NAME),
        title=clip(found.title, _MAX_NAME),
        hostname=_hostname(guest.root),
        architecture=found.architecture,
        network_backend=choose(guest.root, found) or "",
        cloud_init=(".".join(map(str, version)) if version else "unknown version") if installed else "",
    )


def _windows(root: Root, plain: FoundSystem) -> tuple[FoundSystem, tuple[FoundUsers, ...]]:
    # Imported for images of Windows: the registry's library takes its time.
    from snf_image_helper.windows import installation  # noqa: PLC0415

    version = installation.version(root)
    system = FoundSystem(
        partition_table=plain.partition_table,
        os_family=plain.os_family,
        root_partition=plain.root_partition,
        distribution="windows",
        version=clip(version.text, _MAX_NAME),
        title=clip(version.title, _MAX_NAME),
        hostname=clip(installation.computer_name(root), _MAX_NAME),
        architecture=installation.architecture(root),
    )
    return system, _events([clip(name, _MAX_NAME) for name in installation.users(root)])


def _bsd(root: Root, plain: FoundSystem, family: OsFamily) -> tuple[FoundSystem, tuple[FoundUsers, ...]]:
    from snf_image_helper.bsd import installation  # noqa: PLC0415 - for images of a BSD only

    system = FoundSystem(
        partition_table=plain.partition_table,
        os_family=plain.os_family,
        root_partition=plain.root_partition,
        distribution=family,
        version=installation.release(root, family),
        title=installation.title(root, family),
        hostname=clip(_text(installation.hostname(root, family))),
        architecture=architecture(root),
        network_backend=family,
    )
    names = [name for name, shell in installation.shells(root) if not shell.endswith(_NO_LOGIN)]
    return system, _events([_text(name) for name in names])


def _hostname(root: Root) -> str:
    for path in ("/etc/hostname", "/etc/HOSTNAME"):
        for line in (root.read_optional(path) or b"").splitlines():
            if line.strip() and not line.lstrip().startswith(b"#"):
                return clip(_text(line.strip()))
    return ""


def _text(name: bytes) -> str:
    return name[:_MAX_NAME].decode("utf-8", "backslashreplace")


def _users(root: Root) -> tuple[FoundUsers, ...]:
    """Accounts that log in with a password: in passwd with a shell, and in shadow."""
    shadow = {line.split(b":", 1)[0] for line in (root.read_optional("/etc/shadow") or b"").split(b"\n")}
    names = []
    for line in (root.read_optional("/etc/passwd") or b"").split(b"\n"):
        fields = line.split(b":")
        if len(fields) == 7 and fields[0] in shadow and not fields[6].strip().endswith(_NO_LOGIN):
            names.append(_text(fields[0]))
    return _events(names)


def _events(names: list[str]) -> tuple[FoundUsers, ...]:
    named, more = tuple(names[:MAX_USERS]), max(0, len(names) - MAX_USERS)
    starts = range(0, len(named) or 1, _USERS_IN_AN_EVENT)
    return tuple(
        FoundUsers(users=named[start : start + _USERS_IN_AN_EVENT], more=0 if start else more)
        for start in starts
    )
