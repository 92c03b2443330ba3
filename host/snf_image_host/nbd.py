"""A client of the Network Block Device protocol on a connected socket: what copying needs of it, and no more.

The server is a program of ours that talks to what is untrusted: every answer is checked and bounded.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

_MAGIC: Final = 0x4E42444D41474943
_OPTION_MAGIC: Final = 0x49484156454F5054
_REPLY_MAGIC: Final = 0x0003E889045565A9
_REQUEST: Final = 0x25609513
_SIMPLE_REPLY: Final = 0x67446698
_OPT_GO: Final = 7
_REP_ACK, _REP_INFO = 1, 3
_INFO_EXPORT: Final = 0
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_CMD_READ, _CMD_WRITE, _CMD_DISCONNECT, _CMD_FLUSH, _CMD_TRIM, _CMD_ZERO = 0, 1, 2, 3, 4, 6
_HAS_FLAGS, _READ_ONLY, _CAN_FLUSH, _CAN_TRIM, _CAN_ZERO = 1, 2, 4, 32, 64
_MAX_REPLY: Final = 64 * 1024
_PART: Final = 1024 * 1024
_WAITING: Final = 16
"""Parts of a write that may be on their way together."""


class NbdError(Exception):
    """The server refused, answered nonsense or is gone. ``number``: errno of what was asked for, or 0."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


class NbdClient:
    """One export. ``size`` in bytes; ``can_*`` as the server says. For one thread at a time."""

    def __init__(self, connection: socket.socket, export: str) -> None:
        """Negotiates at once. ``connection`` is closed by :meth:`close`; its timeout counts."""
        self._socket = connection
        self._cookie = 0
        try:
            self.size, flags = self._negotiate(export.encode())
        except OSError as error:
            connection.close()
            raise NbdError(str(error) or "the server is gone") from None
        except NbdError:
            connection.close()
            raise
        flags = flags if flags & _HAS_FLAGS else 0
        self.is_read_only = bool(flags & _READ_ONLY)
        self.can_trim = bool(flags & _CAN_TRIM)
        self.can_zero = bool(flags & _CAN_ZERO)
        self._can_flush = bool(flags & _CAN_FLUSH)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with what is at ``offset``; parts of it are asked for together."""
        waiting: dict[int, memoryview] = {}
        with _told():
            for at in range(0, len(view), _PART):
                part = view[at : at + _PART]
                waiting[self._send(_CMD_READ, offset + at, len(part))] = part
            while waiting:
                self._take_reply(waiting, "reading")

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of ``view``; it is safe on the storage only after :meth:`flush`."""
        waiting: dict[int, memoryview] = {}
        nothing = memoryview(b"")
        with _told():
            for at in range(0, len(view), _PART):
                part = view[at : at + _PART]
                waiting[self._send(_CMD_WRITE, offset + at, len(part))] = nothing
                self._socket.sendall(part)
                if len(waiting) == _WAITING:
                    self._take_reply(waiting, "writing")
            while waiting:
                self._take_reply(waiting, "writing")

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, if :attr:`can_zero`. ``length`` is below 4 GiB."""
        self._order(_CMD_ZERO, offset, length, "zeroing")

    def trim(self, offset: int, length: int) -> None:
        """Give a range back, if :attr:`can_trim`. ``length`` is below 4 GiB."""
        self._order(_CMD_TRIM, offset, length, "discarding")

    def flush(self) -> None:
        """Return when all that was written is on the storage; nothing to do where that is always so."""
        if self._can_flush:
            self._order(_CMD_FLUSH, 0, 0, "flushing")

    def interrupt(self) -> None:
        """From another thread: end whatever is waited for."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye, if there is still somebody."""
        try:
            self._send(_CMD_DISCONNECT, 0, 0)
        except OSError:
            pass
        finally:
            self._socket.close()

    def _negotiate(self, export: bytes) -> tuple[int, int]:
        """Size and flags of the export."""
        magic, option_magic, flags = struct.unpack(">QQH", self._receive(18))
        if (magic, option_magic) != (_MAGIC, _OPTION_MAGIC) or not flags & _FIXED_NEWSTYLE:
            raise NbdError("not a server of this protocol")
        self._socket.sendall(struct.pack(">I", _FIXED_NEWSTYLE | (flags & _NO_ZEROES)))
        data = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
        self._socket.sendall(struct.pack(">QII", _OPTION_MAGIC, _OPT_GO, len(data)) + data)
        found = None
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self._receive(20))
            if magic != _REPLY_MAGIC or option != _OPT_GO or length > _MAX_REPLY:
                raise NbdError("an answer out of order")
            body = self._receive(length)
            if kind == _REP_ACK and found is not None:
                return found
            if kind == _REP_INFO and len(body) >= 12 and struct.unpack_from(">H", body)[0] == _INFO_EXPORT:
                size, exported = struct.unpack_from(">QH", body, 2)
                found = int(size), int(exported)
            elif kind != _REP_INFO:
                raise NbdError(f"the export is refused ({kind:#x})")

    def _order(self, command: int, offset: int, length: int, doing: str) -> None:
        with _told():
            waiting = {self._send(command, offset, length): memoryview(b"")}
            self._take_reply(waiting, doing)

    def _send(self, command: int, offset: int, length: int) -> int:
        self._cookie += 1
        self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, command, self._cookie, offset, length))
        return self._cookie

    def _take_reply(self, waiting: dict[int, memoryview], doing: str) -> None:
        """The next answer, whichever it is; what was read goes where ``waiting`` has room for it."""
        magic, error, cookie = struct.unpack(">IIQ", self._receive(16))
        part = waiting.pop(cookie, None)
        if magic != _SIMPLE_REPLY or part is None:
            raise NbdError("an answer to nothing that was asked")
        if error:
            raise NbdError(f"{os.strerror(error)} while {doing}", error)
        while part:
            count = self._socket.recv_into(part)
            if not count:
                raise NbdError("the server is gone")
            part = part[count:]

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            chunk = self._socket.recv(length - len(data))
            if not chunk:
                raise NbdError("the server is gone")
            data += chunk
        return bytes(data)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A connection that fails is an :class:`NbdError` like all else."""
    try:
        yield
    except TimeoutError:
        raise NbdError("the server does not answer") from None
    except OSError as error:
        raise NbdError(error.strerror or "the server is gone") from None
