"""Images from servers: who may be talked to, where redirects may lead, what a broken transfer does."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulated_source import MIB, LoopbackServer, QuietHandler, answering, copied, image_bytes
from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import FetchPolicy, ImageSource, SourceSettings
from snf_image_host.errors import ImageError, NodeError, UserError
from snf_image_host.fetching import fetch_document, transfer
from snf_image_host.fetching.curl import Call, configuration, run_curl
from snf_image_host.image_container import Container
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account
from snf_image_process import Running, start

IMAGE = image_bytes(3, 3 * MIB)
LOOPBACK = FetchPolicy(hosts=("127.0.0.1",), timeout=5, idle_timeout=2, max_redirects=3)
Answer = Callable[["Handler"], None]
pytestmark = pytest.mark.requires("curl")


class Handler(QuietHandler):
    """Answers by what the test put into the server."""

    server: Server

    def answer(self) -> None:
        self.server.seen.append((self.path, dict(self.headers.items())))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answers[self.path.partition("?")[0]](self)

    def say(self, status: int, body: bytes = b"", **fields: str) -> None:
        """A response; ``_`` in a field's name is a hyphen."""
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        if not {"content_length", "Content_Length"} & set(fields):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []


@pytest.fixture
def server() -> Iterator[Server]:
    with answering(Server()) as made:
        yield made


def deploy(
    url: str, disk: Path, *, policy: FetchPolicy = LOOPBACK, container: str = "raw", sha256: str | None = None
) -> CopyResult:
    source = ImageSource(
        path=url,
        shown="the-image",
        format=ImageFormat.DISKDUMP,
        kind="url",
        container=container,
        sha256=sha256,
        settings=SourceSettings(
            fetch=policy, containers=frozenset(Container), runtime_dir=str(disk.parent / "run")
        ),
    )
    return copied(source, disk, size=4 * MIB, idle_timeout=20)


def test_an_image_is_fetched(server: Server, tmp_path: Path) -> None:
    """R-SRC-NET-1, R-SRC-NET-2, T-8: and its size is known, however its field is written."""
    server.answers["/a b"[:2]] = lambda h: h.say(200, IMAGE, content_length=str(len(IMAGE)))
    result = deploy(server.url("/a"), tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes()[: len(IMAGE)] == IMAGE
    assert result.image_bytes == len(IMAGE)


def test_a_compressed_image_of_unknown_size_is_fetched(server: Server, tmp_path: Path) -> None:
    """R-SRC-NET-2: chunks tell no size, and that is fine."""

    def chunked(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in (gzip.compress(IMAGE[:MIB]), gzip.compress(IMAGE[MIB:])):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    server.answers["/a"] = chunked
    deploy(server.url("/a"), tmp_path / "disk", container="auto")
    assert (tmp_path / "disk").read_bytes()[: len(IMAGE)] == IMAGE


def test_redirects_are_followed_and_only_the_last_size_counts(server: Server, tmp_path: Path) -> None:
    """R-FETCH-2, T-9: relative ones too."""
    server.answers["/a"] = lambda h: h.say(302, b"x" * 77, Location="/b?x=1")
    server.answers["/b"] = lambda h: h.say(308, b"", Location=server.url("/c"))
    server.answers["/c"] = lambda h: h.say(200, IMAGE)
    assert deploy(server.url("/a"), tmp_path / "disk").image_bytes == len(IMAGE)
    assert [path for path, _ in server.seen] == ["/a", "/b?x=1", "/c"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/shadow", "redirects to a URL of scheme file"),
        ("gopher://127.0.0.1/", "redirects to a URL of scheme gopher"),
        ("http://127.0.0.2:1/", "not in FETCH_ALLOWED_HOSTS"),
        ("//[::1]:1/", "not in FETCH_ALLOWED_HOSTS"),
        ("http://a b/", "without white space"),
        ("http://[bad/", "no URL"),
        ("/a", "more than 3 redirects"),
    ],
)
def test_redirects_lead_nowhere_else(location: str, message: str, server: Server, tmp_path: Path) -> None:
    """R-FETCH-2, T-3: every hop passes what the first one passed, and there is an end of them."""
    server.answers["/a"] = lambda h: h.say(302, Location=location)
    with pytest.raises((UserError, ImageError), match=message):
        deploy(server.url("/a"), tmp_path / "disk")
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize(
    ("location", "reason", "allow_private"),
    [
        ("http://127.0.0.1/b", "loopback", True),
        ("//[::1]/b", "loopback", True),
        ("http://inside.example.test/b", "loopback", True),
        ("http://169.254.169.254/latest/meta-data", "link-local", True),
        ("http://10.0.0.1/b", "private", False),
        ("http://10.0.0.1/b", None, True),
        ("http://8.8.8.8/b", None, False),
    ],
)
def test_redirects_lead_to_no_address_that_is_refused(
    location: str,
    reason: str | None,
    *,
    allow_private: bool,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-FETCH-2, R-FETCH-3, T-3: no list of hosts is needed for that; a public server leads nobody inside."""
    public = {"outside.example.test": "8.8.8.8", "inside.example.test": "127.0.0.1"}
    here = {"address": ipaddress.ip_address("127.0.0.1"), "port": server.server_address[1]}
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **how: resolve(public.get(host, host), port, **how)
    )
    # Whoever may be asked, this server answers.
    monkeypatch.setattr(
        transfer, "run_curl", lambda call, *rest: run_curl(dataclasses.replace(call, **here), *rest)
    )
    server.answers["/a"] = lambda h: h.say(302, Location=location)
    server.answers["/b"] = server.answers["/latest/meta-data"] = lambda h: h.say(200, IMAGE)
    policy = FetchPolicy(allow_private=allow_private)
    if reason is None:
        assert deploy("http://outside.example.test/a", tmp_path / "disk", policy=policy).image_bytes
        return
    with pytest.raises(UserError, match=f"has a {reason} address"):
        deploy("http://outside.example.test/a", tmp_path / "disk", policy=policy)
    assert [path for path, _ in server.seen] == ["/a"]


def test_the_connection_goes_to_the_address_that_was_checked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-FETCH-3, T-3: a name is resolved once; what it resolves to later does not matter."""
    resolved: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        resolved.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    server.answers["/a"] = lambda h: h.say(200, IMAGE)
    port = server.server_address[1]
    policy = FetchPolicy(hosts=("*.example.test",), timeout=5, idle_timeout=2)
    deploy(f"http://no-such-host.example.test:{port}/a", tmp_path / "disk", policy=policy)
    assert resolved == ["no-such-host.example.test"]
    assert server.seen[0][1]["Host"] == f"no-such-host.example.test:{port}"


def cut_after(count: int, *, etag: str | None, honest: bool = True) -> Answer:
    """An answer whose connection breaks after ``count`` bytes of the body, unless a range is asked for."""

    def answer(handler: Handler) -> None:
        fields = {} if etag is None else {"ETag": etag}
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and not honest:
            handler.say(200, IMAGE, **fields)
            return
        if asked:
            fields["Content_Range"] = f"bytes {start}-{len(IMAGE) - 1}/{len(IMAGE)}"
        rest = IMAGE[start:]
        body = rest[:count] if start == 0 else rest
        handler.say(206 if asked else 200, body, Content_Length=str(len(rest)), **fields)
        handler.close_connection = True

    return answer


def test_a_broken_transfer_is_resumed(server: Server, tmp_path: Path) -> None:
    """R-SRC-NET-3: behind the last byte, with the validator of what was read."""
    server.answers["/a"] = cut_after(MIB + 5, etag='"v1"')
    deploy(server.url("/a"), tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes()[: len(IMAGE)] == IMAGE
    assert server.seen[1][1]["Range"] == f"bytes={MIB + 5}-"
    assert server.seen[1][1]["If-Range"] == '"v1"'


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_validator_a_short_body_is_an_error(
    etag: str | None, server: Server, tmp_path: Path
) -> None:
    """R-SRC-NET-3, T-11."""
    server.answers["/a"] = cut_after(MIB, etag=etag)
    with pytest.raises(ImageError, match=f"ended early, after {MIB} of {len(IMAGE)} bytes"):
        deploy(server.url("/a"), tmp_path / "disk")
    assert len(server.seen) == 1


def test_an_image_that_changed_is_not_pieced_together(server: Server, tmp_path: Path) -> None:
    """R-SRC-NET-3, T-11: a server that answers a range with the whole has another image by now."""
    server.answers["/a"] = cut_after(MIB, etag='"v1"', honest=False)
    with pytest.raises(ImageError, match="was changed on the server"):
        deploy(server.url("/a"), tmp_path / "disk")


def test_resuming_has_an_end(server: Server, tmp_path: Path) -> None:
    """R-SRC-NET-3: three times."""

    def drip(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        span = f"bytes {start}-{len(IMAGE) - 1}/{len(IMAGE)}"
        body, length = IMAGE[start : start + 1000], str(len(IMAGE) - start)
        handler.say(206 if asked else 200, body, ETag='"v"', Content_Length=length, Content_Range=span)

    server.answers["/a"] = drip
    with pytest.raises(ImageError, match="ended early, after"):
        deploy(server.url("/a"), tmp_path / "disk")
    assert len(server.seen) == 4


def test_a_server_that_stalls_does_not_hold_the_node(server: Server, tmp_path: Path) -> None:
    """R-FETCH-4: neither before the first byte nor in the middle."""
    gone = threading.Event()

    def stall(handler: Handler) -> None:
        handler.say(200, IMAGE[:MIB], Content_Length=str(len(IMAGE)))
        handler.wfile.flush()
        gone.wait(30)

    server.answers["/a"] = stall

    def silence(_: Handler) -> None:
        gone.wait(30)

    server.answers["/b"] = silence
    policy = FetchPolicy(hosts=("127.0.0.1",), timeout=0.7, idle_timeout=0.7)
    begun = time.monotonic()
    for path, told in (("/a", "nothing came for"), ("/b", "no whole answer came within")):
        with pytest.raises(NodeError, match=rf"{told} 0\.7 seconds"):
            deploy(server.url(path), tmp_path / "disk", policy=policy)
    gone.set()
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(("status", "kind"), [(404, UserError), (403, UserError), (500, NodeError)])
def test_any_other_status_is_an_error(
    status: int, kind: type[Exception], server: Server, tmp_path: Path
) -> None:
    """R-FETCH-5."""
    server.answers["/a"] = lambda h: h.say(status, b"an error page")
    with pytest.raises(kind, match=f"answers with status {status}"):
        deploy(server.url("/a"), tmp_path / "disk")


@pytest.mark.parametrize(
    "answer", [b"garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000, b"\0\0\0\n\n"]
)
def test_what_is_no_answer_is_an_error(answer: bytes, server: Server, tmp_path: Path) -> None:
    """R-BACK-9: and ends."""

    def raw(handler: Handler) -> None:
        handler.wfile.write(answer)
        handler.close_connection = True

    server.answers["/a"] = raw
    with pytest.raises((ImageError, NodeError)):
        deploy(server.url("/a"), tmp_path / "disk")


@pytest.mark.parametrize("begins", [b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\n\n"])
@pytest.mark.parametrize("line", [b"\n", b"\r\n"])
def test_a_head_ends_at_the_first_empty_line(
    begins: bytes, line: bytes, server: Server, tmp_path: Path
) -> None:
    """R-SRC-NET-2, T-11: whichever way its lines end; nothing of the body is taken for a part of it."""
    body = IMAGE[:600] + begins + IMAGE[600:]

    def raw(handler: Handler) -> None:
        handler.wfile.write(line.join((b"HTTP/1.1 200 OK", b"Connection: close", b"", body)))
        handler.close_connection = True

    server.answers["/a"] = raw
    assert deploy(server.url("/a"), tmp_path / "disk").image_bytes == len(body)
    assert (tmp_path / "disk").read_bytes()[: len(body)] == body


def test_no_credentials_are_seen(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-SEC-1, R-SEC-2, T-6: not in arguments, and not in what users are told."""
    argvs: list[str] = []

    def note(words: list[str], *, stdin: int, stdout: int, stderr: int, pass_fds: tuple[int, ...]) -> Running:
        argvs.extend(words)
        return start(words, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds)

    monkeypatch.setattr("snf_image_host.fetching.curl.start", note)
    url = server.url("/a?token=t0psecret").replace("http://", "http://me:pa55word@")
    server.answers["/a"] = lambda h: h.say(403)
    with pytest.raises(UserError) as caught:
        deploy(url, tmp_path / "disk")
    told = " ".join((str(caught.value), caught.value.hint, *argvs))
    assert "pa55word" not in told
    assert "t0psecret" not in told
    assert server.seen[0][1]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("evil", ['http://h/"\noutput = "/etc/x', "http://h/a -o/etc/x", "http://h\\@g/"])
def test_a_url_never_becomes_an_option(evil: str, tmp_path: Path) -> None:
    """R-FETCH-1, T-1."""
    with pytest.raises(UserError, match="white space, control characters and back-slashes"):
        deploy(evil, tmp_path / "disk")


def test_what_curl_reads_is_quoted() -> None:
    """R-FETCH-1, T-1: one option a line, whatever is in the URL."""
    address = ipaddress.ip_address("2001:db8::1")
    call = Call(url='https://h/"; output = "x', shown="h", address=address, port=443)
    lines = configuration(call, FetchPolicy(), certificates=9).splitlines()
    assert lines[0] == 'url = "https://h/\\"; output = \\"x"'
    assert 'proto = "=https"' in lines
    assert 'connect-to = "::[2001:db8::1]:443"' in lines
    assert 'cacert = "/proc/self/fd/9"' in lines
    assert "insecure" not in lines
    assert "insecure" in configuration(call, FetchPolicy(insecure=True)).splitlines()


def test_a_document_has_a_longest_length(server: Server) -> None:
    """R-FETCH-4: told before or not."""
    server.answers["/a"] = lambda h: h.say(200, b"x" * 100)
    account = Account.of_caller()
    assert fetch_document(server.url("/a"), 100, LOOPBACK, account, Reporter()) == b"x" * 100
    with pytest.raises(UserError, match="at most 99 are taken"):
        fetch_document(server.url("/a"), 99, LOOPBACK, account, Reporter())
