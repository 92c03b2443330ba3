"""The task on image files, checked by programs that share no code with it: sfdisk and libparted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from layouts import BIOS_BOOT_GUID, ESP_GUID, LINUX_GUID, SWAP_GUID, Part, SparseDisk, gpt_disk, mbr_disk
from snf_image_contract.events import Warned
from snf_image_contract.job import FixPartitionTable, SwapPartition
from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper import fix_partition_table, partition_table
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.machine import Machine
from snf_image_helper.partition_table import change, independent
from snf_image_helper.partition_table.table import Edit, Partition
from snf_image_process import run
from trees import RecordingReporter, make_job

GIB = 2097152
END = 4 * GIB - 2049
ROOT = Part(start=2048, end=GIB - 1)
CONTAINER = Part(start=GIB + 2048, end=2 * GIB - 1, type=0x0F)
LOGICAL = Part(start=GIB + 4096, end=2 * GIB - 1)
CLOUD = {
    1: Part(start=262_144, end=2 * GIB - 34, type=LINUX_GUID),
    14: Part(start=2048, end=8191, type=BIOS_BOOT_GUID),
    15: Part(start=8192, end=262_143, type=ESP_GUID, name="EFI System Partition"),
}


def machine_on(
    path: Path, disk: SparseDisk, swap: str | None = None, family: OsFamily = OsFamily.LINUX
) -> Machine:
    disk.save(str(path))
    asked = None
    if swap is not None:
        number, _, megabytes = swap.partition(":")
        asked = SwapPartition(number=int(number), megabytes=int(megabytes))
    report = RecordingReporter()
    report.begin(TaskName.FIX_PARTITION_TABLE)
    first = Disk(index=0, device=str(path), size=disk.sectors * 512)
    return Machine(
        disks=Disks(all=(first,)),
        job=make_job(fix_partition_table=FixPartitionTable(swap=asked)),
        report=report,
        os_family=family,
        root_partition=1,
    )


def recorded(machine: Machine) -> RecordingReporter:
    assert isinstance(machine.report, RecordingReporter)
    return machine.report


def sfdisk_dump(path: Path) -> dict[int, tuple[int, int, str]]:
    """Number to start, size, type, as sfdisk reads the file."""
    found = {}
    for line in run(["sfdisk", "-d", str(path)], timeout=30).text.splitlines():
        match = re.search(r"\D(\d+) : start= *(\d+), size= *(\d+), type=([0-9A-Fa-f-]+)", line)
        if match:
            found[int(match[1])] = (int(match[2]), int(match[3]), match[4].upper())
    return found


def head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4096)


def need(program: str) -> None:
    if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"{program} is not installed")


CASES = [
    ("mbr", mbr_disk(2 * GIB, [ROOT]), None, {1: (2048, END - 2047, "83")}),
    ("mbr-primary-swap", mbr_disk(2 * GIB, [ROOT]), "3:256", {
        1: (2048, END - 256 * 2048 - 2047, "83"), 3: (END - 256 * 2048 + 1, 256 * 2048, "82"),
    }),
    ("mbr-new-container", mbr_disk(2 * GIB, [ROOT]), "5:512", {
        1: (2048, END - 512 * 2048 - 4095, "83"),
        2: (END - 512 * 2048 - 2047, 512 * 2048 + 2048, "F"),
        5: (END - 512 * 2048 + 1, 512 * 2048, "82"),
    }),
    ("mbr-empty-container", mbr_disk(2 * GIB, [ROOT, CONTAINER]), "5:512", {
        1: (2048, GIB - 2048, "83"),
        2: (CONTAINER.start, END - CONTAINER.start + 1, "F"),
        5: (END - 512 * 2048 + 1, 512 * 2048, "82"),
    }),
    ("mbr-logical", mbr_disk(2 * GIB, [ROOT, CONTAINER], [LOGICAL]), "6:512", {
        1: (2048, GIB - 2048, "83"),
        2: (CONTAINER.start, END - CONTAINER.start + 1, "F"),
        5: (LOGICAL.start, END - 512 * 2048 - 2048 - LOGICAL.start + 1, "83"),
        6: (END - 512 * 2048 + 1, 512 * 2048, "82"),
    }),
    ("mbr-logical-alone", mbr_disk(2 * GIB, [ROOT, CONTAINER], [LOGICAL]), None, {
        1: (2048, GIB - 2048, "83"),
        2: (CONTAINER.start, END - CONTAINER.start + 1, "F"),
        5: (LOGICAL.start, END - LOGICAL.start + 1, "83"),
    }),
    ("mbr-swap-behind-container", mbr_disk(2 * GIB, [ROOT, CONTAINER], [LOGICAL]), "3:512", {
        1: (2048, GIB - 2048, "83"),
        2: (CONTAINER.start, END - 512 * 2048 - CONTAINER.start + 1, "F"),
        3: (END - 512 * 2048 + 1, 512 * 2048, "82"),
        5: (LOGICAL.start, END - 512 * 2048 - LOGICAL.start + 1, "83"),
    }),
    ("gpt", gpt_disk(2 * GIB, CLOUD), "3:256", {
        1: (262_144, END - 256 * 2048 - 262_144 + 1, LINUX_GUID),
        3: (END - 256 * 2048 + 1, 256 * 2048, SWAP_GUID),
        14: (2048, 6144, BIOS_BOOT_GUID),
        15: (8192, 253_952, ESP_GUID),
    }),
]  # fmt: skip


@pytest.mark.parametrize(
    ("disk", "swap", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_sfdisk_and_libparted_see_what_was_decided(
    tmp_path: Path, disk: SparseDisk, swap: str | None, expected: dict[int, tuple[int, int, str]]
) -> None:
    """R-TASK-FIX-1, R-TASK-FIX-5, R-TASK-FIX-7, R-TASK-FIX-8, R-TASK-FIX-9, R-TASK-FIX-11, T-50, T-127."""
    need("sfdisk")
    path = tmp_path / "disk"
    machine = machine_on(path, disk.grown(4 * GIB), swap)
    fix_partition_table.run(machine)
    assert sfdisk_dump(path) == expected
    verified = run(["sfdisk", "--verify", str(path)], timeout=30)
    assert "No errors detected" in verified.text + verified.stderr.decode()
    seen = partition_table.read(machine.disks.first)
    assert independent.check(str(path), seen.partitions) is None


def test_the_receipt_says_what_changed(tmp_path: Path) -> None:
    """R-TASK-FIX-2, R-TASK-FIX-6: one change a partition, with sectors."""
    machine = machine_on(tmp_path / "disk", mbr_disk(2 * GIB, [ROOT]).grown(4 * GIB), "2:256")
    fix_partition_table.run(machine)
    start = END - 256 * 2048 + 1
    assert [(change.path, change.change, change.detail) for change in recorded(machine).changes] == [
        ("disk 0 partition 1", "partition", f"end moved from sector {GIB - 1} to {start - 1}"),
        ("disk 0 partition 2", "partition", f"new, primary, type 0x82, sectors {start} to {END}"),
    ]
    assert recorded(machine).events == []


def test_a_mended_gpt_is_in_the_receipt(tmp_path: Path) -> None:
    """R-TASK-FIX-3: the backup is rebuilt, with a warning, although no partition changes."""
    disk = gpt_disk(2 * GIB, CLOUD)
    disk.held[2 * GIB - 1] = bytes(512)
    machine = machine_on(tmp_path / "disk", disk)
    fix_partition_table.run(machine)
    (change,) = recorded(machine).changes
    assert (change.path, change.detail) == ("disk 0", "damaged or misplaced copy of the GPT renewed")
    assert "backup copy of the GPT is damaged" in str(recorded(machine).events[0])


def test_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    """R-TASK-FIX-2, T-54: a read-only file shows that it is not even opened for writing."""
    path = tmp_path / "disk"
    machine = machine_on(path, mbr_disk(GIB, [ROOT]))
    before = head(path)
    fix_partition_table.run(machine)
    assert head(path) == before
    assert recorded(machine).changes == []
    (event,) = recorded(machine).events
    assert isinstance(event, Warned)


def test_swap_is_for_linux_only(tmp_path: Path) -> None:
    """R-TASK-FIX-5, R-PROP-7: ignored with a warning elsewhere."""
    machine = machine_on(
        tmp_path / "disk", gpt_disk(2 * GIB, CLOUD).grown(4 * GIB), "3:256", OsFamily.WINDOWS
    )
    fix_partition_table.run(machine)
    assert [part.number for part in partition_table.read(machine.disks.first).partitions] == [1, 14, 15]
    assert "property SWAP does not apply to windows" in str(recorded(machine).events[0])


def test_a_swap_that_does_not_fit_leaves_the_disk_alone(tmp_path: Path) -> None:
    """R-TASK-FIX-5: the request is at fault, and nothing was written."""
    path = tmp_path / "disk"
    machine = machine_on(path, mbr_disk(2 * GIB, [ROOT]).grown(4 * GIB), "2:8192")
    before = head(path)
    with pytest.raises(RequestError, match="not enough space"):
        fix_partition_table.run(machine)
    assert head(path) == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no partition found on the disk"),
        (bytes(1 << 20), "no partition found on the disk"),
        (bytes(1024 + 56) + b"\x53\xef" + bytes(1 << 20), "a file system without partitions fills it: ext2"),
        (b"LUKS\xba\xbe" + bytes(1 << 20), "without partitions fills it: LUKS"),
    ],
)
def test_a_disk_without_partitions(tmp_path: Path, content: bytes, problem: str) -> None:
    """R-TASK-FIX-4, R-DET-2, T-46: what is there instead is told."""
    path = tmp_path / "disk"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=problem):
        partition_table.read(Disk(index=0, device=str(path), size=len(content)))


def test_what_reads_back_differently_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-FIX-11: a disk that loses writes does not pass."""
    machine = machine_on(tmp_path / "disk", mbr_disk(2 * GIB, [ROOT]).grown(4 * GIB))
    monkeypatch.setattr(change, "write", lambda fd, writes: None)
    with pytest.raises(TaskError, match="reads back differently from what was written"):
        fix_partition_table.run(machine)


def test_a_second_opinion_that_differs_is_an_error(tmp_path: Path) -> None:
    """R-TASK-FIX-11: libparted's numbers are compared with ours."""
    path = tmp_path / "disk"
    mbr_disk(2 * GIB, [ROOT]).save(str(path))
    expected = [Partition(number=1, start=2048, end=GIB, type="0x83")]
    with pytest.raises(TaskError, match=r"through libparted: 1 \(2048-2097151\), 1 \(2048-2097152\)"):
        independent.check(str(path), expected)


def test_a_table_that_libparted_refuses_is_a_warning(tmp_path: Path) -> None:
    """R-TASK-FIX-11: the kernel takes more than libparted does."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    doubt = independent.check(str(path), [])
    assert doubt is not None
    assert doubt.startswith("libparted cannot read the partition table")


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """R-TASK-FIX-10: a deployment that is repeated."""
    path = tmp_path / "disk"
    machine = machine_on(path, mbr_disk(2 * GIB, [ROOT]).grown(4 * GIB), "5:256")
    fix_partition_table.run(machine)
    held = head(path)
    again = Machine(
        disks=machine.disks,
        job=machine.job,
        report=RecordingReporter(),
        os_family=OsFamily.LINUX,
        root_partition=1,
    )
    fix_partition_table.run(again)
    assert head(path) == held
    assert recorded(again).changes == []
    assert not Edit().changes
