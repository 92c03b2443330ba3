"""The copy: reading, digesting and writing overlap; the disk becomes bootable last of all.

One thread reads into a few large buffers, one computes the digest, one writes; the calling thread watches
over them and tells of progress. A digest that nobody waits for may be computed on when the copy is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from snf_image_host.copying.buffers import Buffer, make_buffers
from snf_image_host.copying.digesting import LATE, LateDigest
from snf_image_host.copying.disarming import disarm, open_target, wipe_ends
from snf_image_host.copying.held import HeldBack
from snf_image_host.copying.target import MIB
from snf_image_host.copying.workers import LOOK, Workers
from snf_image_host.deployment import WipeTail
from snf_image_host.digests import Digests
from snf_image_host.disks import Disk
from snf_image_host.errors import ImageError, VerificationError
from snf_image_host.reporter import CopyProgress
from snf_image_host.sources.stream import ImageStream, refuse_too_large, total_of

BUFFER_SIZE: Final = 4 * MIB
BUFFERS: Final = 6
_LOOK_AT: Final = 256 * 1024
"""Bytes that are read and searched at once: few enough for the processor to have them at hand still."""
_LINE: Final = 256
"""Pieces that wait to be written or digested, at most; those with data are bounded by the buffers."""

Progress = Callable[[CopyProgress], None]
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What a copy did. Sizes in bytes, times in seconds.

    ``sha256``: of the bytes of the image on the disk, None with the digest off; ``source_sha256``: of the
    source as it was published, if that is something else. ``late``: the first of them is still being
    computed, and comes by :meth:`whole`. Of the image and the header before it, ``written`` were sent to the
    disk; ``skipped`` are zeros that it held already or made without being sent them. ``direct``: past the
    page cache.
    """

    image_bytes: int
    sha256: str | None
    written: int
    skipped: int
    seconds: float
    user_seconds: float
    system_seconds: float
    direct: bool
    source_sha256: str | None = None
    late: LateDigest | None = None

    @property
    def is_late(self) -> bool:
        """Whether :meth:`whole` has to wait."""
        return self.late is not None and not self.late.is_ready

    def whole(self) -> CopyResult:
        """The same with its digest, which is waited for if it is late."""
        return self if self.late is None else dataclasses.replace(self, sha256=self.late.wait(), late=None)

    def give_up(self) -> None:
        """Nobody waits for a late digest any more."""
        if self.late is not None:
            self.late.give_up()


def copy_image(
    image: ImageStream,
    disk: Disk,
    *,
    digest: bool = True,
    may_be_late: bool = False,
    wipe_tail: WipeTail = "discard",
    idle_timeout: float = 300.0,
    progress: Progress = lambda _: None,
) -> CopyResult:
    """Copy ``image`` to ``disk``.

    ``may_be_late``: a digest that nobody promised, which only tells what was copied, need not be ready when
    everything is on the disk.

    :class:`~snf_image_host.errors.UserError` if it does not fit, :class:`ImageError` if it ends early, is
    changed meanwhile or is not the one that was promised, :class:`NodeError` if the disk fails or nothing
    moves for ``idle_timeout`` seconds (0: no limit). After an error the disk does not boot; of an image that
    is not the promised one, neither the first nor the last MiB is left.
    """
    refuse_too_large(image, disk)
    begun, before = time.monotonic(), os.times()
    algorithms = image.digests | ({"sha256"} if digest else set())
    copy = _Copy(
        image, disk, idle_timeout, progress, algorithms, may_be_late=may_be_late and not image.digests
    )
    try:
        copy.run(wipe_tail)
    except VerificationError:
        wipe_ends(disk)
        raise
    except BaseException:
        disarm(disk)
        raise
    after = os.times()
    return CopyResult(
        image_bytes=copy.total - len(image.header),
        sha256=copy.digests.get("sha256") if digest else None,
        late=copy.late,
        source_sha256=image.source_digests.get("sha256"),
        written=copy.written,
        skipped=copy.total - copy.written,
        seconds=time.monotonic() - begun,
        user_seconds=after.user - before.user,
        system_seconds=after.system - before.system,
        direct=copy.direct,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the image on its way: ``loan`` None is a hole. Offsets are the disk's."""

    offset: int
    length: int
    loan: _Loan | None


class _Loan:
    """A buffer that goes back to the pool when everybody who needs it is done with it."""

    def __init__(self, buffer: Buffer, pool: queue.Queue[Buffer], users: int) -> None:
        self.buffer = buffer
        self._pool = pool
        self._users = users
        self._lock = threading.Lock()

    def done(self) -> None:
        with self._lock:
            self._users -= 1
            free = self._users == 0
        if free:
            self._pool.put(self.buffer)


class _Copy:
    """One copy: what its threads do, and what passes between them."""

    def __init__(
        self,
        image: ImageStream,
        disk: Disk,
        idle_timeout: float,
        progress: Progress,
        algorithms: Iterable[str],
        *,
        may_be_late: bool,
    ) -> None:
        self.written = 0
        self.direct = False
        self.late: LateDigest | None = None
        self._image = image
        self._disk = disk
        self._progress = progress
        self._position = 0
        self._total = total_of(image)
        self._workers = Workers(
            idle_timeout, tell=self._tell, where=lambda: self._position, abandon=self._abandon
        )
        self._target = open_target(disk, check=self._workers.check)
        self._held = HeldBack(self._total)
        self._digests = Digests(algorithms)
        self._may_be_late = may_be_late
        self._is_copied = threading.Event()
        """All but what is held back is on the disk."""
        self._pool: queue.Queue[Buffer] = queue.Queue()
        for buffer in make_buffers(BUFFERS, BUFFER_SIZE):
            self._pool.put(buffer)
        self._to_write: queue.Queue[_Piece | None] = queue.Queue(_LINE)
        self._to_digest: queue.Queue[_Piece | None] = queue.Queue(_LINE)

    @property
    def digests(self) -> Mapping[str, str]:
        """Of what the image handed out, by name; none while they are late."""
        return self._digests.hex() if self.late is None else {}

    @property
    def total(self) -> int:
        """Bytes on the disk, the header's too; once all were read."""
        assert self._total is not None  # noqa: S101 - known at the end, if not before
        return self._total

    def run(self, wipe_tail: WipeTail) -> None:
        """Empty what boots, copy all else, check it, write what boots."""
        jobs = [self._read, lambda: self._write(wipe_tail)]
        jobs += [self._hash] if self._digests else []
        with self._target:
            self._workers.run(lambda: self._held.clear(self._target))
            self._workers.run(*jobs)
            try:
                self._workers.run(self._check)
                self._workers.run(lambda: self._held.write(self._target))
            except BaseException:
                if self.late is not None:
                    self.late.give_up()
                raise
            self.direct = self._target.is_direct
        self._progress(CopyProgress(position=self._position, total=self._total, final=True))

    def _tell(self) -> None:
        """Who has got on least is what the user waits for."""
        position = self._position
        if self._digests:
            position = min(position, len(self._image.header) + self._digests.position)
        self._progress(CopyProgress(position=position, total=self._total, final=False))

    def _abandon(self) -> None:
        self._image.abandon()
        self._target.abandon()

    def _check(self) -> None:
        self._image.check_whole(self.total - len(self._image.header), self.digests)

    def _read(self) -> None:
        base = len(self._image.header)
        if base:
            buffer = self._next(self._pool)
            buffer.view[:base] = self._image.header
            self._put(self._to_write, _Piece(0, base, _Loan(buffer, self._pool, users=1)))
        # In this order: a digest that goes on when all is written has all it needs.
        lines = [self._to_digest, self._to_write] if self._digests else [self._to_write]
        for piece in itertools.chain(self._pieces(base), [None]):
            for line in lines:
                self._put(line, piece)

    def _pieces(self, base: int) -> Iterator[_Piece]:
        """The image in order. If its size is not known, a part is held until it is not the last one."""
        held: list[_Piece] = []
        for extent in self._image.extents():
            # A hole is one piece, however long.
            for offset, length in extent.parts(extent.length if extent.is_hole else BUFFER_SIZE):
                if extent.is_hole:
                    yield _Piece(base + offset, length, None)
                    continue
                part = self._part(base, offset, length)
                if self._total is not None:
                    yield from part
                    continue
                end = part[-1].offset + part[-1].length
                refuse_too_large(self._image, self._disk, at_least=end)
                is_last = end < base + offset + length
                if is_last:
                    self._total = end
                    self._held.end_at(end)
                yield from held
                held = part
                if is_last:
                    break
        yield from held

    def _part(self, base: int, offset: int, length: int) -> list[_Piece]:
        """Zeros that a part of the image begins with, and what follows them in a buffer.

        If it ends early, its last piece does.
        """
        buffer = self._next(self._pool)
        zeros = count = 0
        while zeros < length:
            step = min(_LOOK_AT, length - zeros)
            count = self._fill(buffer.view[:step], offset + zeros)
            if count < step or not buffer.is_zero(count):
                break
            zeros += count
        pieces = [_Piece(base + offset, zeros, None)] if zeros else []
        if zeros == length:
            self._pool.put(buffer)
            return pieces
        if count == step:
            count += self._fill(buffer.view[count : length - zeros], offset + zeros + count)
        loan = _Loan(buffer, self._pool, users=2 if self._digests else 1)
        return [*pieces, _Piece(base + offset + zeros, count, loan)]

    def _fill(self, view: memoryview, offset: int) -> int:
        """Read the image from ``offset`` on; how much there was, less than asked only at its end."""
        start = offset
        while view:
            self._workers.check()
            count = self._image.read_into(view, offset)
            if count == 0:
                if self._total is None:
                    break
                raise ImageError(f"the image {self._image.shown} ended early, at byte {offset}")
            view, offset = view[count:], offset + count
        return offset - start

    def _put(self, line: queue.Queue[_Piece | None], piece: _Piece | None) -> None:
        """Hand on, when there is room; to wait for that is no progress."""
        while True:
            with contextlib.suppress(queue.Full):
                return line.put(piece, timeout=LOOK)
            self._workers.check_stopped()

    def _next(self, line: queue.Queue[_T]) -> _T:
        """What comes next; to wait for it is no progress."""
        while True:
            with contextlib.suppress(queue.Empty):
                return line.get(timeout=LOOK)
            self._workers.check_stopped()

    def _hash(self) -> None:
        views = self._to_hash()
        for view in views:
            self._workers.check()
            self._digests.update(view)
            if self._may_be_late and self._is_copied.is_set() and self._left_to_hash() <= LATE:
                self.late = LateDigest(self._digests, views)
                return

    def _to_hash(self) -> Iterator[memoryview]:
        """The image in order, in views that are valid until the next one is asked for."""
        zeros = memoryview(bytes(BUFFER_SIZE))
        while (piece := self._next(self._to_digest)) is not None:
            if piece.loan is not None:
                yield piece.loan.buffer.view[: piece.length]
                piece.loan.done()
                continue
            for left in range(piece.length, 0, -BUFFER_SIZE):
                yield zeros[: min(left, BUFFER_SIZE)]

    def _left_to_hash(self) -> int:
        return self.total - len(self._image.header) - self._digests.position

    def _write(self, wipe_tail: WipeTail) -> None:
        while (piece := self._next(self._to_write)) is not None:
            self._workers.check()
            if piece.loan is None:
                self._write_zeros(piece.offset, piece.length)
            else:
                self._write_buffer(piece.loan.buffer, piece)
                piece.loan.done()
            self._position = piece.offset + piece.length
        self._wipe_behind(wipe_tail)
        self._target.flush()
        self._is_copied.set()

    def _write_buffer(self, buffer: Buffer, piece: _Piece) -> None:
        for start, end, is_zero in buffer.runs(piece.length):
            if is_zero:
                self._write_zeros(piece.offset + start, end - start)
                continue
            self.written += end - start
            view, offset = self._held.take(buffer.view[start:end], piece.offset + start)
            if view:
                self._target.write_direct(view, offset)

    def _write_zeros(self, offset: int, length: int) -> None:
        if not self._disk.reads_zero:
            self.written += self._target.zero(offset, length)

    def _wipe_behind(self, how: WipeTail) -> None:
        """What lies behind the image, but for the last MiB, which was emptied at the start (D-10)."""
        start, size = self.total, self._disk.size
        if self._disk.reads_zero:
            return
        if how == "discard":
            self._target.discard(start, max(0, size - MIB - start))
        elif how == "zero":
            self._target.zero(start, size - start)
