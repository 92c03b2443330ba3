"""A small FTP server on loopback, plain or with implicit TLS, that can be told to misbehave."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from typing import Final

from simulated_source import answering


@dataclasses.dataclass(slots=True, kw_only=True)
class FtpFile:
    """``told``: what SIZE answers, None for an error. ``sent``: bytes after which the transfer ends.

    ``stalls``: after them nothing happens any more, instead of an end. ``status``: of the transfer's end.
    """

    data: bytes
    told: int | None
    sent: int | None = None
    stalls: bool = False
    status: str = "226 done"
    endless: bool = False


class FtpServer(socketserver.ThreadingTCPServer):
    """``files`` by path, ``commands``: all that was said to it. ``pasv_host``: what PASV tells."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.context = context
        self.files: dict[str, FtpFile] = {}
        self.commands: list[str] = []
        self.epsv = True
        self.pasv_host = "127,0,0,1"
        self.stopping = threading.Event()

    def put(self, path: str, data: bytes) -> FtpFile:
        self.files[path] = FtpFile(data=data, told=len(data))
        return self.files[path]

    def url(self, path: str, *, login: str = "") -> str:
        scheme = "ftp" if self.context is None else "ftps"
        return f"{scheme}://{login}127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away


_SIMPLE: Final = {
    "USER": "331 password",
    "PASS": "230 welcome",
    "PWD": '257 "/"',
    "TYPE": "200 binary",
    "PBSZ": "200 fine",
    "PROT": "200 private",
    "QUIT": "221 bye",
}


class _Session(socketserver.BaseRequestHandler):
    server: FtpServer

    def handle(self) -> None:
        connection = self._secured(self.request)
        self._directory = "/"
        self._door: socket.socket | None = None
        with contextlib.suppress(OSError), connection, connection.makefile("rwb", buffering=0) as control:
            control.write(b"220 ready\r\n")
            while line := control.readline(4096):
                words = line.decode("latin-1").strip()
                self.server.commands.append(words)
                verb, _, argument = words.partition(" ")
                for answer in self._answer(verb.upper(), argument):
                    control.write(answer.encode() + b"\r\n")

    def _secured(self, connection: socket.socket) -> socket.socket:
        context = self.server.context
        return connection if context is None else context.wrap_socket(connection, server_side=True)

    def _answer(self, verb: str, argument: str) -> Iterator[str]:
        match verb:
            case _ if verb in _SIMPLE:
                yield _SIMPLE[verb]
            case "CWD":
                self._directory = (
                    argument if argument.startswith("/") else f"{self._directory.rstrip('/')}/{argument}"
                )
                yield "250 there"
            case "EPSV" if self.server.epsv:
                yield f"229 Entering (|||{self._listen()}|)"
            case "PASV":
                port = self._listen()
                yield f"227 Entering ({self.server.pasv_host},{port >> 8},{port & 255})"
            case "SIZE":
                file = self._file(argument)
                if file is None:
                    yield "550 no such file"
                else:
                    yield "502 no such command" if file.told is None else f"213 {file.told}"
            case "RETR":
                yield from self._send(argument)
            case _:
                yield "502 no such command"

    def _file(self, name: str) -> FtpFile | None:
        return self.server.files.get(
            name if name.startswith("/") else f"{self._directory.rstrip('/')}/{name}"
        )

    def _listen(self) -> int:
        self._door = socket.create_server(("127.0.0.1", 0))
        return int(self._door.getsockname()[1])

    def _send(self, name: str) -> Iterator[str]:
        file = self._file(name)
        if file is None or self._door is None:
            yield "550 no such file"
            return
        yield "150 here it comes"
        with self._door, contextlib.suppress(OSError):
            data, _ = self._door.accept()
            with self._secured(data) as secured:
                secured.sendall(file.data if file.sent is None else file.data[: file.sent])
                while file.endless and not self.server.stopping.is_set():
                    secured.sendall(file.data)
                if file.stalls:
                    self.server.stopping.wait(30)
                if isinstance(secured, ssl.SSLSocket):
                    with contextlib.suppress(OSError):
                        secured.unwrap()
        yield file.status


@contextlib.contextmanager
def ftp_server(context: ssl.SSLContext | None = None) -> Iterator[FtpServer]:
    """One that answers while the context lasts."""
    with answering(FtpServer(context)) as server:
        yield server
        server.stopping.set()
