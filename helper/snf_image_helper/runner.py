"""A job from its disks to its last unmount: the helper's main path."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from snf_image_contract.events import Detected, JobAccepted, TaskEnded, TaskStarted
from snf_image_contract.job import Job, OperatorTask
from snf_image_helper import operator_tasks, partition_table
from snf_image_helper.detection import Detection, detect, why_unsupported
from snf_image_helper.disks import find_disks
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.families import Family, family_of
from snf_image_helper.from_host import HostKeySource, no_host_keys
from snf_image_helper.guest import Guest
from snf_image_helper.machine import Machine
from snf_image_helper.report import Reporter
from snf_image_helper.tasks import ORDER, DiskStep, GuestStep, MountStep, Step, why_skipped

if TYPE_CHECKING:
    from snf_image_helper.mounts import Mounted


def run_job(job: Job, report: Reporter, host_keys: HostKeySource = no_host_keys) -> None:
    """Do what the job says; :class:`TaskError` at the first failure, with everything unmounted again."""
    report.emit(JobAccepted())
    disks = find_disks(job.disks)
    found = detect(disks, job, report)
    family = family_of(found.os_family)
    report.emit(_detected(found))
    table = partition_table.read(disks.first)
    problem = why_unsupported(found.os_family, table)
    if problem is not None and job.action != "inspect":
        raise ImageError(problem)
    machine = Machine(
        disks=disks,
        job=job,
        report=report,
        os_family=found.os_family,
        root_partition=found.root_partition,
        resize_partition=partition_table.resize_partition(table),
        host_keys=host_keys,
    )
    if job.action == "inspect":
        if problem is not None:
            report.warn(problem)
        from snf_image_helper import inspection  # noqa: PLC0415 - half a second for every deployment

        inspection.inspect(machine, found)
        return
    with Tree(machine, family) as tree:
        for step in operator_tasks.in_order(ORDER, job.operator_tasks):
            if isinstance(step, OperatorTask):
                operator_tasks.run(step, machine, tree.guest)
            else:
                run_step(step, machine, family, tree)


class Tree:
    """The mounted tree of a machine, from MountImage to UmountImage; always unmounted in the end."""

    def __init__(self, machine: Machine, family: Family) -> None:
        self._machine = machine
        self._family = family
        self._mounted: Mounted | None = None
        self._before_unmount: list[Callable[[], None]] = []

    def mount(self) -> None:
        from snf_image_helper import mounts  # noqa: PLC0415 - after the first task

        self._mounted = mounts.mount_image(self._machine)

    def finish(self) -> None:
        """What tasks left for the end, then everything is unmounted."""
        while self._before_unmount:
            self._before_unmount.pop(0)()
        self.unmount()

    def unmount(self) -> None:
        if self._mounted is not None:
            mounted, self._mounted = self._mounted, None
            mounted.unmount()

    def guest(self) -> Guest:
        """The tree as tasks see it; a task needs MountImage to have run."""
        if self._mounted is None:
            raise TaskError("the image is not mounted, because task MountImage is excluded")
        return Guest(
            root=self._mounted.root,
            target=self._mounted.target,
            family=self._family,
            job=self._machine.job,
            report=self._machine.report,
            disks=self._machine.disks,
            resize_partition=self._machine.resize_partition,
            root_partition=self._machine.root_partition,
            host_keys=self._machine.host_keys,
            before_unmount=self._before_unmount,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure_type: object, failure: BaseException | None, _: object) -> None:
        if failure is None:
            self.unmount()
            return
        # The first failure is the one to report; the helper powers off whatever is still mounted.
        with contextlib.suppress(TaskError):
            self.unmount()


def run_step(step: Step, machine: Machine, family: Family, tree: Tree) -> None:
    """One task with its start, its end, and what it changed (R-TASK-2)."""
    report = machine.report
    report.begin(step.name)
    report.emit(TaskStarted(task=step.name))
    begun = time.monotonic()
    skip = why_skipped(step, machine.job, family)
    with _changes_reported(report):
        if skip is None:
            _act(step, machine, family, tree)
        elif not skip.quiet:
            report.warn(skip.reason)
    seconds = round(time.monotonic() - begun, 3)
    report.emit(TaskEnded(task=step.name, seconds=seconds, skipped=skip.reason if skip else None))


def _act(step: Step, machine: Machine, family: Family, tree: Tree) -> None:
    if isinstance(step, DiskStep):
        step.run(machine)
    elif isinstance(step, MountStep):
        tree.mount()
    elif isinstance(step, GuestStep):
        _act_on_guest(step, family, tree.guest())
    else:
        tree.finish()


def _act_on_guest(step: GuestStep, family: Family, guest: Guest) -> None:
    from snf_image_helper import overwriting  # noqa: PLC0415 - after the first task

    action = step.action(family)
    if action is None:
        return
    built_in: Callable[[], None] = lambda: action(guest)  # noqa: E731 - bound to the guest, nothing more
    overwriting.run(guest, step.name, built_in)


@contextlib.contextmanager
def _changes_reported(report: Reporter) -> Iterator[None]:
    try:
        yield
    finally:
        report.flush_changes()


def _detected(found: Detection) -> Detected:
    return Detected(
        os_family=found.os_family,
        root_partition=found.root_partition,
        distribution=found.distribution,
        version=found.version,
    )
