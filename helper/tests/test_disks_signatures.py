"""Signatures of what mkfs programs make, of layers by their magic, and of noise."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_helper.disks import Disk, Disks
from snf_image_helper.errors import ImageError
from snf_image_helper.filesystems import Volume, all_volumes, find_volume, window
from snf_image_helper.fstab import Source
from snf_image_helper.partition_table import Partition
from snf_image_helper.signatures import Kind, Read, Signature, identify
from snf_image_process import run

UUID = "11111111-2222-4333-8444-555555555555"
SIZE = 320 << 20
FAT = Signature(kind=Kind.VFAT, uuid="1234-ABCD", label="EFI")


def reading(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length] if offset >= 0 else b""


def at(offset: int, content: bytes, size: int = 1 << 20) -> bytes:
    return bytes(offset) + content + bytes(size - offset - len(content))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["mkfs.ext2", "-q", "-L", "a b", "-U", UUID], Signature(kind=Kind.EXT2, uuid=UUID, label="a b")),
        (["mkfs.ext3", "-q", "-U", UUID], Signature(kind=Kind.EXT3, uuid=UUID)),
        (["mkfs.ext4", "-q", "-U", UUID], Signature(kind=Kind.EXT4, uuid=UUID)),
        (["mkfs.xfs", "-q", "-L", "x", "-m", f"uuid={UUID}"], Signature(kind=Kind.XFS, uuid=UUID, label="x")),
        (["mkfs.btrfs", "-q", "-L", "b", "-U", UUID], Signature(kind=Kind.BTRFS, uuid=UUID, label="b")),
        (["mkfs.vfat", "-F32", "-n", "EFI", "-i", "1234ABCD"], FAT),
        (["mkfs.vfat", "-F16", "-i", "1234ABCD"], Signature(kind=Kind.VFAT, uuid="1234-ABCD")),
        (["mkswap", "-L", "s", "-U", UUID], Signature(kind=Kind.SWAP, uuid=UUID, label="s")),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_mkfs_makes(tmp_path: Path, argv: list[str], expected: Signature) -> None:
    """R-TASK-FSU-1, R-DET-6, R-TASK-MNT-9: kind, UUID and label as blkid says them."""
    if shutil.which(argv[0], path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"{argv[0]} is not installed")
    path = tmp_path / "volume"
    with path.open("wb") as stream:
        stream.truncate(SIZE)
    run([*argv, str(path)], timeout=60)
    with path.open("rb") as stream:
        assert identify(window(stream.fileno(), 0, SIZE), SIZE) == expected


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (at(0, b"LUKS\xba\xbe\0\2"), Kind.LUKS),
        (at(512, b"LABELONE" + bytes(16) + b"LVM2 001"), Kind.LVM),
        (at(0, b"\xeb\x58\x90-FVE-FS-" + bytes(499) + b"\x55\xaa"), Kind.BITLOCKER),
        (at(4096, b"\xfc\x4e\x2b\xa9"), Kind.MD),
        (at(0, b"\xfc\x4e\x2b\xa9"), Kind.MD),
        (at((1 << 20) - 8192, b"\xfc\x4e\x2b\xa9"), Kind.MD),
        (at((1 << 20) - 65536, b"\xfc\x4e\x2b\xa9"), Kind.MD),
        (at(128 * 1024 + 4096, struct.pack("<Q", 0x00BAB10C)), Kind.ZFS),
        (at(128 * 1024 + 5120, struct.pack(">Q", 0x00BAB10C)), Kind.ZFS),
        (at(0, b"\xeb\x52\x90NTFS    " + bytes(499) + b"\x55\xaa"), Kind.NTFS),
        (at(65536 + 1372, struct.pack("<I", 0x19540119)), Kind.UFS2),
        (at(8192 + 1372, struct.pack(">I", 0x00011954)), Kind.UFS1),
        (at(32768, b"JFS1"), Kind.JFS),
        (at(65536 + 52, b"ReIsEr2Fs"), Kind.REISERFS),
        (at(0, b"hsqs"), Kind.SQUASHFS),
        (at(32769, b"CD001"), Kind.ISO9660),
        (bytes(1 << 20), None),
        (b"", None),
    ],
)
def test_magic_numbers(data: bytes, kind: Kind | None) -> None:
    """R-DET-6, R-DET-7: file systems, and layers that hide them."""
    found = identify(reading(data), len(data))
    assert (found.kind if found else None) == kind


def test_layers_are_told_from_file_systems() -> None:
    """R-DET-7: LVM, md, LUKS, BitLocker and ZFS, by name."""
    assert {kind for kind in Kind if kind.is_layer} == {
        Kind.LVM,
        Kind.MD,
        Kind.LUKS,
        Kind.BITLOCKER,
        Kind.ZFS,
    }


@settings(deadline=None)
@given(
    data=st.binary(max_size=4096),
    offset=st.sampled_from([0, 1024, 8192, 65536]),
    size=st.integers(0, 1 << 50),
)
def test_noise_raises_nothing(data: bytes, offset: int, size: int) -> None:
    """R-DET-9: truncated and absurd superblocks included."""
    found = identify(reading(bytes(offset) + data), size)
    assert found is None or found.kind in Kind


def test_a_window_ends_where_its_partition_ends(tmp_path: Path) -> None:
    """R-DET-9: reading a partition never shows the next one."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as stream:
        read = window(stream.fileno(), 10, 20)
        assert (read(0, 5), read(15, 50), read(20, 1), read(-1, 5)) == (
            bytes(range(10, 15)), bytes(range(25, 30)), b"", b"",
        )  # fmt: skip


# -- names ----------------------------------------------------------------------------------------


def volume(index: int, number: int, signature: Signature | None = None, **names: str) -> Volume:
    partition = Partition(number=number, start=2048, end=4095, type="0x83", **names)  # type: ignore[arg-type]
    disk = Disk(index=index, device=f"/dev/vd{'abc'[index]}", size=1 << 20)
    return Volume(disk=disk, partition=partition, offset=1 << 20, size=1 << 20, signature=signature)


EXT = Signature(kind=Kind.EXT4, uuid=UUID, label="data")
OTHER = Signature(kind=Kind.VFAT, uuid="1234-ABCD", label="DATA")


@pytest.mark.parametrize(
    ("source", "number"),
    [
        (Source(tag="UUID", value=UUID.upper()), 1),
        (Source(tag="UUID", value="1234-abcd"), 2),
        (Source(tag="LABEL", value="data"), 1),
        (Source(tag="LABEL", value="DATA"), 2),
        (Source(tag="PARTUUID", value="5EED-02"), 2),
        (Source(tag="PARTLABEL", value="EFI System"), 2),
    ],
)
def test_volumes_are_found_by_their_names(source: Source, number: int) -> None:
    """R-TASK-MNT-9: UUIDs in any case, labels exactly."""
    among = (volume(0, 1, EXT), volume(0, 2, OTHER, uuid="5eed-02", name="EFI System"))
    assert find_volume(source, among).number == number


@pytest.mark.parametrize(
    "source",
    [Source(tag="UUID", value=""), Source(tag="LABEL", value="none"), Source(tag="PARTLABEL", value="")],
)
def test_what_no_volume_is_called(source: Source) -> None:
    """R-TASK-MNT-9: an empty name is nobody's."""
    with pytest.raises(ImageError, match=f"no disk of the instance has {source.tag}="):
        find_volume(source, (volume(0, 1, EXT), volume(0, 2)))


def test_disk_0_is_preferred_and_two_of_it_are_ambiguous() -> None:
    """R-TASK-MNT-9."""
    source = Source(tag="UUID", value=UUID)
    assert find_volume(source, (volume(1, 1, EXT), volume(0, 7, EXT))).number == 7
    assert find_volume(source, (volume(1, 3, EXT),)).number == 3
    for pair in ((volume(0, 1, EXT), volume(0, 2, EXT)), (volume(1, 1, EXT), volume(2, 1, EXT))):
        with pytest.raises(ImageError, match="is ambiguous: disk"):
            find_volume(source, pair)


def test_the_devices_of_one_btrfs_are_one_file_system() -> None:
    """R-TASK-MNT-4, R-TASK-MNT-9: as many as it says it has."""
    member = Signature(kind=Kind.BTRFS, uuid=UUID, devices=2)
    source = Source(tag="UUID", value=UUID)
    assert find_volume(source, (volume(0, 1, member), volume(1, 1, member))).disk.index == 0
    with pytest.raises(ImageError, match="ambiguous"):
        find_volume(source, (volume(0, 1, member), volume(0, 2, member), volume(0, 3, member)))


def test_only_disks_of_the_instance_are_searched(tmp_path: Path) -> None:
    """R-TASK-MNT-9, T-67: one disk without a table counts as a whole."""
    path = tmp_path / "second"
    path.write_bytes(at(1024 + 56, b"\x53\xef", 4 << 20))
    (found,) = all_volumes(Disks(all=(Disk(index=1, device=str(path), size=4 << 20),)))
    assert (found.name, found.kind, found.device()) == ("disk 1", Kind.EXT2, str(path))
