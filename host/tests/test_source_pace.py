"""Servers that send a byte now and then: a transfer ends, and is not begun again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulated_source import LoopbackServer, QuietHandler, answering, copied, image_bytes
from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import FetchPolicy, ImageSource, SourceSettings
from snf_image_host.errors import NodeError
from snf_image_host.fetching import fetch_document
from snf_image_host.fetching.pace import Pace
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account

IMAGE = image_bytes(9)
POLICY = FetchPolicy(hosts=("127.0.0.1",), timeout=5, idle_timeout=0.5, min_rate=4096)
Drip = Callable[["Dripping"], None]


class Dripping(QuietHandler):
    """Sends by what the test put into the server, a little at a time, until it is told to stop."""

    server: Server

    def answer(self) -> None:
        self.server.asked.append(self.headers.get("Range", ""))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.drip(self)

    def head(self, start: int, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("ETag", '"v"')
        self.send_header("Content-Length", str(len(IMAGE) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(IMAGE) - 1}/{len(IMAGE)}")
        self.end_headers()

    def trickle(self, data: bytes) -> None:
        """A byte each 20 milliseconds."""
        for value in data:
            if self.server.over.wait(0.02):
                return
            self.wfile.write(bytes([value]))
            self.wfile.flush()


class Server(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(Dripping)
        self.drip: Drip = lambda _: None
        self.asked: list[str] = []
        self.over = threading.Event()


@pytest.fixture
def server() -> Iterator[Server]:
    with answering(Server()) as made:
        yield made
        made.over.set()


def deploy(url: str, disk: Path) -> None:
    settings = SourceSettings(fetch=POLICY, runtime_dir=str(disk.parent / "run"))
    source = ImageSource(
        path=url, shown="the-image", format=ImageFormat.DISKDUMP, kind="url", settings=settings
    )
    copied(source, disk, size=4 << 20, idle_timeout=20)


def steadily(handler: Dripping) -> None:
    handler.head(0)
    handler.trickle(IMAGE)


def breaking_off(handler: Dripping) -> None:
    """A connection that breaks each time just before it could be called slow, and may be resumed."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(asked[1]) if asked else 0
    handler.head(start, 206 if asked else 200)
    handler.trickle(IMAGE[start : start + 10])
    handler.close_connection = True


@pytest.mark.requires("curl")
@pytest.mark.parametrize("drip", [steadily, breaking_off])
def test_a_server_that_drips_is_given_up(drip: Drip, server: Server, tmp_path: Path) -> None:
    """R-FETCH-4, R-SRC-NET-3: bytes that come are no reason to wait for ever, nor is a resumed connection."""
    server.drip = drip
    url = server.url("/a?token=t0psecret").replace("http://", "http://me:pa55word@")
    begun = time.monotonic()
    told = r"only \d+ bytes came in \d+\.\d seconds, and FETCH_MIN_RATE demands 4096 a second"
    with pytest.raises(NodeError, match=told) as caught:
        deploy(url, tmp_path / "disk")
    assert time.monotonic() - begun < 10
    assert len(server.asked) <= 4
    told = f"{caught.value} {caught.value.hint}"
    assert "http://127.0.0.1" in told
    assert "FETCH_MIN_RATE lower" in told
    assert "pa55word" not in told
    assert "t0psecret" not in told


@pytest.mark.requires("curl")
def test_a_document_that_drips_is_given_up(server: Server) -> None:
    """R-FETCH-4: a few bytes are as bad as many if they never end."""
    server.drip = steadily
    with pytest.raises(NodeError, match="FETCH_MIN_RATE demands 4096 a second"):
        fetch_document(server.url("/a"), 2 << 20, POLICY, Account.of_caller(), Reporter())


@pytest.mark.requires("curl")
def test_a_head_that_drips_is_given_up(server: Server) -> None:
    """R-FETCH-4: the limit of the first byte is one of the whole head."""
    server.drip = lambda handler: handler.trickle(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)
    policy = dataclasses.replace(POLICY, timeout=0.7)
    begun = time.monotonic()
    with pytest.raises(NodeError, match=r"no whole answer came within 0\.7 seconds"):
        fetch_document(server.url("/a"), 100, policy, Account.of_caller(), Reporter())
    assert time.monotonic() - begun < 5


def pace(min_rate: int = 100, idle_timeout: float = 10.0) -> Pace:
    return Pace(FetchPolicy(min_rate=min_rate, idle_timeout=idle_timeout))


def test_only_waiting_for_the_server_counts() -> None:
    """R-FETCH-4: a disk that takes an hour for each block is not the server's fault."""
    watch = pace()
    for _ in range(10_000):
        watch.add(1, 0.001, "x")
    for _ in range(5):
        watch.add(0, 1.0, "x")  # the first window had enough
    watch = pace()
    watch.add(999, 9.0, "x")
    with pytest.raises(NodeError, match=r"x: only 999 bytes came in 10\.0 seconds"):
        watch.add(0, 1.0, "x")


def test_a_pause_that_is_allowed_is_no_dripping() -> None:
    """R-FETCH-4: COPY_IDLE_TIMEOUT says how long silence may be, and so how long the mean is taken over."""
    watch = pace()
    for _ in range(20):
        watch.add(0, 9.0, "x")
        watch.add(1000, 1.0, "x")


@pytest.mark.parametrize("limits", [{"min_rate": 0}, {"idle_timeout": 0.0}])
def test_there_may_be_no_limit(limits: dict[str, float]) -> None:
    """R-FETCH-4: 0, as everywhere."""
    watch = Pace(FetchPolicy(**({"min_rate": 1 << 30, "idle_timeout": 10.0} | limits)))  # type: ignore[arg-type]
    for _ in range(100):
        watch.add(1, 1000.0, "x")
