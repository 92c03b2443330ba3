"""The disks of the instance before and after their file systems are mounted."""

from __future__ import annotations

import dataclasses

from snf_image_contract.job import Job
from snf_image_contract.names import OsFamily
from snf_image_helper.disks import Disks
from snf_image_helper.from_host import HostKeySource, no_host_keys
from snf_image_helper.report import Reporter


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a task on the unmounted disks is given.

    ``os_family`` and ``root_partition`` are as given or detected. ``resize_partition``: number of the
    partition of disk 0 that grows (R-GROW-1 to R-GROW-3), None if none does; decided before the first task.
    """

    disks: Disks
    job: Job
    report: Reporter
    os_family: OsFamily
    root_partition: int
    resize_partition: int | None = None
    host_keys: HostKeySource = no_host_keys
