"""A client of the Network Block Device protocol on a connected socket: what copying needs of it, and no more.

The server is a program of ours that reads what is untrusted: every answer is checked and bounded.
"""

from __future__ import annotations

import socket
import struct
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
_CMD_READ, _CMD_DISCONNECT = 0, 2
_MAX_REPLY: Final = 64 * 1024
_PART: Final = 1024 * 1024


class NbdError(Exception):
    """The server refused, answered nonsense or is gone."""


class NbdClient:
    """One export. ``size`` in bytes."""

    def __init__(self, connection: socket.socket, export: str) -> None:
        """Negotiates at once. ``connection`` is closed by :meth:`close`; its timeout counts."""
        self._socket = connection
        self._cookie = 0
        try:
            self.size = self._negotiate(export.encode())
        except OSError as error:
            raise NbdError(str(error) or "the server is gone") from None

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with what is at ``offset``; parts of it are asked for together."""
        waiting: dict[int, memoryview] = {}
        try:
            for at in range(0, len(view), _PART):
                part = view[at : at + _PART]
                self._cookie += 1
                waiting[self._cookie] = part
                self._send(_CMD_READ, self._cookie, offset + at, len(part))
            while waiting:
                self._take_reply(waiting)
        except OSError as error:
            raise NbdError(str(error) or "the server is gone") from None

    def close(self) -> None:
        """Say goodbye, if there is still somebody."""
        try:
            self._send(_CMD_DISCONNECT, 0, 0, 0)
        except OSError:
            pass
        finally:
            self._socket.close()

    def _negotiate(self, export: bytes) -> int:
        magic, option_magic, flags = struct.unpack(">QQH", self._receive(18))
        if (magic, option_magic) != (_MAGIC, _OPTION_MAGIC) or not flags & _FIXED_NEWSTYLE:
            raise NbdError("not a server of this protocol")
        self._socket.sendall(struct.pack(">I", _FIXED_NEWSTYLE | (flags & _NO_ZEROES)))
        data = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
        self._socket.sendall(struct.pack(">QII", _OPTION_MAGIC, _OPT_GO, len(data)) + data)
        size = None
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self._receive(20))
            if magic != _REPLY_MAGIC or option != _OPT_GO or length > _MAX_REPLY:
                raise NbdError("an answer out of order")
            body = self._receive(length)
            if kind == _REP_ACK and size is not None:
                return size
            if kind == _REP_INFO and len(body) >= 10 and struct.unpack_from(">H", body)[0] == _INFO_EXPORT:
                size = int(struct.unpack_from(">Q", body, 2)[0])
            elif kind != _REP_INFO:
                raise NbdError(f"the export is refused ({kind:#x})")

    def _send(self, command: int, cookie: int, offset: int, length: int) -> None:
        self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, command, cookie, offset, length))

    def _take_reply(self, waiting: dict[int, memoryview]) -> None:
        magic, error, cookie = struct.unpack(">IIQ", self._receive(16))
        part = waiting.pop(cookie, None)
        if magic != _SIMPLE_REPLY or part is None:
            raise NbdError("an answer to nothing that was asked")
        if error:
            raise NbdError(f"error {error} while reading")
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
