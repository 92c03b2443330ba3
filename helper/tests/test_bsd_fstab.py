"""fstab of the BSDs: which entries are mounted, and what their names lead to."""

from __future__ import annotations

import pytest

from snf_image_contract.names import OsFamily
from snf_image_helper import fstab, slices
from snf_image_helper.bsd import fstab as bsd_fstab
from snf_image_helper.bsd.disklabel import Disklabel, parse
from snf_image_helper.disks import Disk
from snf_image_helper.errors import ImageError
from snf_image_helper.filesystems import Volume
from snf_image_helper.partition_table import Partition
from snf_image_helper.partition_table.types import GPT_FREEBSD_UFS, GPT_OPENBSD, mbr_type
from snf_image_helper.signatures import Kind, Signature
from snf_image_process import Completed
from test_disklabel import FFS, START, label

DISK = Disk(index=0, device="/dev/null", size=1 << 30)


def volume(number: int, name: str = "", kind: Kind = Kind.UFS2, label: str = "", disk: Disk = DISK) -> Volume:
    partition = Partition(
        number=number, start=2048 * number, end=2048 * number + 2047, type=GPT_FREEBSD_UFS, name=name,
        uuid=f"0000-{number}",
    )  # fmt: skip
    signature = Signature(kind=kind, uuid=f"5d0000{number:02x}aabbccdd", label=label)
    return Volume(
        disk=disk, partition=partition, offset=partition.start * 512, size=1 << 20, signature=signature
    )


VOLUMES = (
    volume(1, name="efi", kind=Kind.VFAT, label="EFISYS"),
    volume(3, name="rootfs", label="root"),
    volume(13, name="var", label="var"),
    volume(2, name="other", label="data", disk=Disk(index=1, device="/dev/null", size=1 << 30)),
)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("/dev/ada0p3", 3),
        ("/dev/vtbd0p13", 13),
        ("/dev/gpt/var", 13),
        ("/dev/gptid/0000-3", 3),
        ("/dev/ufs/root", 3),
        ("/dev/ufs/data", 2),
        ("/dev/ufsid/5d00000daabbccdd", 13),
        ("/dev/msdosfs/EFISYS", 1),
    ],
)
def test_names_of_freebsd(name: str, number: int) -> None:
    """R-TASK-MNT-10, T-62, T-63: all digits count, and names are resolved."""
    found = bsd_fstab.find_freebsd(name, VOLUMES)
    assert found is not None
    assert found.number == number


@pytest.mark.parametrize(
    "name", ["/dev/label/x", "/dev/ada0p4", "/dev/gpt/none", "/dev/ufs/EFISYS", "/dev/ada0s1a"]
)
def test_names_of_freebsd_that_lead_nowhere(name: str) -> None:
    """R-TASK-MNT-10: an error, and never another partition."""
    with pytest.raises(ImageError, match=name.rpartition("/")[2]):
        bsd_fstab.find_freebsd(name, VOLUMES)
    assert bsd_fstab.find_freebsd("/dev/ada1p1", VOLUMES) is None


@pytest.mark.parametrize(
    ("family", "kept"),
    [(OsFamily.FREEBSD, ["/u"]), (OsFamily.OPENBSD, ["/f", "/e"]), (OsFamily.NETBSD, ["/e", "/f", "/u"])],
)
def test_types_that_are_mounted(family: OsFamily, kept: list[str]) -> None:
    """R-TASK-MNT-7: compared as words; parents first; swap, noauto and the rest are told."""
    text = (
        "/dev/a / ufs rw\n/dev/b /u ufs rw\n/dev/c /f ffs rw\n/dev/d /e ext2fs rw\n/dev/e /z zfs rw\n"
        "/dev/f none swap sw\n/dev/g /n ufs,ffs rw,noauto\n/dev/h /x ufsx rw\nproc /proc procfs rw\n"
    )
    selection = bsd_fstab.select(fstab.parse(text.encode()), family)
    assert sorted(wanted.entry.target for wanted in selection.wanted) == sorted(kept)
    assert len(selection.warnings) == 8 - len(kept)


def labelled(family: OsFamily) -> tuple[tuple[Partition, Disklabel], ...]:
    partition = Partition(number=4, start=START, end=130000, type=mbr_type(0xA6))
    found = parse(label(FFS), family)
    assert found is not None
    return ((partition, found),)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("0123456789abcdef.e", FFS["e"][0]),
        ("0123456789abcdef.a", START),
        ("/dev/sd0e", FFS["e"][0]),
        ("fedcba9876543210.e", None),
        ("0123456789abcde.e", None),
        ("/dev/sd1e", None),
        ("/dev/dk0", None),
    ],
)
def test_letters_of_openbsd(monkeypatch: pytest.MonkeyPatch, name: str, start: int | None) -> None:
    """R-TASK-MNT-11, T-61: the whole DUID counts; other disks are left out."""
    monkeypatch.setattr(slices, "identify", lambda *_: None)
    found = bsd_fstab.find_by_letter(name, VOLUMES, labelled(OsFamily.OPENBSD))
    assert (found.offset // 512 if found else None) == start


def test_names_of_netbsd(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-MNT-11: NAME= of a GPT, ROOT. and a letter; a letter that is not there is an error."""
    monkeypatch.setattr(slices, "identify", lambda *_: None)
    labels = labelled(OsFamily.NETBSD)
    by_name = bsd_fstab.find_by_letter("NAME=var", VOLUMES, labels)
    by_root = bsd_fstab.find_by_letter("ROOT.e", VOLUMES, labels)
    assert by_name is not None
    assert by_name.number == 13
    assert isinstance(by_root, slices.LabelVolume)
    assert (by_root.name, by_root.offset, by_root.size) == (
        "disk 0 partition 4e", FFS["e"][0] * 512, FFS["e"][1] * 512,
    )  # fmt: skip
    with pytest.raises(ImageError, match="no partition g"):
        bsd_fstab.find_by_letter("/dev/wd0g", VOLUMES, labels)
    assert bsd_fstab.find_by_letter("0123456789abcdef.a", VOLUMES, labels) is None


def test_only_slices_of_the_family_have_labels() -> None:
    """R-TASK-FIX-13: OpenBSD's label inside of a GPT partition counts, NetBSD's GPT has none."""
    gpt = Partition(number=1, start=0, end=0, type=GPT_OPENBSD)
    assert slices.label_of(DISK, gpt, OsFamily.NETBSD) is None
    assert slices.label_of(DISK, gpt, OsFamily.OPENBSD) is None  # an empty disk: looked at, and none there


def test_a_partition_further_in_is_reached_by_a_loop_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-FIX-13: the kernel is told to load the driver, as no node exists whose use would load it."""
    calls: list[str] = []

    def run(argv: list[str], **_: object) -> Completed:
        calls.append(" ".join(argv[:2]))
        return Completed(
            argv=tuple(argv), status=0, stdout=b"/dev/loop0\n" * ("--show" in argv), stderr=b"", seconds=0
        )

    monkeypatch.setattr(slices, "run", run)
    monkeypatch.setattr(slices, "_LOOP_CONTROL", "/nonexistent")
    partition = Partition(number=1, start=2048, end=4095, type=mbr_type(0xA6))
    inner = slices.LabelVolume(
        disk=DISK, partition=partition, offset=3072 * 512, size=1 << 19, signature=None, letter="e"
    )
    assert inner.device() == "/dev/loop0"
    assert calls == ["modprobe loop", "losetup --associated", "losetup --find"]
    monkeypatch.setattr(slices, "_LOOP_CONTROL", "/dev/null")
    assert inner.device() == "/dev/loop0"
    assert calls[3:] == ["losetup --associated", "losetup --find"]
