"""Images in disk formats: what is refused before qemu sees it, and that the rest arrives."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult, copy_image
from snf_image_host.deployment import ImageSource, SourceSettings, TargetDisk
from snf_image_host.disk_formats import inspect_disk_format
from snf_image_host.disks import open_disks
from snf_image_host.errors import ImageError, UserError, VerificationError
from snf_image_host.image_container import Container, recognise
from snf_image_host.reporter import Reporter
from snf_image_host.sources import disk_format
from snf_image_host.sources.image import open_image
from snf_image_host.sources.reading import ByteSource
from snf_image_host.sources.spool import spool
from snf_image_process import run

MIB = 1 << 20
DISK = bytes(510) + b"\x55\xaa" + bytes(range(256)) * 8192 + bytes(2 * MIB - 512)
FORMATS = {"qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi"}


def inspect(data: bytes, container: str) -> int:
    return inspect_disk_format(
        lambda length, offset: data[offset : offset + length], len(data), Container(container), "x"
    )


def qcow2(**changes: int) -> bytearray:
    """A plain, empty image of version 3; ``changes`` are values of header fields by name."""
    fields = {
        "version": 3, "backing": 0, "backing_length": 0, "cluster_bits": 16, "size": 64 * MIB, "crypt": 0,
        "l1_size": 1, "l1_offset": 0x30000, "refcounts": 0x10000, "refcount_clusters": 1, "snapshots": 0,
        "snapshot_table": 0, "incompatible": 0, "compatible": 0, "autoclear": 0, "order": 4, "length": 104,
    } | changes  # fmt: skip
    data = bytearray(0x40000)
    data[:4] = b"QFI\xfb"
    struct.pack_into(">IQIIQIIQQIIQQQQII", data, 4, *fields.values())
    return data


def with_extension(kind: int, length: int) -> bytes:
    data = qcow2()
    struct.pack_into(">II", data, 104, kind, length)
    return bytes(data)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 4}, "version 4"),
        ({"backing": 1000}, "backing file"),
        ({"crypt": 1}, "encrypted"),
        ({"crypt": 2}, "encrypted"),
        ({"cluster_bits": 8}, "clusters"),
        ({"cluster_bits": 63}, "clusters"),
        ({"incompatible": 1 << 1}, "corrupt"),
        ({"incompatible": 1 << 2}, "in another file"),
        ({"incompatible": 1 << 5}, "features"),
        ({"incompatible": 1 << 63}, "features"),
        ({"length": 96}, "header of 96"),
        ({"length": 1 << 20}, "header of"),
        ({"l1_size": 1 << 30}, "absurd"),
        ({"size": 1 << 63, "cluster_bits": 9}, "absurd"),
        ({"size": 1 << 62, "cluster_bits": 21}, "absurd"),
        ({"size": (1 << 56) + 512, "cluster_bits": 21}, "disk has"),
        ({"size": 0}, "disk has 0"),
        ({"l1_offset": 1 << 40}, "behind its end"),
        ({"refcounts": 1 << 40}, "behind its end"),
        ({"snapshots": 1, "snapshot_table": 1 << 40}, "snapshots behind"),
        ({"snapshots": 1 << 31, "snapshot_table": 512}, "snapshots behind"),
    ],
)
def test_a_qcow2_that_is_not_plain_is_refused(changes: dict[str, int], why: str) -> None:
    """D-3: backing files, data files, encryption, features from the future, tables behind the end."""
    with pytest.raises(ImageError, match=why):
        inspect(bytes(qcow2(**changes)), "qcow2")


@pytest.mark.parametrize(
    ("kind", "why"),
    [(0xE2792ACA, "backing file"), (0x44415441, "another file"), (0x0537BE77, "encrypted")],
)
def test_header_extensions_are_looked_at(kind: int, why: str) -> None:
    """D-3."""
    with pytest.raises(ImageError, match=why):
        inspect(with_extension(kind, 8), "qcow2")
    with pytest.raises(ImageError, match="behind the header's end"):
        inspect(with_extension(1, 1 << 31), "qcow2")
    assert inspect(with_extension(0x6803F857, 96), "qcow2") == 64 * MIB


def converted(directory: Path, name: str, *options: str) -> Path:
    raw, image = directory / "raw", directory / f"image.{name}"
    raw.write_bytes(DISK)
    run(["qemu-img", "convert", "-f", "raw", "-O", FORMATS[name], *options, str(raw), str(image)], timeout=60)
    return image


def copy(
    image: Path, disk: Path, *, containers: frozenset[str] = frozenset(Container), sha256: str | None = None
) -> CopyResult:
    source = ImageSource(
        path=str(image),
        shown=image.name,
        format=ImageFormat.DISKDUMP,
        container="auto",
        sha256=sha256,
        settings=SourceSettings(
            containers=containers, runtime_dir=str(disk.parent / "run"), spool_dir=str(disk.parent)
        ),
    )
    target = TargetDisk(index=0, path=str(disk), create_size=8 * MIB)
    with open_disks([target]) as disks, open_image(source, Reporter()) as stream:
        return copy_image(stream, disks[0])


@pytest.mark.requires("qemu", "qemu-img")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qcow2", []), ("qcow2", ["-c"]), ("qcow2", ["-o", "compat=0.10"]),
        ("qcow2", ["-o", "extended_l2=on,cluster_size=128k"]), ("vmdk", []),
        ("vmdk", ["-o", "subformat=streamOptimized"]),
        ("vhd", ["-o", "force_size=on"]), ("vhdx", []), ("vdi", []),
    ],
)  # fmt: skip
def test_what_is_in_it_arrives(name: str, options: list[str], tmp_path: Path) -> None:
    """D-3, D-7: through an unprivileged qemu that has one open file and one driver."""
    image = converted(tmp_path, name, *options)
    image.chmod(0o600)
    assert recognise(image.read_bytes()[:131072]) == name
    result = copy(image, tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == DISK + bytes(8 * MIB - len(DISK))
    assert result.image_bytes == len(DISK)


@pytest.mark.requires("qemu", "qemu-img")
def test_a_stream_is_kept_and_verified_before_it_is_looked_into(tmp_path: Path) -> None:
    """D-4: a compressed qcow2; nothing of the spool remains."""
    image = tmp_path / "image.gz"
    image.write_bytes(gzip.compress(converted(tmp_path, "qcow2").read_bytes(), 1))
    copy(image, tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes()[: len(DISK)] == DISK
    before = sorted(tmp_path.iterdir())
    (tmp_path / "disk").unlink()
    with pytest.raises(VerificationError):
        copy(image, tmp_path / "disk", sha256="0" * 64)
    assert sorted(tmp_path.iterdir()) == [path for path in before if path.name != "disk"]


@pytest.mark.requires("qemu", "qemu-img")
def test_a_disk_that_is_larger_than_the_target_is_refused(tmp_path: Path) -> None:
    """R-DST-LOCAL-2: by what the header says, before a byte is written."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "x"), "8T"], timeout=60)
    with pytest.raises(UserError, match="has only"):
        copy(tmp_path / "x", tmp_path / "disk")


@pytest.mark.requires("root", "loop", "qemu", "qemu-img")
@pytest.mark.parametrize("is_verified", [False, True])
def test_an_image_may_be_on_a_block_device(
    is_verified: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-3, D-9: such as a volume. D-4: what was verified is what is copied."""
    image = converted(tmp_path, "qcow2")
    os.truncate(image, image.stat().st_size + MIB)  # a volume is larger than what is on it
    digest = hashlib.sha256(image.read_bytes()).hexdigest() if is_verified else None
    kept: list[int] = []

    def keep_and_overwrite(inner: ByteSource, settings: SourceSettings, shown: str) -> int:
        kept.append(spool(inner, settings, shown))
        image.write_bytes(bytes(image.stat().st_size))
        return kept[0]

    monkeypatch.setattr("snf_image_host.sources.image.spool", keep_and_overwrite)
    words = ["losetup", "--find", "--show", "--read-only", str(image)]
    device = run(words, timeout=30).text.strip()
    try:
        copy(Path(device), tmp_path / "disk", sha256=digest)
    finally:
        run(["losetup", "--detach", device], timeout=30)
    assert len(kept) == is_verified
    assert (tmp_path / "disk").read_bytes()[: len(DISK)] == DISK


@pytest.mark.requires("qemu", "qemu-img")
def test_other_files_are_not_followed(tmp_path: Path) -> None:
    """D-3: as qemu-img makes such images."""
    converted(tmp_path, "qcow2")
    backed, data = tmp_path / "backed", tmp_path / "data"
    base = ["qemu-img", "create", "-q", "-f", "qcow2"]
    run([*base, "-b", str(tmp_path / "image.qcow2"), "-F", "qcow2", str(backed)], timeout=60)
    run([*base, "-o", f"data_file={tmp_path / 'out'}", str(data), "4M"], timeout=60)
    flat = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat"]
    run([*flat, str(tmp_path / "f"), "4M"], timeout=60)
    for image in (backed, data, tmp_path / "f"):
        with pytest.raises(ImageError, match=r"backing file|another file|describes other files"):
            copy(image, tmp_path / "disk")


@pytest.mark.requires("qemu-img")
@pytest.mark.parametrize("hidden", ["beside a decoy", "behind the announced end"])
def test_a_parent_is_found_where_qemu_looks_for_one(hidden: str, tmp_path: Path) -> None:
    """D-3: what a VMDK's header says of its description's place and length is not what qemu reads."""
    image = bytearray(converted(tmp_path, "vmdk").read_bytes())
    at, length = struct.unpack_from("<QQ", image, 28)
    description = bytes(image[at * 512 : (at + length) * 512]).rstrip(b"\0")
    parent = b'\nparentFileNameHint="/etc/hostname"\n'
    if hidden == "beside a decoy":
        image[at * 512 : (at + length) * 512] = (description + parent).ljust(length * 512, b"\0")
        struct.pack_into("<Q", image, 28, len(image) // 512)
        image += description.ljust(length * 512, b"\0")
    else:
        image[at * 512 : (at + 2) * 512] = description.ljust(512, b"#") + parent.ljust(512, b"\0")
        struct.pack_into("<Q", image, 36, 1)
    (tmp_path / "bad").write_bytes(image)
    shown = run(["qemu-img", "info", "-f", "vmdk", str(tmp_path / "bad")], timeout=60).stdout
    assert b"backing file: /etc/hostname" in shown
    with pytest.raises(ImageError, match=r"has a parent|does not hold its own description"):
        inspect(bytes(image), "vmdk")


@pytest.mark.requires("qemu", "qemu-img")
@pytest.mark.parametrize("name", ["qcow2", "vmdk"])
def test_qemu_opens_no_backing_file_even_if_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-3: should an inspection ever be deceived."""
    base = converted(tmp_path, name)
    words = ["qemu-img", "create", "-q", "-f", name, "-b", str(base), "-F", name, str(tmp_path / "backed")]
    run(words, timeout=60)
    monkeypatch.setattr(disk_format, "inspect_disk_format", lambda *_: 0)
    copy(tmp_path / "backed", tmp_path / "disk")
    assert not any((tmp_path / "disk").read_bytes())


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=600))
def test_noise_is_an_error_of_the_image(name: str, data: bytes) -> None:
    """D-3: never anything but an answer."""
    with contextlib.suppress(ImageError):
        assert inspect(data, name) > 0
