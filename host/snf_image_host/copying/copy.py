"""The copy: reading, digesting and writing overlap; the disk becomes bootable last of all.

One thread reads into a few large buffers, one computes the digest, one writes; the calling thread watches
over them and tells of progress. Until everything else is on the disk and flushed, the disk's first sectors
and the end of the image, where a GPT has its headers, stay empty (D-12).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from snf_image_host.copying.pieces import GRANULE, Buffer, extents
from snf_image_host.copying.target import MIB, Target
from snf_image_host.deployment import WipeTail
from snf_image_host.disks import OpenDisk
from snf_image_host.errors import ImageError, NodeError
from snf_image_host.reporter import CopyProgress
from snf_image_host.source import ImageStream, refuse_too_large

BUFFER_SIZE: Final = 4 * MIB
BUFFERS: Final = 6
_WATCH: Final = 0.1
_CLOSING: Final = 30.0

Progress = Callable[[CopyProgress], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What a copy did. Sizes in bytes, times in seconds.

    ``sha256``: of the image as it was read, None with the digest off. ``written``: bytes that were sent to
    the disk; ``skipped``: zeros that were there already or were made without writing.
    """

    image_bytes: int
    sha256: str | None
    written: int
    skipped: int
    seconds: float
    user_seconds: float
    system_seconds: float
    direct: bool


def copy_image(
    image: ImageStream,
    disk: OpenDisk,
    *,
    digest: bool = True,
    expected_sha256: str | None = None,
    wipe_tail: WipeTail = "discard",
    idle_timeout: float = 300.0,
    progress: Progress = lambda _: None,
) -> CopyResult:
    """Copy ``image`` to ``disk``.

    :class:`~snf_image_host.errors.UserError` if it does not fit, :class:`ImageError` if it ends early or its
    digest is not the expected one, :class:`NodeError` if the disk fails or nothing moves for
    ``idle_timeout`` seconds (0: no limit). After an error the disk does not boot.
    """
    refuse_too_large(image, disk)
    begun, before = time.monotonic(), os.times()
    with Target(disk) as target:
        _Held.clear(image, target)
        copier = _Copier(image, target, digest=digest or expected_sha256 is not None)
        copier.run(idle_timeout, progress)
        sha256 = copier.sha256()
        if expected_sha256 is not None and sha256 != expected_sha256.lower():
            raise ImageError(
                f"the image {image.shown} has sha256 {sha256}, expected was {expected_sha256}",
                hint="fetch the image again, or ask its maker which digest is right",
            )
        _wipe_behind(image, target, wipe_tail)
        target.flush()
        copier.held.write(target)
        target.flush()
        progress(CopyProgress(position=image.total, total=image.total, final=True))
        after = os.times()
        return CopyResult(
            image_bytes=image.size,
            sha256=sha256,
            written=target.written,
            skipped=image.total - min(image.total, target.written),
            seconds=time.monotonic() - begun,
            user_seconds=after.user - before.user,
            system_seconds=after.system - before.system,
            direct=target.is_direct,
        )


class _Held:
    """The parts that make a disk bootable, held back until all else is on it: its head, and its end."""

    def __init__(self, total: int) -> None:
        self._tail_start = max(GRANULE, (total - 1) // GRANULE * GRANULE)
        self._parts: list[tuple[int, bytes]] = []

    def take(self, view: memoryview, offset: int) -> memoryview:
        """Keep what of ``view`` is to be held back; the rest, which may be empty."""
        if offset < GRANULE:
            cut = min(len(view), GRANULE - offset)
            self._parts.append((offset, bytes(view[:cut])))
            return view[cut:]
        if offset + len(view) > self._tail_start:
            cut = max(0, self._tail_start - offset)
            self._parts.append((max(offset, self._tail_start), bytes(view[cut:])))
            return view[:cut]
        return view

    def write(self, target: Target) -> None:
        """The end of the image first, the head of the disk last."""
        for offset, data in sorted(self._parts, reverse=True):
            target.write(memoryview(data), offset)

    @staticmethod
    def clear(image: ImageStream, target: Target) -> None:
        """Empty both places, whatever an earlier deployment left there."""
        size = target.disk.size
        target.zero(0, min(GRANULE, size))
        target.zero(max(GRANULE, size - MIB), min(MIB, size - GRANULE))
        tail = max(GRANULE, (image.total - 1) // GRANULE * GRANULE)
        target.zero(tail, image.total - tail)
        target.flush()


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the image on its way: ``buffer`` None is a hole. Offsets are the image's."""

    offset: int
    length: int
    buffer: _Loan | None


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


class _Stopped(Exception):  # noqa: N818 - no error: the copy was told to end
    """Another part of the copy has failed."""


class _Copier:
    """Three threads and the buffers between them."""

    def __init__(self, image: ImageStream, target: Target, *, digest: bool) -> None:
        self._image = image
        self._target = target
        self._digest = hashlib.sha256() if digest else None
        self.held = _Held(image.total)
        self._pool: queue.Queue[Buffer] = queue.Queue()
        for _ in range(BUFFERS):
            self._pool.put(Buffer(BUFFER_SIZE))
        self._to_write: queue.Queue[_Piece | None] = queue.Queue()
        self._to_digest: queue.Queue[_Piece | None] = queue.Queue()
        self._stop = threading.Event()
        self._failures: queue.Queue[BaseException] = queue.Queue()
        self._moved = 0
        self._position = len(image.header)

    def sha256(self) -> str | None:
        return self._digest.hexdigest() if self._digest is not None else None

    def run(self, idle_timeout: float, progress: Progress) -> None:
        """Copy all but the held parts; raises what went wrong first."""
        header = self.held.take(memoryview(self._image.header), 0)
        if header:
            self._target.write(header, len(self._image.header) - len(header))
        jobs = [self._read, self._write]
        jobs += [self._hash] if self._digest is not None else []
        threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            self._watch(threads, idle_timeout, progress)
        finally:
            self._stop.set()
            # A thread that hangs in the kernel is left to it; nothing it does reaches the disk any more
            # but the one write it is in.
            end = time.monotonic() + _CLOSING
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        if not self._failures.empty():
            raise self._failures.get()

    def _watch(self, threads: list[threading.Thread], idle_timeout: float, progress: Progress) -> None:
        seen, since = -1, time.monotonic()
        while any(thread.is_alive() for thread in threads) and self._failures.empty():
            for thread in threads:
                thread.join(_WATCH if thread is threads[-1] else 0)
            progress(CopyProgress(position=self._position, total=self._image.total))
            if self._moved != seen:
                seen, since = self._moved, time.monotonic()
            elif idle_timeout and time.monotonic() - since > idle_timeout:
                raise NodeError(
                    f"nothing was copied for {idle_timeout:g} seconds, at byte {self._position}",
                    hint="look at the disks' health; COPY_IDLE_TIMEOUT sets this limit",
                )

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that watches
            self._failures.put(error)
        finally:
            self._moved += 1

    def _read(self) -> None:
        fd, image = self._image.fd, self._image
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for extent in extents(fd, image.size):
            if extent.is_hole:
                self._pass_on(_Piece(extent.offset, extent.length, None))
                continue
            offset, end = extent.offset, extent.offset + extent.length
            while offset < end:
                buffer = self._take_buffer()
                length = self._fill(buffer, offset, min(BUFFER_SIZE, end - offset))
                users = 1 if self._digest is None else 2
                self._pass_on(_Piece(offset, length, _Loan(buffer, self._pool, users)))
                offset += length
        for line in (self._to_write, self._to_digest):
            line.put(None)

    def _take_buffer(self) -> Buffer:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                return self._pool.get(timeout=_WATCH)
        raise _Stopped

    def _fill(self, buffer: Buffer, offset: int, length: int) -> int:
        filled = 0
        while filled < length:
            try:
                count = os.preadv(self._image.fd, [buffer.view[filled:length]], offset + filled)
            except OSError as error:
                at = f"{self._image.shown} cannot be read at byte {offset + filled}"
                raise NodeError(f"the image {at}: {error.strerror}") from None
            if count == 0:
                raise ImageError(f"the image {self._image.shown} ended early, at byte {offset + filled}")
            filled += count
            self._moved += 1
        return filled

    def _pass_on(self, piece: _Piece) -> None:
        self._to_write.put(piece)
        if self._digest is not None:
            self._to_digest.put(piece)

    def _next(self, line: queue.Queue[_Piece | None]) -> _Piece | None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                return line.get(timeout=_WATCH)
        raise _Stopped

    def _hash(self) -> None:
        assert self._digest is not None  # noqa: S101 - this thread exists only with a digest
        zeros = memoryview(bytes(BUFFER_SIZE))
        while (piece := self._next(self._to_digest)) is not None:
            if piece.buffer is not None:
                self._digest.update(piece.buffer.buffer.view[: piece.length])
                piece.buffer.done()
                continue
            left = piece.length
            while left and not self._stop.is_set():
                part = min(left, len(zeros))
                self._digest.update(zeros[:part])
                left -= part
                self._moved += 1

    def _write(self) -> None:
        base = len(self._image.header)
        while (piece := self._next(self._to_write)) is not None:
            if piece.buffer is None:
                self._write_zeros(base + piece.offset, piece.length)
            else:
                buffer = piece.buffer.buffer
                for start, end, is_zero in buffer.runs(piece.length):
                    if is_zero:
                        self._write_zeros(base + piece.offset + start, end - start)
                    else:
                        self._write_data(buffer.view[start:end], base + piece.offset + start)
                piece.buffer.done()
            self._position = base + piece.offset + piece.length
            self._moved += 1

    def _write_data(self, view: memoryview, offset: int) -> None:
        """Write ``view`` but for what is held back at either end of the image."""
        if offset < GRANULE:
            view, offset = self.held.take(view, offset), max(offset, GRANULE)
        self._target.write_direct(self.held.take(view, offset), offset)

    def _write_zeros(self, offset: int, length: int) -> None:
        if not self._target.disk.reads_zero:
            self._target.zero(offset, length)


def _wipe_behind(image: ImageStream, target: Target, how: WipeTail) -> None:
    """What lies behind the image: discarded, zeroed or left; the last MiB never survives (D-10)."""
    start, size = image.total, target.disk.size
    if start >= size:
        return
    if not target.disk.reads_zero:
        if how == "zero":
            target.zero(start, size - start)
        elif how == "discard":
            target.discard(start, size - start)
    last = max(start, size - MIB)
    target.zero(last, size - last)
