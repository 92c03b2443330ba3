"""A digest that nobody promised may be ready later than the copy; one that somebody did, never."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult, copy, copy_image
from snf_image_host.copying.copy import Progress
from snf_image_host.copying.target import MIB
from snf_image_host.deployment import ImageSource, TargetDisk, WipeTail
from snf_image_host.digests import Digests
from snf_image_host.disks import open_disks
from snf_image_host.errors import ImageError, VerificationError
from snf_image_host.partition_header import HEADER_SIZE
from snf_image_host.reporter import CopyProgress
from snf_image_host.sources.image import open_image

SIZE = 48 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Data at the start, and holes."""
    path = tmp_path / "image.raw"
    path.write_bytes(os.urandom(MIB))
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Digesting is slower than writing, and does not end before this is set."""
    opened, written = threading.Event(), threading.Event()
    update, write = Digests.update, copy._Copy._write

    def slowly(self: Digests, view: memoryview) -> None:
        if self.position >= SIZE - 16 * MIB:
            assert written.wait(10)
        if self.position >= SIZE - 8 * MIB:
            assert opened.wait(10)
        update(self, view)

    def announced(self: copy._Copy, wipe_tail: WipeTail) -> None:
        write(self, wipe_tail)
        written.set()

    monkeypatch.setattr(Digests, "update", slowly)
    monkeypatch.setattr(copy._Copy, "_write", announced)
    yield opened
    opened.set()


def copied(
    image: Path,
    *,
    late: bool = True,
    sha256: str | None = None,
    kind: ImageFormat = ImageFormat.DISKDUMP,
    progress: Progress = lambda _: None,
) -> CopyResult:
    asked = ImageSource(path=str(image), shown=image.name, format=kind, sha256=sha256)
    target = TargetDisk(index=0, path=str(image.with_name("disk.raw")), create_size=2 * SIZE)
    with open_disks([target]) as disks, open_image(asked) as stream:
        return copy_image(stream, disks[0], may_be_late=late, progress=progress)


@pytest.mark.parametrize("kind", [ImageFormat.DISKDUMP, ImageFormat.EXTDUMP])
def test_the_copy_is_whole_before_its_digest(image: Path, gate: threading.Event, kind: ImageFormat) -> None:
    """D-4: and the digest in the receipt is that of the image all the same."""
    if kind is ImageFormat.EXTDUMP:
        with image.open("r+b") as file:
            file.seek(1024 + 56)
            file.write(b"\x53\xef")
    result = copied(image, kind=kind)
    assert result.sha256 is None
    assert result.late is not None
    base = HEADER_SIZE if kind is ImageFormat.EXTDUMP else 0
    with image.with_name("disk.raw").open("rb") as disk:
        disk.seek(base)
        assert disk.read(SIZE) == image.read_bytes()
    gate.set()
    whole = result.whole()
    assert whole.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert whole.late is None
    assert whole.whole() is whole


def test_a_promised_digest_is_waited_for(image: Path, gate: threading.Event) -> None:
    """D-4: no helper sees a disk before its image was compared with what was promised."""
    gate.set()
    right = hashlib.sha256(image.read_bytes()).hexdigest()
    result = copied(image, sha256=right)
    assert (result.sha256, result.late) == (right, None)
    with pytest.raises(VerificationError):
        copied(image, sha256="0" * 64)
    assert image.with_name("disk.raw").read_bytes()[:MIB] == bytes(MIB)


def test_only_who_may_be_late_is(image: Path, gate: threading.Event) -> None:
    gate.set()
    assert copied(image, late=False).sha256 == hashlib.sha256(image.read_bytes()).hexdigest()


def test_much_that_is_left_is_part_of_the_copy(
    image: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is progress to see as long as it takes long."""
    monkeypatch.setattr(copy, "LATE", 8 * MIB)
    left: list[int] = []
    seen = Digests.update

    def update(self: Digests, view: memoryview) -> None:
        seen(self, view)
        left.append(SIZE - self.position)

    monkeypatch.setattr(Digests, "update", update)
    result = copied(image)
    assert 4 * MIB < min(left) <= 8 * MIB, "so much is left to the thread that waits for the gate"
    gate.set()
    assert result.whole().sha256 == hashlib.sha256(image.read_bytes()).hexdigest()


def test_a_copy_that_fails_at_last_ends_the_late_digest_too(
    image: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-13: no processor is kept busy with what nobody waits for."""
    digested: list[int] = []
    update = Digests.update

    def noted(self: Digests, view: memoryview) -> None:
        update(self, view)
        digested.append(self.position)

    monkeypatch.setattr(Digests, "update", noted)
    asked = ImageSource(path=str(image), shown=image.name, format=ImageFormat.DISKDUMP)
    target = TargetDisk(index=0, path=str(image.with_name("disk.raw")), create_size=2 * SIZE)
    with open_disks([target]) as disks, open_image(asked) as stream:
        with image.open("r+b") as file:
            file.write(b"x")
        with pytest.raises(ImageError, match="was changed while it was copied"):
            copy_image(stream, disks[0], may_be_late=True)
    late = [thread for thread in threading.enumerate() if thread.name == "late-digest"]
    assert len(late) == 1
    gate.set()
    late[0].join(10)
    assert not late[0].is_alive()
    assert max(digested) < SIZE


def test_a_deployment_that_fails_gives_it_up(image: Path, gate: threading.Event) -> None:
    result = copied(image)
    result.give_up()
    gate.set()
    with pytest.raises(RuntimeError):
        result.whole()


def test_progress_waits_for_the_digest(image: Path, gate: threading.Event) -> None:
    """R-FMT-7: nobody is told that all is done while there is something left to wait for."""
    told: list[CopyProgress] = []
    at_the_gate: list[CopyProgress] = []

    def note(progress: CopyProgress) -> None:
        told.append(progress)
        if progress.position >= SIZE - 8 * MIB and not progress.final:
            at_the_gate.append(progress)
            if len(at_the_gate) == 3:
                gate.set()

    right = hashlib.sha256(image.read_bytes()).hexdigest()
    result = copied(image, sha256=right, progress=note)
    assert result.sha256 == right
    assert {progress.position for progress in at_the_gate[:3]} == {SIZE - 7 * MIB}
    assert (told[-1].position, told[-1].final) == (SIZE, True)
