"""The copy: what arrives, what is left out, what happens when something fails."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult, copy_image, disarm
from snf_image_host.copying.target import MIB
from snf_image_host.deployment import ImageSource, SourceSettings, TargetDisk, WipeTail
from snf_image_host.disks import open_disks
from snf_image_host.errors import ImageError, NodeError, UserError
from snf_image_host.extents import GRANULE, extents
from snf_image_host.image_container import Container
from snf_image_host.reporter import CopyProgress
from snf_image_host.sources.image import open_image
from snf_image_process import PIPE, start


def source(path: Path, *, sha256: str | None = None, container: str = "raw") -> ImageSource:
    return ImageSource(
        path=str(path),
        shown=path.name,
        format=ImageFormat.DISKDUMP,
        sha256=sha256,
        container=container,
        settings=SourceSettings(containers=frozenset(Container)),
    )


def copy(
    image: Path,
    disk: Path,
    *,
    create_size: int | None = None,
    digest: bool = True,
    sha256: str | None = None,
    container: str = "raw",
    wipe_tail: WipeTail = "discard",
    idle_timeout: float = 60.0,
    progress: Callable[[CopyProgress], None] = lambda _: None,
) -> CopyResult:
    target = TargetDisk(index=0, path=str(disk), create_size=create_size)
    asked = source(image, sha256=sha256, container=container)
    with open_disks([target]) as disks, open_image(asked) as stream:
        return copy_image(
            stream,
            disks[0],
            digest=digest,
            wipe_tail=wipe_tail,
            idle_timeout=idle_timeout,
            progress=progress,
        )


def noise(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)  # noqa: S311 - reproducible, not secret


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    path.write_bytes(noise(3 * MIB + 512))
    return path


pieces = st.lists(
    st.tuples(st.sampled_from(["noise", "zeros", "hole"]), st.sampled_from([512, 4096, 65536, 300_000])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(
    pieces=pieces,
    behind=st.sampled_from([0, 1, 512, 70_000, 3 * MIB]),
    used=st.booleans(),
    wipe_tail=st.sampled_from(["no", "discard", "zero"]),
)
def test_what_arrives_is_the_image(
    pieces: list[tuple[str, int]], behind: int, *, used: bool, wipe_tail: WipeTail
) -> None:
    """R-DST-LOCAL-1, R-DST-LOCAL-4, D-10: every byte, whatever the disk held before; its size stays."""
    with tempfile.TemporaryDirectory() as directory:
        image, disk = Path(directory, "image"), Path(directory, "disk")
        with image.open("wb") as file:
            for number, (kind, length) in enumerate(pieces):
                if kind == "hole":
                    file.seek(length, os.SEEK_CUR)
                else:
                    file.write(noise(length, number) if kind == "noise" else bytes(length))
            file.truncate(file.tell())
        data = image.read_bytes()
        if not data:
            return
        size = len(data) + behind
        if used:
            disk.write_bytes(noise(size, 99))
        result = copy(image, disk, create_size=None if used else size, wipe_tail=wipe_tail)
        got = disk.read_bytes()
        assert len(got) == size
        assert got[: len(data)] == data
        assert result.sha256 == hashlib.sha256(data).hexdigest()
        assert not any(got[max(len(data), size - MIB) :])
        if wipe_tail == "zero" or not used:
            assert not any(got[len(data) :])


def test_the_digest_can_be_left_out(image: Path, tmp_path: Path) -> None:
    assert copy(image, tmp_path / "disk", create_size=4 * MIB, digest=False).sha256 is None


def test_zeros_are_not_written_onto_a_new_disk(tmp_path: Path) -> None:
    """R-DST-LOCAL-4: zeros in the image, written or holes, cost no block where the disk reads as zeros."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(noise(MIB) + bytes(8 * MIB) + noise(MIB))
    result = copy(image, disk, create_size=16 * MIB)
    assert result.written <= 2 * MIB
    assert disk.stat().st_blocks * 512 <= 3 * MIB


def test_old_data_does_not_shine_through_zeros_of_the_image(tmp_path: Path) -> None:
    """R-DST-LOCAL-4: on a used disk zeros of the image become zeros."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(noise(MIB) + bytes(2 * MIB) + noise(MIB))
    disk.write_bytes(b"\xaa" * 4 * MIB)
    copy(image, disk)
    assert disk.read_bytes() == image.read_bytes()


def test_blocks_behind_the_image_are_zeroed_if_asked(image: Path, tmp_path: Path) -> None:
    """T-30, R-DST-LOCAL-4: with WIPE_TAIL=zero nothing of an earlier instance stays readable."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xaa" * 16 * MIB)
    copy(image, disk, wipe_tail="zero")
    assert not any(disk.read_bytes()[image.stat().st_size :])


def test_the_last_mebibyte_never_survives(image: Path, tmp_path: Path) -> None:
    """D-10: an old backup GPT at the disk's end is gone, whatever WIPE_TAIL says; the rest stays for `no`."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xaa" * 16 * MIB)
    copy(image, disk, wipe_tail="no")
    got = disk.read_bytes()
    assert not any(got[15 * MIB :])
    assert got[4 * MIB : 15 * MIB] == b"\xaa" * 11 * MIB


def test_an_image_larger_than_the_disk_is_refused_before_the_first_byte(image: Path, tmp_path: Path) -> None:
    """R-DST-LOCAL-2, T-138: the message has both sizes; neither content nor size of the disk changes."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xaa" * MIB)
    with pytest.raises(UserError, match=rf"{3 * MIB + 512} bytes.*only {MIB}"):
        copy(image, disk)
    assert disk.read_bytes() == b"\xaa" * MIB


def test_a_wrong_digest_leaves_a_disk_that_does_not_boot(tmp_path: Path) -> None:
    """D-12: the first sectors are written last, and never after a mismatch."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(510) + b"\x55\xaa" + noise(2 * MIB))
    disk.write_bytes(bytes(510) + b"\x55\xaa" + noise(4 * MIB))
    with pytest.raises(ImageError, match=r"has sha256 .*, --sha256 says 0000"):
        copy(image, disk, sha256="0" * 64)
    assert not any(disk.read_bytes()[:MIB])
    assert not any(disk.read_bytes()[-MIB:])


def test_the_right_digest_may_be_written_in_capitals(image: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert copy(image, tmp_path / "disk", create_size=4 * MIB, sha256=digest.upper()).sha256 == digest


def test_an_interruption_stops_every_thread_and_leaves_no_boot_sector(tmp_path: Path) -> None:
    """D-12: Ctrl-C in the middle of a copy."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(510) + b"\x55\xaa" + noise(32 * MIB))
    disk.write_bytes(noise(40 * MIB))
    before = threading.active_count()

    def interrupt(_: CopyProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(image, disk, progress=interrupt)
    assert threading.active_count() == before
    assert not any(disk.read_bytes()[:GRANULE])


_CHILD = """
import sys
from snf_image_host.copying import copy_image
from snf_image_host.copying.target import Target
from snf_image_host.deployment import ImageSource, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.sources.image import open_image
from snf_image_contract.names import ImageFormat
import time
write = Target.write_direct
def slow(self, data, offset):
    write(self, data, offset)
    print("wrote", flush=True)
    time.sleep(60)
Target.write_direct = slow
image = ImageSource(path=sys.argv[1], shown="image", format=ImageFormat.DISKDUMP)
with open_disks([TargetDisk(index=0, path=sys.argv[2])]) as disks, open_image(image) as stream:
    copy_image(stream, disks[0])
"""


def test_a_killed_copy_leaves_nothing_that_boots(tmp_path: Path) -> None:
    """D-12: after SIGKILL in the middle neither the head nor the end of a bootable disk is there."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(510) + b"\x55\xaa" + b"EFI PART" + noise(8 * MIB) + b"EFI PART" + bytes(504))
    disk.write_bytes(image.read_bytes())
    with start([sys.executable, "-c", _CHILD, str(image), str(disk)], stdout=PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"wrote\n"
        child.signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    got = disk.read_bytes()
    assert not any(got[:GRANULE])
    assert b"EFI PART" not in got[-MIB:]


def test_a_truncated_image_is_noticed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-11 in spirit: an image that becomes shorter is an image error, not a success."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(noise(8 * MIB))

    def short(_: int, size: int) -> object:
        os.truncate(image, MIB)
        return extents_of(size)

    def extents_of(size: int) -> object:
        from snf_image_host.extents import Extent  # noqa: PLC0415 - used once

        return iter([Extent(0, size, is_hole=False)])

    monkeypatch.setattr("snf_image_host.sources.local.extents", short)
    with pytest.raises(ImageError, match=f"ended early, at byte {MIB}"):
        copy(image, disk, create_size=9 * MIB)
    assert not disk.exists()  # this run made the file


def test_a_failing_disk_is_named_with_the_place(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4 * MIB))
    real = os.pwrite

    def failing(fd: int, data: bytes, offset: int) -> int:
        if offset >= 2 * MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[: min(MIB, 2 * MIB - offset)], offset)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(NodeError, match=f"disk cannot be written at byte {2 * MIB}: No space left") as error:
        copy(image, disk)
    assert error.value.hint


def test_a_copy_that_stands_still_is_given_up(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COPY_IDLE_TIMEOUT: a disk that hangs ends the deployment."""
    hanging = threading.Event()
    monkeypatch.setattr(
        "snf_image_host.copying.target.Target.write_direct", lambda *_: hanging.wait(10) and None
    )
    monkeypatch.setattr("snf_image_host.copying.workers.CLOSING", 0.1)
    begun = time.monotonic()
    with pytest.raises(NodeError, match=r"nothing was copied for 0\.3 seconds"):
        copy(image, tmp_path / "disk", create_size=4 * MIB, idle_timeout=0.3)
    hanging.set()
    assert time.monotonic() - begun < 5


def test_progress_grows_and_ends_with_all(image: Path, tmp_path: Path) -> None:
    """R-MON-1: the last progress has position equal to total."""
    seen: list[CopyProgress] = []
    copy(image, tmp_path / "disk", create_size=4 * MIB, progress=seen.append)
    positions = [progress.position for progress in seen]
    assert positions == sorted(positions)
    assert seen[-1] == CopyProgress(position=3 * MIB + 512, total=3 * MIB + 512, final=True)
    assert [progress.final for progress in seen].count(True) == 1


def test_disarming_clears_the_signature_and_nothing_else(tmp_path: Path) -> None:
    """D-12: a failure that the host survives clears the boot signature."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xaa" * 510 + b"\x55\xaa" + b"\xaa" * 512)
    with open_disks([TargetDisk(index=0, path=str(disk))]) as disks:
        disarm(disks[0])
    assert disk.read_bytes() == b"\xaa" * 510 + bytes(2) + b"\xaa" * 512


def test_extents_of_a_sparse_file(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(MIB)
        file.write(noise(4096))
        file.truncate(3 * MIB)
    with path.open("rb") as file:
        found = list(extents(file.fileno(), 3 * MIB))
    assert [(extent.offset, extent.is_hole) for extent in found] == [
        (0, True),
        (MIB, False),
        (MIB + GRANULE, True),
    ]
    assert sum(extent.length for extent in found) == 3 * MIB
