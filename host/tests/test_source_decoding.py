"""Compressed images and archives: told by their first bytes, decoded by programs, whole or not at all."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import random
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from simulated_source import MIB, Heard, copied
from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import ImageSource, SourceSettings
from snf_image_host.errors import ImageError, SnfImageError, UserError, VerificationError
from snf_image_host.image_container import Container, recognise
from snf_image_host.sources import decoding
from snf_image_host.sources.reading import FileSource, drain
from snf_image_host.vm.account import Account
from snf_image_process import run, runner

pytestmark = pytest.mark.slow

DEFAULT = frozenset({"raw", "gzip", "xz", "zstd", "bzip2", "lz4"})


def disk_dump(size: int = 9 * MIB) -> bytes:
    """Something with a boot signature, noise, zeros, and a last page that is not empty."""
    noise = random.Random(size).randbytes(MIB)  # noqa: S311 - reproducible, not secret
    data = bytearray(size)
    data[4096 : 4096 + MIB] = noise
    data[-5000:] = noise[:5000]
    data[510:512] = b"\x55\xaa"
    return bytes(data)


def compress(words: list[str]) -> Callable[[bytes], bytes]:
    return lambda data: run(words, stdin=data, timeout=60).stdout


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
    "zstd": compress(["zstd", "-qc", "-1"]),
    "lz4": compress(["lz4", "-qc"]),
}


def copy(
    image: Path,
    disk: Path,
    *,
    size: int = 16 * MIB,
    container: str = "auto",
    containers: frozenset[str] = DEFAULT,
    sha256: str | None = None,
    kind: ImageFormat = ImageFormat.DISKDUMP,
    heard: Heard | None = None,
) -> CopyResult:
    source = ImageSource(
        path=str(image),
        shown=image.name,
        format=kind,
        sha256=sha256,
        container=container,
        settings=SourceSettings(containers=containers, runtime_dir=str(image.parent / "run")),
    )
    return copied(source, disk, size=size, sink=heard or Heard())


@pytest.mark.requires("zstd", "xz", "lz4")
@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_compressed_image_arrives_and_both_digests_are_known(name: str, tmp_path: Path) -> None:
    """D-3, D-4: whatever it is called; the source's digest is of the bytes as they were published."""
    data = disk_dump()
    image, disk = tmp_path / "image.raw", tmp_path / "disk"
    image.write_bytes(COMPRESSORS[name](data))
    assert recognise(image.read_bytes()[:4096]) == name
    published = hashlib.sha256(image.read_bytes()).hexdigest()
    result = copy(image, disk, sha256=published)
    assert disk.read_bytes() == data + bytes(16 * MIB - len(data))
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert result.source_sha256 == published
    assert result.image_bytes == len(data)
    assert threading.active_count() == 1


@pytest.mark.requires("zstd", "xz", "lz4")
@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_member_of_a_stream_counts(name: str, tmp_path: Path) -> None:
    """D-3: several streams one after the other are one image, as parallel compressors make them."""
    data = disk_dump()
    image, disk = tmp_path / "image", tmp_path / "disk"
    parts = (data[: 5 * MIB + 77], data[5 * MIB + 77 :])
    image.write_bytes(b"".join(COMPRESSORS[name](part) for part in parts))
    copy(image, disk)
    assert disk.read_bytes()[: len(data)] == data


@pytest.mark.requires("zstd", "xz", "lz4")
@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_stream_that_is_cut_off_is_no_success(name: str, tmp_path: Path) -> None:
    """T-11, R-BACK-9: neither does such a disk boot."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    whole = COMPRESSORS[name](disk_dump())
    image.write_bytes(whole[: len(whole) - 7])
    disk.write_bytes(b"\xff" * (16 * MIB))
    with pytest.raises(ImageError, match="cannot be decompressed"):
        copy(image, disk)
    assert disk.read_bytes()[510:512] == bytes(2)


@pytest.mark.parametrize("size", [4 * MIB, 8 * MIB, 8 * MIB + 512, 65536, 512])
def test_the_end_of_an_image_of_unknown_size_is_found(size: int, tmp_path: Path) -> None:
    """D-12: what is held back to the end is held back here too, also where a buffer ends with the image."""
    data = bytes(510) + b"\x55\xaa" + random.Random(size).randbytes(size - 512)  # noqa: S311 - not secret
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(gzip.compress(data, 1))
    copy(image, disk)
    assert disk.read_bytes() == data + bytes(16 * MIB - size)


@pytest.mark.parametrize("kind", ["diskdump", "extdump"])
def test_without_being_asked_nothing_is_unwrapped(kind: str, tmp_path: Path) -> None:
    """R-FMT-1, T-32: an ordinary format means every byte as it is."""
    data = gzip.compress(disk_dump(), 1)
    image, disk = tmp_path / "image.raw.gz", tmp_path / "disk"
    image.write_bytes(data)
    if kind == "extdump":
        with pytest.raises(ImageError, match="no extdump"):
            copy(image, disk, container="raw", kind=ImageFormat.EXTDUMP)
        return
    copy(image, disk, container="raw")
    assert disk.read_bytes()[: len(data)] == data


def test_what_the_operator_does_not_list_is_copied_as_it_is(tmp_path: Path) -> None:
    """D-3, T-32: recognised, told, and not interpreted."""
    data = b"QFI\xfb" + bytes(MIB)
    image, disk, heard = tmp_path / "image", tmp_path / "disk", Heard()
    image.write_bytes(data)
    copy(image, disk, heard=heard)
    assert disk.read_bytes()[: len(data)] == data
    assert heard.warnings == [
        "the image image looks like qcow2, which IMAGE_CONTAINERS does not list: it is copied byte for byte"
    ]


def test_a_container_that_is_named_must_be_there_and_allowed(tmp_path: Path) -> None:
    """D-3: a word is a promise, and the operator's list stands above it."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(gzip.compress(disk_dump(), 1))
    with pytest.raises(ImageError, match="is not xz: its first bytes say gzip"):
        copy(image, disk, container="xz")
    with pytest.raises(UserError, match="does not take apart"):
        copy(image, disk, container="gzip", containers=frozenset({"raw"}))
    assert copy(image, disk, container="gzip").image_bytes == 9 * MIB


def test_a_bomb_ends_where_the_disk_ends(tmp_path: Path) -> None:
    """R-DST-LOCAL-2: at the boundary, with both sizes, if the size was not known before."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(gzip.compress(bytes(64 * MIB), 9))
    disk.write_bytes(b"\xff" * (16 * MIB))
    with pytest.raises(UserError, match=f"more than {16 * MIB} bytes, the disk .* has only {16 * MIB}"):
        copy(image, disk)
    assert disk.stat().st_size == 16 * MIB
    assert threading.active_count() == 1


@pytest.mark.requires("zstd")
def test_a_bomb_of_zstd_ends_there_too(tmp_path: Path) -> None:
    """R-DST-LOCAL-2: some kilobytes for as many mebibytes."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    (tmp_path / "zeros").touch()
    os.truncate(tmp_path / "zeros", 64 * MIB)
    run(["zstd", "-q", "-1", str(tmp_path / "zeros"), "-o", str(image)], timeout=120)
    assert image.stat().st_size < MIB // 16
    with pytest.raises(UserError, match=f"more than {16 * MIB} bytes, the disk .* has only {16 * MIB}"):
        copy(image, disk)
    assert not disk.exists()


@pytest.mark.requires("zstd")
def test_a_window_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """D-3: a frame's header asks for the memory, 2 GiB here."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    data = run(["zstd", "-q", "-c", "--long=31", "--ultra"], timeout=120, stdin=disk_dump()).stdout
    assert data[4] & 0x20 == 0
    assert data[5] == 21 << 3  # the window: 2^(10 + 21) bytes
    image.write_bytes(data)
    with pytest.raises(ImageError, match="takes too much memory"):
        copy(image, disk)


@pytest.mark.requires("xz")
def test_a_dictionary_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """D-3: how much memory a decoder takes is not the image's decision."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]
    data = bytearray(lzma.compress(disk_dump(), filters=filters))
    # The block header: its length, flags, filter id, length of properties, and the size of the dictionary.
    assert data[12:17] == bytes((2, 0, 0x21, 1, 0))
    data[16] = 40  # 4 GiB - 1
    data[20:24] = __import__("zlib").crc32(bytes(data[12:20])).to_bytes(4, "little")
    image.write_bytes(bytes(data))
    with pytest.raises(ImageError, match=r"[Mm]emory usage limit"):
        copy(image, disk)


@pytest.mark.parametrize("container", decoding.DECODERS)
def test_a_decoder_has_a_limit_of_memory(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-3: 1 GiB; of gzip, bzip2, lz4 and tar, which have no option for that, it is the only one."""
    program = tmp_path / decoding.DECODERS[container].words[0]
    program.write_text("#!/bin/sh\nulimit -v\n")
    program.chmod(0o755)
    monkeypatch.setattr(runner, "_PATH", f"{tmp_path}:{runner._PATH}")
    got = memoryview(bytearray(64))
    with open("/dev/null", "rb") as empty:
        source = FileSource(empty.fileno(), "the-image")
        with contextlib.closing(decoding.Decoding(source, container, Account.of_caller(), "x")) as stream:
            count = stream.read_into(got)
    assert int(got[:count]) == MIB  # of KiB


def test_a_changed_digest_leaves_nothing_at_either_end(tmp_path: Path) -> None:
    """D-4: of the compressed bytes; exit status 3, first and last MiB of the disk are zeros."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(gzip.compress(random.Random(1).randbytes(16 * MIB), 1))  # noqa: S311 - not secret
    disk.write_bytes(b"\xff" * (16 * MIB))
    with pytest.raises(VerificationError, match="has sha256") as caught:
        copy(image, disk, sha256="0" * 64)
    assert caught.value.exit_code == 3
    left = disk.read_bytes()
    assert not any(left[:MIB])
    assert not any(left[-MIB:])
    assert any(left[MIB:-MIB])


def archive(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def test_the_one_file_of_a_compressed_archive_is_the_image(tmp_path: Path) -> None:
    """D-3: layer by layer, as the clouds publish their images."""
    data = disk_dump()
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(gzip.compress(archive(("disk.raw", data)), 1))
    copy(image, disk, containers=DEFAULT | {"tar"})
    assert disk.read_bytes()[: len(data)] == data
    image.write_bytes(archive(("../../etc/x", data)))
    copy(image, disk, containers=DEFAULT | {"tar"})
    assert disk.read_bytes()[: len(data)] == data


@pytest.mark.parametrize("names", [("a", "b"), ()])
def test_an_archive_of_another_number_of_files_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    """R-BACK-9: and the disk does not boot."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    data = archive(*((name, disk_dump(2 * MIB)) for name in names))
    if not names:
        entry = tarfile.TarInfo("dir")
        entry.type = tarfile.DIRTYPE
        data = entry.tobuf() + bytes(10240)
    image.write_bytes(data)
    with pytest.raises(ImageError, match=r"holds 2 files|is empty|holds 0 files"):
        copy(image, disk, containers=DEFAULT | {"tar"})


def test_a_partition_behind_the_end_is_seen_at_the_end(tmp_path: Path) -> None:
    """T-11: a stream does not tell before, and the disk does not boot then."""
    data = bytearray(disk_dump(2 * MIB))
    data[446:462] = bytes((0x80, 0, 0, 0, 0x83, 0, 0, 0)) + (2048).to_bytes(4, "little") * 2 + b""
    data[454:462] = (2048).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(gzip.compress(bytes(data), 1))
    with pytest.raises(ImageError, match="cut off"):
        copy(image, disk)
    assert not disk.exists()


class Endless:
    """``data``, and then zeros for ever."""

    size = None

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._is_abandoned = threading.Event()

    def read_into(self, view: memoryview) -> int:
        part, self._data = self._data[: len(view)], self._data[len(view) :]
        if part:
            view[: len(part)] = part
            return len(part)
        return 0 if self._is_abandoned.wait(0.001) else len(view)

    def abandon(self) -> None:
        self._is_abandoned.set()


def test_what_follows_a_stream_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-FETCH-4, D-4: that a decoder wants no more does not prove that all was read."""
    monkeypatch.setattr(decoding, "_ENDING_SECONDS", 3.0)
    data = disk_dump(2 * MIB)
    stream = decoding.Decoding(
        Endless(bz2.compress(data, 1)), Container.BZIP2, Account.of_caller(), "the-image"
    )
    with contextlib.closing(stream), pytest.raises(ImageError, match="does not end"):
        assert drain(stream) == len(data)


def test_layers_have_an_end(tmp_path: Path) -> None:
    """D-3: nobody wraps an image that often without bad intent."""
    data = disk_dump(MIB)
    for _ in range(5):
        data = gzip.compress(data, 1)
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(data)
    with pytest.raises(ImageError, match="wrapped more than"):
        copy(image, disk)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_bytes_are_there_is_an_answer(seed: int, tmp_path: Path) -> None:
    """T-11: damaged streams are errors of the image or what they say; nothing hangs, no thread is left."""
    generator = random.Random(seed)  # noqa: S311 - reproducible, not secret
    names = sorted(set(COMPRESSORS) - {"zstd", "lz4"})
    data = bytearray(COMPRESSORS[names[seed % len(names)]](disk_dump(2 * MIB)))
    for _ in range(4):
        data[generator.randrange(12, len(data))] ^= 1 << generator.randrange(8)
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(data))
    with pytest.raises(SnfImageError):
        copy(image, disk)
    assert threading.active_count() == 1
    assert not os.path.exists(disk)
