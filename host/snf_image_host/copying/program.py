"""A copy by a program of the operator: it reads the image from its standard input (R-BACK-3)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from snf_image_host.copying.copy import CopyResult, Progress
from snf_image_host.copying.target import ALIGNMENT, MIB
from snf_image_host.copying.workers import Workers
from snf_image_host.digests import Digests
from snf_image_host.errors import ImageError, NodeError
from snf_image_host.inert import inert
from snf_image_host.reporter import CopyProgress, Reporter
from snf_image_host.sources.backends import BackendPlaces, program_environment
from snf_image_host.sources.reading import widen
from snf_image_host.sources.stream import ImageStream, total_of
from snf_image_process import PIPE, ProcessError, start

_MAX_LINE: Final = 4096
_ENDING_SECONDS: Final = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the program got. ``first_page``: what it got zeros for; to be written when all else is there."""

    result: CopyResult
    first_page: bytes


def copy_by_program(
    image: ImageStream,
    program: str,
    identifier: str,
    image_format: str,
    reporter: Reporter,
    *,
    digest: bool = True,
    idle_timeout: float = 300.0,
    progress: Progress = lambda _: None,
) -> Sent:
    """Hand ``image`` to ``program``, which is told of the disk by ``identifier``.

    :class:`ImageError` as of :func:`copy_image`, :class:`NodeError` if the program fails. What it wrote does
    not boot: it never gets the first page. To be called in the main thread.
    """
    sending = _Sending(image, os.path.basename(program), digest=digest)
    try:
        running = start(
            [program, identifier],
            stdin=PIPE,
            stderr=PIPE,
            env=program_environment(image_format, BackendPlaces()),
        )
    except ProcessError as error:
        raise NodeError(f"the back-end {sending.name} {error.reason}") from None
    begun, before = time.monotonic(), os.times()
    with running:
        assert running.stdin is not None and running.stderr is not None  # noqa: S101, PT018
        stdin, stderr = running.stdin, running.stderr
        widen(stdin.fileno())

        def listen() -> None:
            while line := stderr.readline(_MAX_LINE):
                text = line.decode("utf-8", "backslashreplace").rstrip()
                reporter.debug(f"{sending.name}: {inert(text)}")

        def abandon() -> None:
            image.abandon()
            running.stop()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        workers = Workers(
            idle_timeout,
            tell=lambda: progress(
                CopyProgress(position=sending.position, total=total_of(image), final=False)
            ),
            where=lambda: sending.position,
            abandon=abandon,
        )
        try:
            workers.run(lambda: sending.send(stdin.fileno(), workers.check))
            workers.run(sending.check_whole)
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
            status = running.wait(idle_timeout or None)
        finally:
            running.stop()
            listener.join(_ENDING_SECONDS)
        if status != 0 or sending.was_cut:
            how = "does not end" if status is None else f"ended with status {status}"
            raise NodeError(f"the back-end {sending.name} {how}, after {sending.position} bytes of the image")
    progress(CopyProgress(position=sending.position, total=sending.position, final=True))
    after = os.times()
    result = CopyResult(
        image_bytes=sending.position - len(image.header),
        sha256=sending.digests.get("sha256") if digest else None,
        source_sha256=image.source_digests.get("sha256"),
        written=sending.position,
        skipped=0,
        seconds=time.monotonic() - begun,
        user_seconds=after.user - before.user,
        system_seconds=after.system - before.system,
        direct=False,
    )
    return Sent(result=result, first_page=bytes(sending.first_page))


class _Sending:
    """The image on its way into a pipe."""

    def __init__(self, image: ImageStream, name: str, *, digest: bool) -> None:
        self.name = name
        self.position = 0
        self.first_page = bytearray()
        self.was_cut = False
        """The program wanted no more, though there was more."""
        self._image = image
        self._digests = Digests(image.digests | (frozenset({"sha256"}) if digest else frozenset()))

    @property
    def digests(self) -> dict[str, str]:
        return self._digests.hex()

    def send(self, fd: int, check: Callable[[], None]) -> None:
        """All of it; for a thread of its own."""
        try:
            for part in self._parts():
                check()
                self._put(fd, part, check)
        except BrokenPipeError:
            self.was_cut = True

    def check_whole(self) -> None:
        """Before the program learns that this was all."""
        if not self.was_cut:
            self._image.check_whole(self.position - len(self._image.header), self.digests)

    def _parts(self) -> Iterator[memoryview]:
        if self._image.header:
            yield memoryview(self._image.header)
        buffer, zeros = memoryview(bytearray(MIB)), memoryview(bytes(MIB))
        for extent in self._image.extents():
            for offset, length in extent.parts(MIB):
                part = zeros[:length] if extent.is_hole else self._read(buffer[:length], offset)
                self._digests.update(part)
                if part:
                    yield part
                if len(part) < length:
                    return

    def _read(self, view: memoryview, offset: int) -> memoryview:
        """As much of the image as there is."""
        at = 0
        while at < len(view):
            count = self._image.read_into(view[at:], offset + at)
            if count == 0:
                if self._image.size is not None:
                    raise ImageError(f"the image {self._image.shown} ended early, at byte {offset + at}")
                break
            at += count
        return view[:at]

    def _put(self, fd: int, part: memoryview, check: Callable[[], None]) -> None:
        held = min(len(part), max(0, ALIGNMENT - self.position))
        self.first_page += part[:held]
        for piece in (memoryview(bytes(held)), part[held:]):
            rest = piece
            while rest:
                count = os.write(fd, rest)
                rest = rest[count:]
                self.position += count
                check()
