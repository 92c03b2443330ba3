"""A mounted guest: what every task on the mounted tree is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from snf_image_contract.job import Job
from snf_image_helper.from_host import HostKeySource, no_host_keys
from snf_image_helper.report import Reporter
from snf_image_helper.root import Root

if TYPE_CHECKING:
    from snf_image_helper.disks import Disks
    from snf_image_helper.families import Family


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """The untrusted tree behind its door, and what was asked of it.

    ``resize_partition``: number of the partition that grows (R-GROW-3), None if none does.
    ``root_partition``: number of the one that is mounted as root; 0 if only a tree is looked at.
    ``target``: the directory of this VM where the tree is mounted, for programs of the operator; tasks use
    ``root``. ``host_keys``: see :data:`~snf_image_helper.from_host.HostKeySource`.
    ``before_unmount``: what UmountImage does first, for tasks that answer for what later ones write.
    """

    root: Root
    family: Family
    job: Job
    report: Reporter
    disks: Disks
    resize_partition: int | None = None
    root_partition: int = 0
    target: str = ""
    host_keys: HostKeySource = no_host_keys
    before_unmount: list[Callable[[], None]] = dataclasses.field(default_factory=list)

    def warn(self, message: str) -> None:
        self.report.warn(message)
