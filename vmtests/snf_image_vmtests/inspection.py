"""The inspection VM: looks at disks with Debian's own tools, and has no code of the helper.

One VM serves many disks, one after the other: a disk is plugged in read-only, checked, mounted read-only,
packed into an archive on a second disk, and unplugged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from snf_image_vmtests import manifest, places
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.qemu_command import DirectBoot, Hardware
from snf_image_vmtests.vm import Vm, VmError

_BOOT_SECONDS: Final = 120.0
_PLUG_SECONDS: Final = 60.0
_ARCHIVE_SECONDS: Final = 180.0
_BESIDE: Final = "/tmp/beside"  # noqa: S108 - in a VM of its own
_ARCHIVE_BYTES: Final = 8 * 1024**3
"""Size of the sparse disk that an archive is written to."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSeen:
    """A partition as the kernel of the inspection VM sees it. Sectors are of 512 bytes."""

    device: str
    number: int
    start: int
    sectors: int


class InspectionVm:
    """A running inspection VM. A context manager; one that broke is replaced when it is used next."""

    def __init__(self) -> None:
        self._evidence: Evidence | None = None
        self._vm: Vm | None = None
        self._names = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._drop()

    @contextlib.contextmanager
    def disk(self, path: str, evidence: Evidence) -> Iterator[InspectedDisk]:
        """Plug in a disk, read-only, for as long as the context lasts. Steps go to the test's evidence."""
        vm = self._started(evidence)
        try:
            with plugged(vm, path, f"look{next(self._names)}", read_only=True) as device:
                yield InspectedDisk(vm, device, self._names)
        except BaseException:
            # What a broken disk did to the kernel must not be the next test's trouble.
            self._drop()
            raise

    def _started(self, evidence: Evidence) -> Vm:
        if self._vm is None:
            directory = os.path.join(places.build_directory(), "evidence", f"inspection-{os.getpid()}")
            self._evidence = Evidence(directory)
            fixtures = places.fixture_directory()
            hardware = Hardware(
                memory=768,
                screen=False,
                boot=DirectBoot(
                    kernel=os.path.join(fixtures, "inspection.kernel"),
                    initrd=os.path.join(fixtures, "inspection.initrd"),
                    words="console=ttyS0 quiet panic=-1 random.trust_cpu=on",
                ),
            )
            vm = Vm("inspection", hardware, self._evidence)
            vm.__enter__()
            self._vm = vm
            with evidence.step("start the inspection VM"):
                vm.wait_for("inspection: ready", seconds=_BOOT_SECONDS)
                vm.take_shell()
        self._vm.evidence = evidence
        return self._vm

    def _drop(self) -> None:
        if self._vm is not None and self._evidence is not None:
            self._vm.evidence = self._evidence
            self._vm.stop()
            self._evidence.remove()
        self._vm = None


class InspectedDisk:
    """A disk that is plugged into the inspection VM, read-only."""

    def __init__(self, vm: Vm, device: str, names: Iterator[int]) -> None:
        self.vm = vm
        self.device = device
        self._names = names

    def sectors(self) -> int:
        """The disk's size."""
        return int(self.vm.succeed(f"cat /sys/block/{self.device}/size"))

    def partitions(self) -> tuple[PartitionSeen, ...]:
        """The partitions that the kernel found, by number."""
        text = self.vm.succeed(
            f"for p in /sys/block/{self.device}/{self.device}*; do [ -e $p/partition ] || continue;"
            " echo ${p##*/} $(cat $p/partition $p/start $p/size); done"
        )
        rows = [line.split() for line in text.splitlines()]
        seen = [
            PartitionSeen(device=f"/dev/{name}", number=int(number), start=int(start), sectors=int(size))
            for name, number, start, size in rows
        ]
        return tuple(sorted(seen, key=lambda partition: partition.number))

    def partition(self, number: int) -> PartitionSeen:
        """One partition; :class:`VmError` if the kernel found none of that number."""
        for partition in self.partitions():
            if partition.number == number:
                return partition
        raise VmError(f"the disk has no partition {number}")

    def verify_table(self) -> str:
        """What ``sfdisk --verify`` says; it must be content."""
        return self.vm.succeed(f"sfdisk --verify /dev/{self.device}")

    def tags(self, number: int) -> dict[str, str]:
        """What ``blkid`` reads from a partition: TYPE, UUID, LABEL, …"""
        return self.tags_of(self.partition(number).device)

    def tags_of(self, device: str) -> dict[str, str]:
        """What ``blkid`` reads from a device."""
        text = self.vm.succeed(f"blkid -p -o export {device}")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    @contextlib.contextmanager
    def mounted(self, mounts: Mapping[str, int]) -> Iterator[str]:
        """Mount partitions by mount point, read-only, below the directory that is returned."""
        order = sorted(mounts, key=len)
        for point in order:
            device = self.partition(mounts[point]).device
            kind = self.vm.succeed(f"blkid -p -o value -s TYPE {device}")
            self.vm.succeed(f"mount -t {kind} -o ro,nosuid,nodev,noexec {device} /mnt{point.rstrip('/')}")
        try:
            yield "/mnt"
        finally:
            for point in reversed(order):
                self.vm.succeed(f"umount /mnt{point.rstrip('/')}")

    @contextlib.contextmanager
    def archive(self, mounts: Mapping[str, int]) -> Iterator[str]:
        """Path of a tar archive with every file of the mounted tree, owners by number, all attributes.

        What tar cannot tell stands beside the tree (:func:`snf_image_vmtests.manifest.read_archive`).
        """
        with tempfile.NamedTemporaryFile(dir=places.build_directory(), prefix=".archive.") as file:
            file.truncate(_ARCHIVE_BYTES)
            with self.mounted(mounts) as top, plugged(
                self.vm, file.name, f"archive{next(self._names)}", read_only=False
            ) as device:  # fmt: skip
                beside = self._tell_beside(top, is_ntfs=self.tags(mounts["/"])["TYPE"] == "ntfs")
                self.vm.succeed(
                    f"tar -C {top} -c --format=posix --numeric-owner --xattrs --xattrs-include='*'"
                    f" -b 2048 -f /dev/{device} . -C {_BESIDE} {' '.join(beside)} && sync",
                    seconds=_ARCHIVE_SECONDS,
                )
            yield file.name

    def _tell_beside(self, top: str, *, is_ntfs: bool) -> list[str]:
        """Write what tar cannot tell of the tree: counts of links, attributes that have to be asked for."""
        attributes = manifest.NTFS_ATTRIBUTES if is_ntfs else ()
        commands = [
            f"mkdir -p {_BESIDE} && cd {top}",
            f"find . ! -type d -links +1 -printf '%n %P\\0' >{_BESIDE}/{manifest.LINKS}",
            *(f"getfattr -R -P -h -e hex -n {name} . >{_BESIDE}/{name}" for name in attributes),
        ]
        self.vm.succeed(" && ".join(commands), seconds=_ARCHIVE_SECONDS)
        return [manifest.LINKS, *attributes]


@contextlib.contextmanager
def plugged(vm: Vm, path: str, name: str, *, read_only: bool) -> Iterator[str]:
    """Plug a raw disk into a running VM; its name in the guest, such as ``vdb``."""
    node: dict[str, Any] = {
        "driver": "raw",
        "node-name": name,
        "read-only": read_only,
        "file": {"driver": "file", "filename": os.path.abspath(path), "locking": "off"},
    }
    vm.monitor.execute("blockdev-add", **node)
    vm.monitor.execute("device_add", driver="virtio-blk-pci", id=f"dev-{name}", drive=name, serial=name)
    find = (
        "for i in $(seq 100); do for f in /sys/block/vd*/serial; do"
        f' [ -e $f ] && [ "$(cat $f)" = {name} ] && f=${{f%/serial}} && echo ${{f##*/}} && exit; done;'
        " sleep 0.1; done; exit 1"
    )
    device = vm.succeed(find, seconds=_PLUG_SECONDS)
    yield device
    # Not after an error: the machine is given up then.
    vm.monitor.execute("device_del", id=f"dev-{name}")
    vm.monitor.wait_event("DEVICE_DELETED", _PLUG_SECONDS, device=f"dev-{name}")
    vm.monitor.execute("blockdev-del", node_name=name)
