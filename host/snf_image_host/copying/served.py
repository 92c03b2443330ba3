"""Writing to a disk behind a URI: by our own client of the server's protocol (R-DST-URI-2)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, Self

from snf_image_host.copying.target import MIB, steps
from snf_image_host.disks import ServedDisk
from snf_image_host.errors import NodeError
from snf_image_host.nbd import NbdClient, NbdError

_ZERO_STEP: Final = 64 * MIB
_DISCARD_STEP: Final = 1024 * MIB
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.EINVAL)


class ServedTarget:
    """The counterpart of :class:`~snf_image_host.copying.target.Target`, with the same methods."""

    is_direct = False

    def __init__(self, disk: ServedDisk, *, check: Callable[[], None] = lambda: None) -> None:
        """:class:`NodeError` if the server is gone."""
        self.disk = disk
        self._check = check
        try:
            self._client = NbdClient(disk.connect(), disk.export)
        except NbdError as error:
            raise self._failed(error, None) from None
        self._can_zero = self._client.can_zero
        self._zeros = memoryview(bytes(MIB))

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data``."""
        for start, part in steps(0, len(data), MIB):
            self._check()
            try:
                self._client.write(data[start : start + part], offset + start)
            except NbdError as error:
                raise self._failed(error, offset + start) from None

    write_direct = write

    def zero(self, offset: int, length: int) -> int:
        """Make a range read as zeros, by the server if it can; how many bytes were sent to it."""
        written = 0
        for start, part in steps(offset, length, _ZERO_STEP):
            self._check()
            if not self._zero_by_server(start, part):
                for at, count in steps(start, part, MIB):
                    self.write(self._zeros[:count], at)
                written += part
        return written

    def discard(self, offset: int, length: int) -> None:
        """Give a range back to the storage, if that is known there; nobody may rely on what it then reads."""
        if not self._client.can_trim:
            return
        for start, part in steps(offset, length, _DISCARD_STEP):
            self._check()
            try:
                self._client.trim(start, part)
            except NbdError as error:
                if error.number not in _UNSUPPORTED:
                    raise self._failed(error, start) from None
                return

    def flush(self) -> None:
        """Return when all that was written is on the storage."""
        self._check()
        try:
            self._client.flush()
        except NbdError as error:
            raise self._failed(error, None) from None

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with what is on the disk at ``offset``."""
        try:
            self._client.read_into(view, offset)
        except NbdError as error:
            raise NodeError(f"{self.disk.path} cannot be read at byte {offset}: {error}") from None

    def abandon(self) -> None:
        """From another thread: end a call that waits for the server, and every later one."""
        self._client.interrupt()

    def _zero_by_server(self, offset: int, length: int) -> bool:
        if not self._can_zero:
            return False
        try:
            self._client.zero(offset, length)
        except NbdError as error:
            if error.number not in _UNSUPPORTED:
                raise self._failed(error, offset) from None
            self._can_zero = False
        return self._can_zero

    def _failed(self, error: NbdError, offset: int | None) -> NodeError:
        at = "" if offset is None else f" at byte {offset}"
        return NodeError(
            f"{self.disk.path} cannot be written{at}: {error}",
            hint="look at the storage behind the URI",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()
