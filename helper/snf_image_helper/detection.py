"""Which operating system an image holds, and on which partition (R-DET-1 to R-DET-9)."""

from __future__ import annotations

import dataclasses
from typing import Final

from snf_image_contract.job import Job
from snf_image_contract.names import OsFamily
from snf_image_helper import filesystems, partition_table
from snf_image_helper.disks import Disks
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.filesystems import DRIVERS, Volume
from snf_image_helper.linux import ostree
from snf_image_helper.linux.distribution import identify
from snf_image_helper.partition_table import Table
from snf_image_helper.partition_table.types import (
    GPT_FREEBSD_UFS,
    GPT_FREEBSD_ZFS,
    GPT_NETBSD_FFS,
    GPT_OPENBSD,
    MBR_FREEBSD,
    MBR_LINUX,
    MBR_NETBSD,
    MBR_NTFS,
    MBR_OPENBSD,
    mbr_type,
)
from snf_image_helper.report import Reporter
from snf_image_helper.root import Root
from snf_image_helper.root_mount import looked_at
from snf_image_helper.signatures import Kind

_BSD_TYPES: Final = {
    mbr_type(MBR_FREEBSD): OsFamily.FREEBSD,
    mbr_type(MBR_OPENBSD): OsFamily.OPENBSD,
    mbr_type(MBR_NETBSD): OsFamily.NETBSD,
    GPT_FREEBSD_UFS: OsFamily.FREEBSD,
    GPT_OPENBSD: OsFamily.OPENBSD,
    GPT_NETBSD_FFS: OsFamily.NETBSD,
}
"""Types that tell the family without a look inside (R-DET-3, R-DET-4)."""
_MBR_LOOKED_AT: Final = (mbr_type(MBR_LINUX), mbr_type(MBR_NTFS))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found out about one partition: its family, or why it holds no root file system."""

    volume: Volume
    family: OsFamily | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        contents = self.volume.kind or "unknown contents"
        return f"partition {self.volume.number} (type {self.volume.type}, {contents}): {self.reason}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What was given or found. ``verdicts``: of the partitions that were looked at, in that order."""

    os_family: OsFamily
    root_partition: int
    distribution: str = ""
    version: str = ""
    verdicts: tuple[Verdict, ...] = ()


def detect(disks: Disks, job: Job, report: Reporter) -> Detection:
    """Complete what the job leaves open; given values are never replaced (R-DET-1).

    :class:`ImageError` if nothing fits; it lists every partition with the reason (R-DET-8).
    """
    if job.os_family is not None and job.root_partition is not None and job.action != "inspect":
        return Detection(os_family=job.os_family, root_partition=job.root_partition)
    search = _Search(disks, job)
    found = search.run()
    if job.os_family is None or job.root_partition is None:
        what = " ".join(filter(None, (found.distribution, found.version)))
        report.warn(
            f"detected OSFAMILY={found.os_family} ROOT_PARTITION={found.root_partition}"
            f"{f' ({what})' if what else ''}, because not both properties are given"
        )
    return found


def why_unsupported(family: OsFamily, table: Table) -> str | None:
    """Why no task may touch such a system, whichever are excluded; None if they may (R-TASK-FIX-4)."""
    if family is OsFamily.FREEBSD and table.label != "gpt":
        return (
            f"FreeBSD is supported on a GPT only, and this image has an {table.label.upper()}: "
            "make it with a GPT, or deploy it with EXCLUDE_ALL_TASKS=yes"
        )
    return None


class _Search:
    """One look at the partitions of disk 0, in ascending order of their start."""

    def __init__(self, disks: Disks, job: Job) -> None:
        self._job = job
        self._table = partition_table.read(disks.first)
        self._volumes = filesystems.volumes(disks.first, self._table)
        self._distribution = ""
        self._version = ""

    def run(self) -> Detection:
        self._demand_root_partition()
        verdicts: list[Verdict] = []
        for volume in self._volumes:
            verdict = self._judge(volume)
            verdicts.append(verdict)
            if verdict.family is not None and volume.partition is not None:
                return self._found(verdict.family, volume.partition.number, verdicts)
        if self._job.os_family is not None and self._job.root_partition is not None:
            return self._found(self._job.os_family, self._job.root_partition, verdicts)
        raise ImageError(_nothing_found(verdicts), *(verdict.text for verdict in verdicts))

    def _found(self, family: OsFamily, number: int, verdicts: list[Verdict]) -> Detection:
        return Detection(
            os_family=self._job.os_family or family,
            root_partition=self._job.root_partition or number,
            distribution=self._distribution,
            version=self._version,
            verdicts=tuple(verdicts),
        )

    def _demand_root_partition(self) -> None:
        number = self._job.root_partition
        if number is not None and number not in [volume.number for volume in self._volumes]:
            present = ", ".join(str(volume.number) for volume in self._volumes)
            raise RequestError(f"ROOT_PARTITION={number}: there is no such partition; there are: {present}")

    def _judge(self, volume: Volume) -> Verdict:
        wanted = self._job.root_partition
        if wanted is not None and volume.number != wanted:
            return Verdict(volume=volume, reason=f"ROOT_PARTITION={wanted} was given")
        reason = _why_no_candidate(volume, self._table)
        if reason is not None:
            return Verdict(volume=volume, reason=reason)
        family = _BSD_TYPES.get(volume.type)
        if family is None:
            family, reason = self._look(volume)
        given = self._job.os_family
        if family is not None and given is not None and family is not given:
            return Verdict(volume=volume, reason=f"holds {family}, and OSFAMILY={given} was given")
        return Verdict(volume=volume, family=family, reason=reason or "root file system")

    def _look(self, volume: Volume) -> tuple[OsFamily | None, str | None]:
        """Confirm a candidate by what is in it (R-DET-5): its family, or why it is none."""
        if volume.kind is Kind.NTFS:
            return self._look_for_windows(volume)
        if volume.type == mbr_type(MBR_NTFS):
            return None, "the partition type is that of Windows, the file system is not"
        try:
            with looked_at(volume, self._volumes) as root:
                if ostree.is_ostree(root, volume.kind):
                    return None, ostree.REASON
                if not _is_linux(root):
                    return None, "neither /etc/fstab nor an os-release file"
                self._identify(root)
        except (ImageError, TaskError) as error:
            return None, str(error)
        return OsFamily.LINUX, None

    def _look_for_windows(self, volume: Volume) -> tuple[OsFamily | None, str | None]:
        # Imported for images that have NTFS: most have none.
        from snf_image_helper.windows import installation  # noqa: PLC0415

        try:
            with looked_at(volume) as root:
                if not installation.is_windows(root):
                    return None, "no directory \\Windows\\System32"
                found = installation.version(root)
        except (ImageError, TaskError) as error:
            return None, str(error)
        self._distribution, self._version = found.title, found.text
        return found.family, None

    def _identify(self, root: Root) -> None:
        found = identify(root)
        self._distribution, self._version = found.id or str(found.family), found.version


def _nothing_found(verdicts: list[Verdict]) -> str:
    for verdict in verdicts:
        if verdict.reason == ostree.REASON:
            return f"{verdict.volume.name}: {ostree.REFUSAL}"
    return "no root file system was found on the disk"


def _is_linux(root: Root) -> bool:
    if root.is_file("/etc/fstab"):
        return True
    releases = ("/etc/os-release", "/usr/lib/os-release")
    return root.is_dir("/etc") and any(root.is_file(path) for path in releases)


def _why_no_candidate(volume: Volume, table: Table) -> str | None:
    """Why a partition is not looked into, None if it is (R-DET-3, R-DET-4, R-DET-7)."""
    if volume.type == GPT_FREEBSD_ZFS:
        raise ImageError(f"partition {volume.number}: ZFS root is not supported")
    if volume.partition is not None and volume.partition.purpose is not None:
        return f"a partition for {volume.partition.purpose}"
    if volume.kind is not None and volume.kind.is_layer:
        return f"{volume.kind} is not supported"
    if volume.type in _BSD_TYPES:
        return None
    if table.label == "mbr" and volume.type not in _MBR_LOOKED_AT:
        return "the partition type is not that of a root file system"
    if volume.kind is None:
        return "no known file system"
    if volume.kind.is_ufs:
        return f"{volume.kind} on a partition whose type is that of no BSD: set OSFAMILY and ROOT_PARTITION"
    if volume.kind is not Kind.NTFS and (volume.kind not in DRIVERS or volume.kind is Kind.VFAT):
        return f"{volume.kind} holds no root file system that is supported"
    return None
