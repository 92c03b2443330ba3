"""fstab is data: fields, escapes, which entries are mounted, which are left out and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_helper import fstab
from snf_image_helper.errors import ImageError
from snf_image_helper.fstab import Entry, Source, parse, select, source_of

UUID = "UUID=11111111-2222-3333-4444-555555555555"


def chosen(text: str) -> list[str]:
    """Mount points that are mounted, in order."""
    return [wanted.entry.target for wanted in select(parse(text.encode())).wanted]


def reason(text: str) -> str:
    """The one warning about an entry that is left out."""
    selection = select(parse(text.encode()))
    assert selection.wanted == ()
    (warning,) = selection.warnings
    return warning


def test_fields_are_split_on_blanks_and_unescaped() -> None:
    r"""R-TASK-MNT-7: ``\040`` is a space, ``\011`` a tab, ``\134`` a backslash; comments are no entries."""
    text = (
        b"# a comment\n\n  "
        + UUID.encode()
        + b"\t/my\\040disk\\011x\\134  ext4,xfs\tro,noatime 0 2\nshort line\n"
    )
    assert parse(text) == (
        Entry(
            line=3, source=UUID, target="/my disk\tx\\", types=("ext4", "xfs"), options=("ro", "noatime"),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("target", ["/a\0b", r"/a\000b"])
def test_no_mount_point_has_a_nul(target: str) -> None:
    """R-TASK-MNT-7: neither as it stands nor by an escape; no system call takes one."""
    assert not any("\0" in entry.target for entry in parse(f"{UUID} {target} ext4".encode()))


def test_an_entry_without_options() -> None:
    """R-TASK-MNT-7: three fields are enough."""
    assert parse(f"{UUID} /srv ext4".encode())[0].options == ("defaults",)


def test_parents_are_mounted_before_children() -> None:
    """R-TASK-MNT-7: by depth of the mount point, then by text."""
    lines = [f"{UUID} {target} ext4" for target in ("/var/log/x", "/srv", "/var/log", "/home", "/a/b")]
    assert chosen("\n".join(lines)) == ["/home", "/srv", "/a/b", "/var/log", "/var/log/x"]


@pytest.mark.parametrize(
    "types", ["auto", "ext2", "ext3", "ext4", "msdos", "vfat", "ntfs", "ntfs3", "btrfs", "xfs", "udf,vfat"]
)
def test_types_that_are_mounted(types: str) -> None:
    """R-TASK-MNT-7."""
    assert chosen(f"{UUID} /x {types}") == ["/x"]


@pytest.mark.parametrize(
    "types", ["autofs", "fuse.ntfs-x", "ext", "ext4dev", "nfs", "nfs4", "cifs", "XFS", "xfs2", "zfs"]
)
def test_types_are_compared_exactly(types: str) -> None:
    """R-TASK-MNT-7, T-66: never by substring."""
    assert f"type {types}" in reason(f"{UUID} /x {types} defaults")


@pytest.mark.parametrize(
    "line",
    [
        f"{UUID} none swap sw",
        f"{UUID} swap swap sw",
        "/dev/sda5 none swap sw",
        "proc /proc2 proc",
        "tmpfs /tmp tmpfs",
        "none /x ext4",
        "sysfs /x sysfs",
        "devpts /x devpts",
        "/home /export/home none bind",
        "/home /export/home ext4 rw,rbind",
        "overlay /merged overlay lowerdir=/a",
        "/dev/fd0 /x vfat",
        "/dev/floppy/0 /x vfat",
        "/dev/cdrom /x auto",
        "/dev/sr0 /x auto",
        f"{UUID} /mnt/floppy0 auto",
        f"{UUID} /media/cdrom auto",
        f"{UUID} /x ext4 noauto",
        "server:/export /x nfs",
        f"{UUID} /dev ext4",
        f"{UUID} /run/x ext4",
        f"{UUID} //proc//y ext4",
        f"{UUID} relative ext4",
        "rootfs /x ext4",
    ],
)
def test_entries_that_are_left_out_with_a_warning(line: str) -> None:
    """R-TASK-MNT-8, T-68."""
    assert "not mounted" in reason(line)


def test_devices_below_run_are_not_confused_with_names_that_begin_alike() -> None:
    """R-TASK-MNT-8: equal to or below, not a prefix of the text."""
    assert chosen(f"{UUID} /runner ext4\n{UUID} /develop ext4") == ["/develop", "/runner"]


@pytest.mark.parametrize("target", ["/", "//", "/."])
def test_the_root_entry_is_left_out_silently(target: str) -> None:
    """R-TASK-MNT-8: whatever its source."""
    selection = select(parse(f"/dev/sda1 {target} ext4".encode()))
    assert (selection.wanted, selection.warnings) == ((), ())


@pytest.mark.parametrize("device", ["/dev/sda2", "/dev/mapper/vg-lv", "/dev/disk/by-path/pci-0", "/dev/vdb"])
def test_names_that_are_not_persistent_are_errors(device: str) -> None:
    """R-TASK-MNT-9: except with nofail."""
    with pytest.raises(ImageError, match=r"/etc/fstab line 1 .*no persistent name.*use UUID= or LABEL="):
        select(parse(f"{device} /x ext4".encode()))
    assert "no persistent name" in reason(f"{device} /x ext4 defaults,nofail")
    assert "option noauto" in reason(f"{device} /x ext4 noauto")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UUID=ab-CD", Source(tag="UUID", value="ab-CD")),
        ('LABEL="my disk"', Source(tag="LABEL", value="my disk")),
        ("PARTUUID='5eed1234-01'", Source(tag="PARTUUID", value="5eed1234-01")),
        ("PARTLABEL=EFI System Partition", Source(tag="PARTLABEL", value="EFI System Partition")),
        ('LABEL="', Source(tag="LABEL", value='"')),
        ("/dev/disk/by-uuid/AB-12", Source(tag="UUID", value="AB-12")),
        (r"/dev/disk/by-label/my\x20disk", Source(tag="LABEL", value="my disk")),
        ("/dev/disk/by-partuuid/5eed1234-01", Source(tag="PARTUUID", value="5eed1234-01")),
        ("/dev/disk/by-partlabel/root", Source(tag="PARTLABEL", value="root")),
        ("uuid=ab", None),
        ("XUUID=ab", None),
        ("/dev/sda1", None),
    ],
)  # fmt: skip
def test_persistent_names(text: str, expected: Source | None) -> None:
    """R-TASK-MNT-9: tags with or without quotes, and udev's links."""
    assert source_of(text) == expected


def test_options_with_values() -> None:
    """R-TASK-MNT-4, T-69: the last of several counts; a name is no prefix of another."""
    entry = parse(f"{UUID} / btrfs subvolid=5,subvol=@a,subvol=@b".encode())[0]
    assert (entry.option("subvol"), entry.option("subvolid"), entry.option("sub")) == ("@b", "5", None)


@given(st.binary(max_size=400))
def test_any_bytes_are_parsed(data: bytes) -> None:
    """R-TASK-MNT-7, R-TASK-10: bytes of any kind make entries or nothing."""
    entries = parse(data)
    assert all(entry.line <= data.count(b"\n") + 1 for entry in entries)
    assert all(entry.source and not entry.source.startswith("#") for entry in entries)


def test_ten_thousand_lines_take_no_time() -> None:
    """R-TASK-MNT-7: one pass."""
    text = "\n".join(f"{UUID} /d{number} ext4" for number in range(10_000))
    assert len(chosen(text)) == 10_000
    assert fstab.below_kernel_tree("/sys")
