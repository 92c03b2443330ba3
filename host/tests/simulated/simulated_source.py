"""What tests of images' sources share: servers on loopback, a sink that remembers, an image, a copy of it."""

from __future__ import annotations

import contextlib
import http.server
import random
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from snf_image_host.copying import CopyResult, copy_image
from snf_image_host.deployment import ImageSource, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.reporter import Event, Reporter, Sink, Warning
from snf_image_host.sources.image import open_image

MIB = 1 << 20
AnyServer = TypeVar("AnyServer", bound=socketserver.BaseServer)


class Heard:
    """A sink that remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Warning):
            self.warnings.append(event.message)

    def close(self) -> None:
        pass


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """Answers by ``answer``, without a line on standard error for each request."""

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        pass


class LoopbackServer(http.server.ThreadingHTTPServer):
    """HTTP on a free port of loopback. Clients that go away are no errors."""

    daemon_threads = True

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def answering(server: AnyServer) -> Iterator[AnyServer]:
    """The server, which answers from another thread while the context lasts."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def image_bytes(seed: int, size: int = MIB) -> bytes:
    """A first sector that boots and ``size`` bytes of noise: the same for the same seed."""
    noise = random.Random(seed).randbytes(size)  # noqa: S311 - reproducible, not secret
    return bytes(510) + b"\x55\xaa" + noise


def copied(
    source: ImageSource,
    disk: Path,
    *,
    size: int | None = None,
    sink: Sink | None = None,
    idle_timeout: float = 60,
) -> CopyResult:
    """Copy an image onto a disk, as a deployment does. ``size``: the disk is made."""
    target = TargetDisk(index=0, path=str(disk), create_size=size)
    reporter = Reporter() if sink is None else Reporter(sink)
    with open_disks([target]) as disks, open_image(source, reporter) as stream:
        return copy_image(stream, disks[0], idle_timeout=idle_timeout)
