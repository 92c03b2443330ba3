"""Which partitions are candidates, in which order, and why the others are none: without any mount."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from layouts import ESP_GUID, LINUX_GUID, SWAP_GUID, Part, SparseDisk, gpt_disk, mbr_disk
from snf_image_contract.job import Job
from snf_image_contract.names import OsFamily
from snf_image_helper import detection
from snf_image_helper.detection import Detection, detect
from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.filesystems import Volume
from snf_image_helper.partition_table.types import (
    GPT_BASIC_DATA,
    GPT_FREEBSD_UFS,
    GPT_FREEBSD_ZFS,
    GPT_NETBSD_FFS,
    GPT_OPENBSD,
)
from snf_image_helper.root import Root
from trees import Link, RecordingReporter, Tree, make_job, make_tree

SIZE = 65536
EXT = bytes(1024 + 56) + b"\x53\xef" + bytes(200)
NTFS = b"\xeb\x52\x90NTFS    " + bytes(499) + b"\x55\xaa"
LINUX_TREE: Tree = {"/etc/fstab": "", "/etc/os-release": "ID=debian\nVERSION_ID=12\n"}


@dataclasses.dataclass
class Image:
    """A disk whose partitions have signatures, and trees that a mount would show."""

    path: Path
    disks: Disks
    trees: dict[int, Tree]
    looked_at: list[int]
    report: RecordingReporter

    def detect(self, **fields: object) -> Detection:
        job: Job = make_job(**fields)
        return detect(self.disks, job, self.report)


MakeImage = Callable[..., Image]


@pytest.fixture
def image_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeImage:
    def make(disk: SparseDisk, contents: dict[int, bytes], trees: dict[int, Tree]) -> Image:
        """``contents`` by start sector, ``trees`` by partition number."""
        for start, data in contents.items():
            disk.write(start, data.ljust(-(-len(data) // 512) * 512, b"\0"))
        path = tmp_path / "disk"
        disk.save(str(path))
        disks = Disks(all=(Disk(index=0, device=str(path), size=disk.sectors * 512),))
        image = Image(path, disks, trees, [], RecordingReporter())

        @contextlib.contextmanager
        def looked_at(volume: Volume, among: Sequence[Volume] = ()) -> Iterator[Root]:
            image.looked_at.append(volume.number)
            if volume.number not in trees:
                raise ImageError(f"{volume.name}: cannot mount {volume.kind}: damaged")
            top = tmp_path / f"tree{len(image.looked_at)}"
            make_tree(str(top), trees[volume.number])
            fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield Root(fd, record=lambda _: None, warn=lambda _: None)
            finally:
                os.close(fd)

        monkeypatch.setattr(detection, "looked_at", looked_at)
        return image

    return make


def test_candidates_are_tried_by_their_start(image_of: MakeImage) -> None:
    """R-DET-3, R-DET-8, T-52: number 3 lies first; the first confirmed ends the search."""
    parts = [Part(start=20000, end=29999), Part(start=30000, end=39999), Part(start=2048, end=9999)]
    trees: dict[int, Tree] = {3: {"/grub": None}, 1: LINUX_TREE, 2: LINUX_TREE}
    image = image_of(mbr_disk(SIZE, parts), {2048: EXT, 20000: EXT, 30000: EXT}, trees)
    found = image.detect()
    assert (found.root_partition, found.os_family, found.distribution, found.version) == (
        1, OsFamily.LINUX, "debian", "12",
    )  # fmt: skip
    assert image.looked_at == [3, 1]


def test_both_values_given(image_of: MakeImage) -> None:
    """R-DET-1: nothing is looked at, nothing is said."""
    image = image_of(mbr_disk(SIZE, [Part(start=2048, end=9999)]), {}, {})
    found = image.detect(os_family=OsFamily.LINUX, root_partition=5)
    assert found == Detection(os_family=OsFamily.LINUX, root_partition=5)
    assert image.report.events == []


@pytest.mark.parametrize("fields", [{}, {"os_family": OsFamily.LINUX}, {"root_partition": 1}])
def test_what_was_detected_is_announced(image_of: MakeImage, fields: dict[str, object]) -> None:
    """R-DET-1: a warning with the values."""
    image = image_of(mbr_disk(SIZE, [Part(start=2048, end=9999)]), {2048: EXT}, {1: LINUX_TREE})
    image.detect(**fields)
    (event,) = image.report.events
    assert "detected OSFAMILY=linux ROOT_PARTITION=1 (debian 12)" in str(event)


def test_logical_partitions_are_candidates_and_containers_are_not(image_of: MakeImage) -> None:
    """R-DET-3."""
    parts = [Part(start=2048, end=3999, type=0x82), Part(start=10000, end=39999, type=0x05)]
    disk = mbr_disk(SIZE, parts, [Part(start=12048, end=39999)])
    assert image_of(disk, {12048: EXT}, {5: LINUX_TREE}).detect().root_partition == 5


@pytest.mark.parametrize(
    ("kind", "family"), [(0xA5, OsFamily.FREEBSD), (0xA6, OsFamily.OPENBSD), (0xA9, OsFamily.NETBSD)]
)
def test_bsd_types_of_an_mbr(image_of: MakeImage, kind: int, family: OsFamily) -> None:
    """R-DET-3: the type is enough, and its number is the root's."""
    image = image_of(mbr_disk(SIZE, [Part(start=2048, end=9999, type=kind)]), {}, {})
    found = image.detect()
    assert (found.os_family, found.root_partition) == (family, 1)


@pytest.mark.parametrize(
    ("kind", "family"),
    [(GPT_FREEBSD_UFS, OsFamily.FREEBSD), (GPT_OPENBSD, OsFamily.OPENBSD), (GPT_NETBSD_FFS, OsFamily.NETBSD)],
)
def test_bsd_types_of_a_gpt(image_of: MakeImage, kind: str, family: OsFamily) -> None:
    """R-DET-4."""
    found = image_of(gpt_disk(SIZE, {4: Part(start=2048, end=9999, type=kind)}), {}, {}).detect()
    assert (found.os_family, found.root_partition) == (family, 4)


def test_zfs_of_freebsd_is_an_error_of_its_own(image_of: MakeImage) -> None:
    """R-DET-4."""
    image = image_of(gpt_disk(SIZE, {2: Part(start=2048, end=9999, type=GPT_FREEBSD_ZFS)}), {}, {})
    with pytest.raises(ImageError, match="partition 2: ZFS root is not supported"):
        image.detect()


def test_any_gpt_type_may_hold_linux(image_of: MakeImage) -> None:
    """R-DET-4: basic data and unknown types included; ESP and swap are skipped without a look."""
    parts = {
        1: Part(start=2048, end=3999, type=ESP_GUID, name="EFI System Partition"),
        2: Part(start=4000, end=5999, type=SWAP_GUID),
        3: Part(start=6000, end=9999, type=GPT_BASIC_DATA),
        4: Part(start=10000, end=19999, type="4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
    }
    trees: dict[int, Tree] = {3: {"/data": None}, 4: LINUX_TREE}
    image = image_of(gpt_disk(SIZE, parts), {2048: EXT, 6000: EXT, 10000: EXT}, trees)
    assert image.detect().root_partition == 4
    assert image.looked_at == [3, 4]


@pytest.mark.parametrize(
    ("tree", "confirmed"),
    [
        ({"/etc/fstab": ""}, True),
        ({"/etc": None, "/usr/lib/os-release": "ID=x\n"}, True),
        ({"/etc/os-release": "ID=x\n"}, True),
        ({"/usr/lib/os-release": "ID=x\n"}, False),
        ({"/etc": None}, False),
        ({"/etc/fstab": None}, False),
    ],
)
def test_what_confirms_a_linux(image_of: MakeImage, tree: Tree, *, confirmed: bool) -> None:
    """R-DET-5: fstab, or an os-release file together with /etc."""
    image = image_of(mbr_disk(SIZE, [Part(start=2048, end=9999)]), {2048: EXT}, {1: tree})
    if confirmed:
        assert image.detect().root_partition == 1
    else:
        with pytest.raises(ImageError, match="no root file system was found"):
            image.detect()


def test_every_partition_is_listed_with_its_reason(image_of: MakeImage) -> None:
    """R-DET-7, R-DET-8, R-DET-9: layers by name; a hostile name changes nothing."""
    parts = {
        1: Part(start=2048, end=2999, type=LINUX_GUID, name="x\n9 partition"),
        2: Part(start=3000, end=3999, type=LINUX_GUID),
        3: Part(start=4000, end=4999, type=SWAP_GUID),
        4: Part(start=5000, end=5999, type=LINUX_GUID),
        5: Part(start=6000, end=6999, type=GPT_BASIC_DATA),
        6: Part(start=7000, end=7999, type=LINUX_GUID),
    }
    contents = {
        2048: b"LUKS\xba\xbe\0\2",
        3000: bytes(512) + b"LABELONE" + bytes(16) + b"LVM2 001",
        5000: EXT,
        6000: NTFS,
        7000: b"hsqs",
    }
    with pytest.raises(ImageError) as caught:
        image_of(gpt_disk(SIZE, parts), contents, {}).detect()
    assert caught.value.messages == (
        "no root file system was found on the disk",
        f"partition 1 (type {LINUX_GUID}, LUKS): LUKS is not supported",
        f"partition 2 (type {LINUX_GUID}, LVM physical volume): LVM physical volume is not supported",
        f"partition 3 (type {SWAP_GUID}, unknown contents): a partition for swap",
        f"partition 4 (type {LINUX_GUID}, ext2): disk 0 partition 4: cannot mount ext2: damaged",
        f"partition 5 (type {GPT_BASIC_DATA}, ntfs): disk 0 partition 5: cannot mount ntfs: damaged",
        f"partition 6 (type {LINUX_GUID}, squashfs): squashfs holds no root file system that is supported",
    )


COREOS: Tree = {
    "/ostree/deploy/fedora-coreos/deploy/0123.0/etc/os-release": "ID=fedora\n",
    "/ostree/repo": None,
    "/boot": Link("../boot"),
}
BTRFS = bytes(0x10000 + 64) + b"_BHRfS_M" + bytes(4096)


@pytest.mark.parametrize(
    ("content", "tree"), [(EXT, COREOS), (BTRFS, {f"/root{path}": node for path, node in COREOS.items()})]
)
def test_an_ostree_system_is_told(image_of: MakeImage, content: bytes, tree: Tree) -> None:
    """R-DET-8, R-TASK-MNT-6: such as Fedora CoreOS and Silverblue; by what it is, and what one can do."""
    parts = {
        3: Part(start=2048, end=3999, type=LINUX_GUID),
        4: Part(start=4000, end=19999, type="4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
    }
    trees: dict[int, Tree] = {3: {"/ostree/fedora-coreos-0123/vmlinuz": ""}, 4: tree}
    image = image_of(gpt_disk(SIZE, parts), {2048: EXT, 4000: content}, trees)
    with pytest.raises(ImageError) as caught:
        image.detect()
    headline, boot, root = caught.value.messages
    assert headline.startswith("disk 0 partition 4: holds an OSTree or bootc system (Fedora CoreOS")
    assert "EXCLUDE_ALL_TASKS=yes" in headline
    assert "Ignition or cloud-init" in headline
    assert boot.endswith("neither /etc/fstab nor an os-release file")
    assert root.endswith("the root of an OSTree or bootc system, which is not supported")


def test_a_linux_beside_an_ostree_system_counts(image_of: MakeImage) -> None:
    """R-DET-8; and OSTree upon an ordinary root is nothing of an image's."""
    parts = [Part(start=2048, end=9999), Part(start=10000, end=29999)]
    trees: dict[int, Tree] = {1: COREOS, 2: {**LINUX_TREE, "/ostree/deploy/os": None}}
    image = image_of(mbr_disk(SIZE, parts), {2048: EXT, 10000: EXT}, trees)
    assert image.detect().root_partition == 2


def test_mbr_types_that_are_no_candidates(image_of: MakeImage) -> None:
    """R-DET-3: 83 is Linux's, 07 is Windows's, whatever lies in it."""
    parts = [Part(start=2048, end=2999, type=0x0C), Part(start=3000, end=3999, type=0x07)]
    image = image_of(mbr_disk(SIZE, parts), {2048: EXT, 3000: EXT}, {1: LINUX_TREE, 2: LINUX_TREE})
    with pytest.raises(ImageError) as caught:
        image.detect()
    assert "the partition type is not that of a root file system" in caught.value.messages[1]
    assert "the partition type is that of Windows, the file system is not" in caught.value.messages[2]


def test_a_given_root_partition_is_the_only_candidate(image_of: MakeImage) -> None:
    """R-DET-1: the other one is not even looked at; a number that is not there is the request's fault."""
    parts = [Part(start=2048, end=9999), Part(start=20000, end=29999)]
    image = image_of(mbr_disk(SIZE, parts), {2048: EXT, 20000: EXT}, {1: LINUX_TREE, 2: LINUX_TREE})
    assert image.detect(root_partition=2).root_partition == 2
    assert image.looked_at == [2]
    with pytest.raises(RequestError, match="ROOT_PARTITION=3: there is no such partition; there are: 1, 2"):
        image.detect(root_partition=3)


def test_a_given_family_is_kept(image_of: MakeImage) -> None:
    """R-DET-1: what holds another family is no candidate."""
    image = image_of(mbr_disk(SIZE, [Part(start=2048, end=9999)]), {2048: EXT}, {1: LINUX_TREE})
    with pytest.raises(ImageError, match="holds linux, and OSFAMILY=freebsd was given"):
        image.detect(os_family=OsFamily.FREEBSD)


def test_inspection_looks_even_if_both_are_given(image_of: MakeImage) -> None:
    """D-28: always detected; the given values stay although nothing confirms them."""
    image = image_of(mbr_disk(SIZE, [Part(start=2048, end=9999)]), {2048: EXT}, {})
    found = image.detect(action="inspect", os_family=OsFamily.LINUX, root_partition=1)
    assert (found.os_family, found.root_partition) == (OsFamily.LINUX, 1)
    assert "damaged" in found.verdicts[0].reason
    assert image.report.events == []


@pytest.mark.parametrize("content", [b"", bytes(4096), b"\0" * 510 + b"\x55\xaa"])
def test_a_disk_without_partitions_says_so(tmp_path: Path, content: bytes) -> None:
    """R-DET-2, T-46: never an end without a cause."""
    path = tmp_path / "disk"
    path.write_bytes(content)
    disks = Disks(all=(Disk(index=0, device=str(path), size=len(content)),))
    with pytest.raises(ImageError, match="no partition found on the disk"):
        detect(disks, make_job(), RecordingReporter())
