"""What a copy is made of: extents, what is held back, the watch over its threads; and real block devices."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_contract.names import ImageFormat
from snf_image_host.copying import copy_image
from snf_image_host.copying.copy import BUFFER_SIZE, BUFFERS, CopyResult
from snf_image_host.copying.held import HeldBack
from snf_image_host.copying.target import MIB, Target
from snf_image_host.copying.workers import StoppedError, Workers
from snf_image_host.deployment import ImageSource, TargetDisk, WipeTail
from snf_image_host.disks import open_disks
from snf_image_host.errors import ImageError, NodeError, UserError
from snf_image_host.extents import GRANULE, MIN_HOLE, Extent, extents
from snf_image_host.partition_header import HEADER_SIZE
from snf_image_host.reporter import CopyProgress
from snf_image_host.sources.image import open_image
from snf_image_host.sources.streamed import StreamedImage
from snf_image_process import run

pytestmark = pytest.mark.slow

OLD = b"\xaa"


def noise(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)  # noqa: S311 - reproducible, not secret


def source(path: Path, kind: ImageFormat = ImageFormat.DISKDUMP) -> ImageSource:
    return ImageSource(path=str(path), shown=path.name, format=kind)


def copy(
    image: ImageSource,
    disk: Path,
    *,
    wipe_tail: WipeTail = "discard",
    progress: Callable[[CopyProgress], None] = lambda _: None,
) -> CopyResult:
    with open_disks([TargetDisk(index=0, path=str(disk))]) as disks, open_image(image) as stream:
        return copy_image(stream, disks[0], wipe_tail=wipe_tail, progress=progress)


def old_disk(path: Path, size: int) -> Path:
    path.write_bytes(OLD * size)
    return path


# Extents


def sparse(path: Path, size: int, *data: tuple[int, int]) -> Path:
    """A file of holes, but for data of the given offsets and lengths."""
    with path.open("wb") as file:
        for offset, length in data:
            file.seek(offset)
            file.write(OLD * length)
        file.truncate(size)
    return path


def found(path: Path) -> list[tuple[int, int, bool]]:
    with path.open("rb") as file:
        size = path.stat().st_size
        return [(extent.offset, extent.length, extent.is_hole) for extent in extents(file.fileno(), size)]


def test_data_is_rounded_to_what_can_be_written_directly(tmp_path: Path) -> None:
    """R-DST-LOCAL-1: a file system may have holes at any multiple of its blocks."""
    path = sparse(tmp_path / "image", 5 * MIB + 5, (2 * MIB + 4096, 4096), (5 * MIB, 5))
    assert found(path) == [
        (0, 2 * MIB, True),
        (2 * MIB, GRANULE, False),
        (2 * MIB + GRANULE, 3 * MIB - GRANULE, True),
        (5 * MIB, 5, False),
    ]


def test_small_holes_are_read(tmp_path: Path) -> None:
    """R-DST-LOCAL-4: a million of them would cost more than what is in them."""
    holes = [(offset, GRANULE) for offset in range(0, 16 * MIN_HOLE, MIN_HOLE)]
    assert found(sparse(tmp_path / "image", 16 * MIN_HOLE, *holes)) == [
        (0, 15 * MIN_HOLE + GRANULE, False),
        (15 * MIN_HOLE + GRANULE, MIN_HOLE - GRANULE, True),
    ]


def test_holes_that_cannot_be_asked_for_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-DST-LOCAL-4: block devices, and file systems that do not know."""
    path = sparse(tmp_path / "image", 4 * MIB, (MIB, MIB))

    def unknown(*_: object) -> int:
        raise OSError(errno.EINVAL, "unknown")

    with path.open("rb") as file:
        fd = file.fileno()
        monkeypatch.setattr(os, "lseek", unknown)
        assert list(extents(fd, 4 * MIB)) == [Extent(0, 4 * MIB, is_hole=False)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6 * MIB), st.integers(1, MIB)), max_size=6), st.integers(1, 7 * MIB))
def test_extents_cover_the_file_and_lie_about_no_byte(
    tmp_path_factory: pytest.TempPathFactory, data: list[tuple[int, int]], size: int
) -> None:
    """R-DST-LOCAL-4: in order, without gaps, and what is called a hole is zeros."""
    path = sparse(tmp_path_factory.getbasetemp() / "extents", size, *data)
    content = path.read_bytes()
    at = 0
    for offset, length, is_hole in found(path):
        assert offset == at
        assert length > 0
        assert not is_hole or not any(content[offset : offset + length])
        at += length
    assert at == size


# The order in which a disk becomes bootable


def test_what_boots_is_written_when_all_else_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-12: old boot sectors go first; then data and a flush; then the end; the first page last of all."""
    image, disk = tmp_path / "image", old_disk(tmp_path / "disk", 12 * MIB)
    image.write_bytes(noise(9 * MIB))
    steps: list[str] = []
    pwrite, fdatasync, zero = os.pwrite, os.fdatasync, Target.zero

    def watched_write(fd: int, data: memoryview, offset: int) -> int:
        places = {0: "first page", 4096: "rest of head", 9 * MIB - GRANULE: "end"}
        steps.append(places.get(offset, "data"))
        assert offset >= GRANULE or offset + len(data) <= GRANULE
        assert offset + len(data) <= 9 * MIB
        return pwrite(fd, data, offset)

    def watched_flush(fd: int) -> None:
        steps.append("flush")
        fdatasync(fd)

    def watched_zero(target: Target, offset: int, length: int) -> int:
        steps.append(f"zero {offset}")
        return zero(target, offset, length)

    monkeypatch.setattr(os, "pwrite", watched_write)
    monkeypatch.setattr(os, "fdatasync", watched_flush)
    monkeypatch.setattr(Target, "zero", watched_zero)
    copy(source(image), disk, wipe_tail="no")
    begun = ["zero 0", f"zero {9 * MIB - GRANULE}", f"zero {11 * MIB}", "flush"]
    data = ["data"] * steps.count("data")
    assert data
    ended = ["flush", "rest of head", "flush", "first page", "flush"]
    expected = [*begun, *data, ended[0], "end", *ended[1:]]
    assert sorted(steps[len(begun) + len(data) + 1 :][:2]) == ["end", "rest of head"]
    assert [step for step in steps if step != "end"] == [step for step in expected if step != "end"]
    assert disk.read_bytes()[: 9 * MIB] == image.read_bytes()


def test_a_failure_after_the_boot_sector_clears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-12, R-SCR-CREATE-3: even the last flush may fail; what it flushed may be on the disk."""
    image, disk = tmp_path / "image", old_disk(tmp_path / "disk", 4 * MIB)
    image.write_bytes(noise(510) + b"\x55\xaa" + noise(3 * MIB))
    pwrite, fdatasync = os.pwrite, os.fdatasync
    booting = False

    def watched_write(fd: int, data: memoryview, offset: int) -> int:
        nonlocal booting
        booting = booting or offset == 0
        return pwrite(fd, data, offset)

    def failing(fd: int) -> None:
        nonlocal booting
        if booting:
            booting = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fdatasync(fd)

    monkeypatch.setattr(os, "pwrite", watched_write)
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(NodeError, match="cannot be written"):
        copy(source(image), disk)
    assert disk.read_bytes()[:512] == image.read_bytes()[:510] + bytes(2)


@settings(deadline=None)
@given(st.integers(1, 6 * GRANULE), st.integers(1, 3 * GRANULE))
def test_nothing_is_lost_between_what_is_held_and_what_is_not(total: int, step: int) -> None:
    """D-12: every byte goes one way or the other, in pieces of any size."""
    data, held = noise(total), HeldBack(total)
    passed = bytearray(total)
    for offset in range(0, total, step):
        view, at = held.take(memoryview(data)[offset : offset + step], offset)
        passed[at : at + len(view)] = view
        assert at >= GRANULE or not view
    for offset, part in held._parts:
        assert not any(passed[offset : offset + len(part)])
        passed[offset : offset + len(part)] = part
    assert passed == data
    kept = sum(len(part) for _, part in held._parts)
    assert kept <= 2 * GRANULE


# Formats


def ext_dump(path: Path, size: int) -> Path:
    """Something with the magic number and the size of an ext file system."""
    data = bytearray(noise(size))
    data[1024:2048] = bytes(1024)
    data[1028:1032] = (size // 1024).to_bytes(4, "little")
    data[1080:1082] = b"\x53\xef"
    path.write_bytes(data)
    return path


def test_a_dump_of_a_file_system_follows_its_header(tmp_path: Path) -> None:
    """R-FMT-2, R-FMT-7, T-21, T-23: header, dump at sector 2048, progress over both, no file left behind."""
    image, disk = ext_dump(tmp_path / "image", 3 * MIB), old_disk(tmp_path / "disk", 8 * MIB)
    seen: list[CopyProgress] = []
    result = copy(source(image, ImageFormat.EXTDUMP), disk, wipe_tail="zero", progress=seen.append)
    got = disk.read_bytes()
    assert got[510:512] == b"\x55\xaa"
    assert got[446] == 0x80
    assert not any(got[512:HEADER_SIZE])
    assert got[HEADER_SIZE : HEADER_SIZE + 3 * MIB] == image.read_bytes()
    assert not any(got[HEADER_SIZE + 3 * MIB :])
    assert result.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert result.written + result.skipped == HEADER_SIZE + 3 * MIB
    assert {progress.total for progress in seen} == {HEADER_SIZE + 3 * MIB}
    assert all(progress.position <= HEADER_SIZE + 3 * MIB for progress in seen)
    assert seen[-1].position == HEADER_SIZE + 3 * MIB
    assert sorted(os.listdir(tmp_path)) == ["disk", "image"]


def test_a_header_that_does_not_fit_any_more_is_counted(tmp_path: Path) -> None:
    """R-DST-LOCAL-2: image plus header."""
    image, disk = ext_dump(tmp_path / "image", 3 * MIB), old_disk(tmp_path / "disk", 4 * MIB - 512)
    with pytest.raises(UserError, match=f"{3 * MIB} bytes .with {HEADER_SIZE} bytes.*only {4 * MIB - 512}"):
        copy(source(image, ImageFormat.EXTDUMP), disk)
    assert disk.read_bytes() == OLD * (4 * MIB - 512)
    old_disk(disk, 4 * MIB)
    copy(source(image, ImageFormat.EXTDUMP), disk)
    assert disk.read_bytes()[HEADER_SIZE:] == image.read_bytes()


class OneThread:
    """A source that remembers who has read it, and is asked for its end once."""

    def __init__(self, data: bytes, *, tells_size: bool) -> None:
        self.size = len(data) if tells_size else None
        self.readers: list[int] = []
        self.ends = 0
        self._data = memoryview(data)

    def read_into(self, view: memoryview) -> int:
        self.readers.append(threading.get_ident())
        count = min(len(view), len(self._data))
        view[:count], self._data = self._data[:count], self._data[count:]
        self.ends += count == 0
        return count

    def abandon(self) -> None:
        pass


@pytest.mark.parametrize("tells_size", [True, False])
def test_a_stream_is_read_to_its_end_by_one_thread(*, tells_size: bool, tmp_path: Path) -> None:
    """R-SRC-NET-3: the program that resumed a transfer ends with the thread that started it."""
    stream = OneThread(noise(9 * MIB), tells_size=tells_size)
    image = StreamedImage(
        stream, shown="x", header=b"", needed=0, digests=frozenset(), at_end=lambda digests: digests
    )
    target = TargetDisk(index=0, path=str(tmp_path / "disk"), create_size=16 * MIB)
    with open_disks([target]) as disks:
        assert copy_image(image, disks[0]).image_bytes == 9 * MIB
    assert len(set(stream.readers)) == 1
    assert stream.ends == 1


def test_what_follows_the_announced_end_is_an_error(tmp_path: Path) -> None:
    """R-SRC-NET-3"""
    stream = OneThread(noise(2 * MIB), tells_size=True)
    stream.size = MIB
    image = StreamedImage(
        stream, shown="x", header=b"", needed=0, digests=frozenset(), at_end=lambda digests: digests
    )
    target = TargetDisk(index=0, path=str(tmp_path / "disk"), create_size=16 * MIB)
    with open_disks([target]) as disks, pytest.raises(ImageError, match=f"more than the {MIB} bytes"):
        copy_image(image, disks[0])


@pytest.mark.requires("qemu-img")
def test_a_container_is_copied_byte_for_byte(tmp_path: Path) -> None:
    """T-32, R-FMT-1: neither its content nor its backing file is looked at, whatever it is called."""
    secret, image = tmp_path / "secret", tmp_path / "image.diskdump"
    secret.write_bytes(noise(MIB))
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(image)]
    run(words, timeout=60)
    disk = old_disk(tmp_path / "disk", 4 * MIB)
    copy(source(image), disk, wipe_tail="zero")
    assert disk.read_bytes() == image.read_bytes().ljust(4 * MIB, b"\0")


def test_an_image_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    """T-11: half of one state and half of another is no image; the disk does not boot."""
    image, disk = tmp_path / "image", old_disk(tmp_path / "disk", 9 * MIB)
    image.write_bytes(bytes(510) + b"\x55\xaa" + noise(8 * MIB))
    stream_source = source(image)
    with open_disks([TargetDisk(index=0, path=str(disk))]) as disks, open_image(stream_source) as stream:
        with image.open("r+b") as file:
            file.seek(4 * MIB)
            file.write(b"new")
        with pytest.raises(ImageError, match="was changed while it was copied"):
            copy_image(stream, disks[0])
    assert not any(disk.read_bytes()[:GRANULE])


def test_an_image_that_cannot_be_read_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-BACK-9: the source's failure is told as such."""
    image, disk = tmp_path / "image", old_disk(tmp_path / "disk", 9 * MIB)
    image.write_bytes(noise(8 * MIB))
    preadv = os.preadv

    def failing(fd: int, views: list[memoryview], offset: int) -> int:
        if offset >= 4 * MIB:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(NodeError, match=f"the image image cannot be read at byte {4 * MIB}"):
        copy(source(image), disk)
    assert not any(disk.read_bytes()[:GRANULE])


def test_an_image_whose_beginning_cannot_be_read() -> None:
    """R-BACK-9: is an error of the node, as anywhere else in it."""
    # A regular file for stat, and an input/output error for whoever reads its first byte.
    image = source(Path("/proc/self/mem"))
    with pytest.raises(NodeError, match="cannot be read: Input/output error"), open_image(image):
        pass


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_what_is_no_file_is_no_image(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    """R-SRC-LOCAL-4: a pipe nobody writes to does not hang us."""
    kind(tmp_path / "image")
    with (
        pytest.raises(UserError, match="neither a regular file nor a block device"),
        open_image(source(tmp_path / "image")),
    ):
        pass


# The watch over the threads


def workers(idle: float = 60.0, tell: Callable[[], None] = lambda: None) -> Workers:
    return Workers(idle, tell=tell, where=lambda: 42)


def test_the_first_failure_ends_the_others_and_is_told() -> None:
    """R-BACK-9: one failing stage fails the copy, and its cause is not masked."""
    watched = workers()

    def fail() -> None:
        raise ImageError("bad")

    def work_on() -> None:
        while True:
            watched.check()
            time.sleep(0.001)

    begun = threading.active_count()
    with pytest.raises(ImageError, match="bad"):
        watched.run(work_on, fail, work_on)
    assert threading.active_count() == begun
    with pytest.raises(StoppedError):
        watched.check_stopped()


def test_waiting_is_no_progress() -> None:
    """COPY_IDLE_TIMEOUT: threads that only wait for each other are idle, those that work slowly are not."""
    watched = workers(idle=0.3)

    def wait() -> None:
        while True:
            watched.check_stopped()
            time.sleep(0.01)

    with pytest.raises(NodeError, match=r"nothing was copied for 0\.3 seconds, at byte 42"):
        watched.run(wait)

    slow = workers(idle=0.3)

    def work() -> None:
        for _ in range(8):
            slow.check()
            time.sleep(0.1)

    slow.run(work)


def test_no_limit_is_no_limit() -> None:
    """COPY_IDLE_TIMEOUT=0."""
    workers(idle=0).run(lambda: time.sleep(0.4))


def test_an_error_of_the_listener_stops_the_threads() -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    watched = workers(tell=fail)

    def work_on() -> None:
        while True:
            watched.check()
            time.sleep(0.001)

    begun = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        watched.run(work_on)
    assert threading.active_count() == begun


def test_a_disk_that_hangs_in_the_last_flush_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COPY_IDLE_TIMEOUT holds for every step, not only while data is written; nothing boots then (D-12)."""
    image, disk = tmp_path / "image", old_disk(tmp_path / "disk", 4 * MIB)
    image.write_bytes(noise(3 * MIB))
    freed, flushes = threading.Event(), 0
    monkeypatch.setattr("snf_image_host.copying.workers.CLOSING", 0.1)
    fdatasync = os.fdatasync

    def hanging(fd: int) -> None:
        nonlocal flushes
        flushes += 1
        if flushes == 2:
            freed.wait(20)
        else:
            fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", hanging)
    with (
        open_disks([TargetDisk(index=0, path=str(disk))]) as disks,
        open_image(source(image)) as stream,
        pytest.raises(NodeError, match="nothing was copied for"),
    ):
        copy_image(stream, disks[0], idle_timeout=0.3)
    assert not any(disk.read_bytes()[:GRANULE])
    freed.set()


# Memory, and real block devices

_CHILD = """
import sys
from snf_image_contract.names import ImageFormat
from snf_image_host import deploy
from snf_image_host.copying import copy_image
from snf_image_host.deployment import ImageSource, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.sources.image import open_image
from snf_image_host.sources.streamed import StreamedImage
image = ImageSource(path=sys.argv[1], shown="image", format=ImageFormat.DISKDUMP)
with open_disks([TargetDisk(index=0, path=sys.argv[2])]) as disks, open_image(image) as stream:
    copy_image(stream, disks[0])
# Not getrusage(), whose peak is at least that of the process that forked us.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak))
"""


def test_a_large_image_takes_little_memory(tmp_path: Path) -> None:
    """A process with everything of the host in it stays below 100 MiB, and its buffers below 32 MiB."""
    assert BUFFERS * BUFFER_SIZE <= 32 * MIB
    image = sparse(tmp_path / "image", 256 * MIB, (0, 40 * MIB), (128 * MIB, 40 * MIB))
    disk = sparse(tmp_path / "disk", 256 * MIB)
    said = run([sys.executable, "-c", _CHILD, str(image), str(disk)], timeout=300).stdout
    assert int(said) < 100 * 1024
    assert disk.stat().st_blocks * 512 < 90 * MIB


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    """A block device of 16 MiB, none of it zero."""
    backing = old_disk(tmp_path / "backing", 16 * MIB)
    name = run(["losetup", "--find", "--show", str(backing)], timeout=30).text.strip()
    try:
        yield Path(name)
    finally:
        run(["losetup", "--detach", name], timeout=30)


@pytest.mark.requires("root", "loop")
@pytest.mark.parametrize("wipe_tail", ["no", "discard", "zero"])
def test_a_block_device_holds_the_image_and_nothing_of_old(
    loop_device: Path, tmp_path: Path, wipe_tail: WipeTail
) -> None:
    """R-DST-LOCAL-1, R-DST-LOCAL-4, T-30, D-10: holes of the image, and the tail, on a used device."""
    image = sparse(tmp_path / "image", 9 * MIB + 512, (0, MIB), (5 * MIB, MIB), (9 * MIB, 512))
    result = copy(source(image), loop_device, wipe_tail=wipe_tail)
    assert result.direct
    got = loop_device.read_bytes()
    assert len(got) == 16 * MIB
    assert got[: 9 * MIB + 512] == image.read_bytes()
    assert not any(got[15 * MIB :])
    if wipe_tail == "zero":
        assert not any(got[9 * MIB + 512 :])
    if wipe_tail == "no":
        assert got[9 * MIB + 512 : 15 * MIB] == OLD * (6 * MIB - 512)


@pytest.mark.requires("root", "loop")
def test_an_image_may_be_a_block_device(loop_device: Path, tmp_path: Path) -> None:
    """R-FMT-1: holes are not known there; every byte is read."""
    disk = old_disk(tmp_path / "disk", 20 * MIB)
    assert copy(source(loop_device), disk).image_bytes == 16 * MIB
    assert disk.read_bytes()[: 16 * MIB] == OLD * 16 * MIB
