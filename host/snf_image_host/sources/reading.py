"""Bytes that come once, in order: the pieces that a source is put together from."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from snf_image_host.digests import Digests
from snf_image_host.errors import NodeError

BLOCK: Final = 1024 * 1024


class ByteSource(Protocol):
    """Bytes that come once. ``size``: how many, None if that is not known before the last one."""

    @property
    def size(self) -> int | None: ...

    def read_into(self, view: memoryview) -> int:
        """As many bytes as there are now, at least one; 0 at the end, once it is sure that all came.

        Raises a :class:`SnfImageError` if they cannot be read or end early.
        """

    def abandon(self) -> None:
        """From another thread: end a read that is in progress, and every later one."""


class FileSource:
    """A regular file or a pipe, from where it stands."""

    def __init__(self, fd: int, shown: str, size: int | None = None) -> None:
        self.size = size
        self._fd = fd
        self._shown = shown

    def read_into(self, view: memoryview) -> int:
        try:
            return os.readv(self._fd, [view])
        except OSError as error:
            raise NodeError(f"the image {self._shown} cannot be read: {error.strerror}") from None

    def abandon(self) -> None:
        pass  # what a file reads ends by itself


class Prefixed:
    """``head``, which was read to look at it, and then the rest of ``rest``."""

    def __init__(self, head: bytes, rest: ByteSource) -> None:
        self.size = rest.size
        self._head = memoryview(head)
        self._rest = rest

    def read_into(self, view: memoryview) -> int:
        if self._head:
            count = min(len(self._head), len(view))
            view[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        return self._rest.read_into(view)

    def abandon(self) -> None:
        self._rest.abandon()


class Digesting:
    """The same bytes, with digests of them as they pass."""

    def __init__(self, source: ByteSource, algorithms: Iterable[str]) -> None:
        self.size = source.size
        self._source = source
        self._digests = Digests(algorithms)

    @property
    def digests(self) -> Mapping[str, str]:
        """By name, in hexadecimal digits; of everything that was read until now."""
        return self._digests.hex()

    def read_into(self, view: memoryview) -> int:
        count = self._source.read_into(view)
        self._digests.update(view[:count])
        return count

    def abandon(self) -> None:
        self._source.abandon()


def read_head(source: ByteSource, length: int) -> bytes:
    """The first ``length`` bytes, fewer only if there are no more."""
    head = bytearray(length)
    view, at = memoryview(head), 0
    while at < length and (count := source.read_into(view[at:])):
        at += count
    return bytes(head[:at])


def drain(source: ByteSource) -> int:
    """Read to the end, for its digest and to see that it is whole; how many bytes that were."""
    block, total = memoryview(bytearray(BLOCK)), 0
    while count := source.read_into(block):
        total += count
    return total


def widen(fd: int) -> None:
    """Let a pipe hold more: fewer turns between two processes."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, BLOCK)
