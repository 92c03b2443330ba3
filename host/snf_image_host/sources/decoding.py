"""Decompression, by the usual programs: unprivileged, unable to write a file, with limits on memory.

A decoder that is given hostile bytes may do what it likes with what it has, which is two pipes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from snf_image_host.errors import ImageError, NodeError, SnfImageError
from snf_image_host.image_container import Container
from snf_image_host.sources.reading import BLOCK, ByteSource, drain, widen
from snf_image_host.vm.account import Account
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_process import PIPE, ProcessError, Running, start

_MIB: Final = 1024 * 1024
_ENDING_SECONDS: Final = 60.0
_NOT_FOUND: Final = 127
"""What setpriv ends with if there is no such program."""
_STDERR_BYTES: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A program: ``words`` are its arguments, ``package`` is Debian's name for where it comes from."""

    words: tuple[str, ...]
    package: str


DECODERS: Final[Mapping[Container, Decoder]] = {
    Container.GZIP: Decoder(words=("gzip", "-dc"), package="gzip"),
    # More threads if they fit into the limit; a dictionary that does not is an error.
    Container.XZ: Decoder(
        words=(
            "xz",
            "-dc",
            "--no-sparse",
            "--threads=0",
            "--memlimit-mt-decompress=256MiB",
            "--memlimit-decompress=256MiB",
        ),
        package="xz-utils",
    ),
    Container.ZSTD: Decoder(words=("zstd", "-dcq", "--no-sparse", "--memory=256MB"), package="zstd"),
    Container.BZIP2: Decoder(words=("bzip2", "-dc"), package="bzip2"),
    Container.LZ4: Decoder(words=("lz4", "-dcq", "--no-sparse"), package="lz4"),
    # Every file of the archive, one after the other; -vv lists them, and more than one is an error.
    Container.TAR: Decoder(words=("tar", "--extract", "--to-stdout", "-Pvvf", "-"), package="tar"),
}
LIMITS: Final = Limits(address_space=1024 * _MIB, files=64, processes=32, file_size=0)


class Decoding:
    """What ``source`` decodes to. A thread feeds the decoder; who reads gets what comes out."""

    size = None

    def __init__(self, source: ByteSource, container: Container, account: Account, shown: str) -> None:
        """Starts the decoder. :class:`NodeError` if it is not installed."""
        self._source = source
        self._shown = shown
        self._container = container
        self._failure: BaseException | None = None
        self._abandoned = False
        decoder = DECODERS[container]
        self._running = _start(decoder, account)
        assert self._running.stdout is not None and self._running.stdin is not None  # noqa: S101, PT018
        self._out = self._running.stdout.fileno()
        widen(self._out)
        widen(self._running.stdin.fileno())
        self._complaint = b""
        self._files = 0
        self._threads = tuple(
            threading.Thread(target=target, daemon=True) for target in (self._feed, self._listen)
        )
        for thread in self._threads:
            thread.start()

    def read_into(self, view: memoryview) -> int:
        count = os.readv(self._out, [view])
        if count == 0:
            self._check_end()
        return count

    def abandon(self) -> None:
        self._abandoned = True
        self._source.abandon()
        self._running.stop()

    def close(self) -> None:
        self.abandon()
        for thread in self._threads:
            thread.join(_ENDING_SECONDS)
        self._running.__exit__()

    def _feed(self) -> None:
        """The source into the decoder. What a decoder does not want is read all the same, for the digest."""
        stdin = self._running.stdin
        assert stdin is not None  # noqa: S101 - it was asked for
        block = memoryview(bytearray(BLOCK))
        try:
            while count := self._source.read_into(block):
                self._put(stdin.fileno(), block[:count])
        except BrokenPipeError:
            # Content with what it has: the rest belongs to the digest. If it failed, nobody needs it.
            if self._running.wait(_ENDING_SECONDS) == 0:
                self._drain()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            self._failure = error
            # It must not take what it got until now for all.
            self._running.stop()
        finally:
            with contextlib.suppress(OSError):
                stdin.close()

    def _drain(self) -> None:
        try:
            drain(self._source)
        except SnfImageError as error:
            self._failure = error

    def _put(self, fd: int, data: memoryview) -> None:
        while data:
            data = data[os.write(fd, data) :]

    def _listen(self) -> None:
        """Its complaints; it must never wait for somebody to read them."""
        stderr = self._running.stderr
        assert stderr is not None  # noqa: S101 - it was asked for
        at_start = True
        while chunk := os.read(stderr.fileno(), 65536):
            self._complaint = (self._complaint + chunk)[-_STDERR_BYTES:]
            lines = chunk.split(b"\n")
            self._files += sum(line.startswith(b"-") for line in lines[0 if at_start else 1 :])
            at_start = chunk.endswith(b"\n")

    def _check_end(self) -> None:
        for thread in self._threads:
            thread.join(_ENDING_SECONDS)
        if self._failure is not None:
            raise self._failure
        status = self._running.wait(_ENDING_SECONDS)
        if self._abandoned:
            return
        if status == 0 and any(thread.is_alive() for thread in self._threads):
            raise ImageError(
                f"the source of the image {self._shown} does not end where the image ends",
                hint="fetch the image again; what follows it would belong to its digest",
            )
        if status == 0:
            self._check_members()
            return
        decoder = DECODERS[self._container]
        name = decoder.words[0]
        if status == _NOT_FOUND:
            raise NodeError(f"{name} is not installed", hint=f"apt-get install {decoder.package}")
        told = self._complaint.decode("ascii", "replace").splitlines()
        raise ImageError(
            f"the image {self._shown} cannot be decompressed: it is damaged, cut off, "
            f"or takes too much memory ({name}: {_first(told, status)})",
            hint="fetch the image again; if it is whole, compress it with ordinary settings",
        )

    def _check_members(self) -> None:
        if self._container is Container.TAR and self._files != 1:
            raise ImageError(
                f"the archive {self._shown} holds {self._files} files, an image is one",
                hint="take the image out of the archive",
            )


def _first(lines: Sequence[str], status: int | None) -> str:
    """The first line of a complaint, without anything a terminal could act on."""
    text = next((line.strip() for line in lines if line.strip()), "")
    shown = "".join(char if char.isprintable() else "?" for char in text)[:200]
    return shown or ("it does not end" if status is None else f"status {status}")


def _start(decoder: Decoder, account: Account) -> Running:
    try:
        return start(
            [*launcher(account, limits=LIMITS), *decoder.words], stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
    except ProcessError as error:
        raise NodeError(
            f"{decoder.words[0]} cannot be started: {error.reason}",
            hint=f"apt-get install {decoder.package}",
        ) from None
