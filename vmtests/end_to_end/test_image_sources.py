"""Images as they really come: from a server, packed, signed, kept on the node; and in a disk format."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator

import pytest

from snf_image_process import run
from snf_image_vmtests.caller import Caller
from snf_image_vmtests.ext_image import ExtImage
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(400, method="signal"),
]
_MIB = 1024 * 1024


class _Server(http.server.ThreadingHTTPServer):
    """Files of a directory on a free port of loopback, with ETags. ``sent``: what went over the wire."""

    daemon_threads = True

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.sent: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        path = os.path.join(self.server.directory, name)
        if not os.path.exists(path):
            self.send_error(404)
            return
        with open(path, "rb") as file:
            content = file.read()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        is_known = self.headers.get("If-None-Match") == etag
        self.send_response(304 if is_known else 200)
        self.send_header("ETag", etag)
        if not is_known:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not is_known:
            self.server.sent.append(name)
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(directory: str) -> Iterator[_Server]:
    with _Server(directory) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def publish(directory: str, image: FixtureImage, private: str) -> str:
    """The image in an archive with a signed list of digests beside it; the archive's path."""
    archive = os.path.join(directory, "image.tar.xz")
    with tarfile.open(archive, "w:xz", preset=1) as tar:
        tar.add(image.path, "disk.raw")
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    sums = os.path.join(directory, "SHA256SUMS")
    with open(sums, "w", encoding="ascii") as listed:
        listed.write(f"{digest}  image.tar.xz\n")
    words = ["openssl", "pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", sums, "-out", f"{sums}.sig"]
    run(words, timeout=30)
    return archive


def configured(caller: Caller, keys: str) -> str:
    settings = {
        "FETCH_ALLOWED_HOSTS": "127.0.0.1",
        "IMAGE_VERIFY": "require",
        "TRUSTED_KEYS_DIR": keys,
        "IMAGE_CACHE_DIR": caller.path("cache"),
    }
    return caller.file("config", "".join(f"{name}={value}\n" for name, value in settings.items()))


@pytest.mark.requires("curl", "xz", "openssl")
def test_a_signed_archive_of_a_server(caller: Caller, alpine: FixtureImage) -> None:
    """R-SRC-NET-1, D-3, D-4: fetched, verified and taken apart; the second time only asked for."""
    published, keys, private = caller.path("www"), caller.path("keys"), caller.path("private.pem")
    os.mkdir(published)
    os.mkdir(keys)
    run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], timeout=30)
    run(["openssl", "pkey", "-in", private, "-pubout", "-out", f"{keys}/ours.pem"], timeout=30)
    archive = publish(published, alpine, private)
    config = configured(caller, keys)
    disk = caller.path("disk.raw")
    with serving(published) as server:
        words = ("--config", config, "--format", "auto", "--disk-size", "256M")
        for name in ("first", "second"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(disk)
            answer = caller.deploy(
                server.url("image.tar.xz"), disk, *words, "--hostname", f"{name}.example.org"
            )
            answer.demand(0)
            assert ExtImage.on(disk, alpine).text("/etc/hostname").startswith(name)
        assert server.sent.count("image.tar.xz") == 1

        with open(archive, "ab") as file:
            file.write(bytes(4))  # padding, which xz passes over
        used = caller.disk("used.raw", 256)
        answer = caller.deploy(server.url("image.tar.xz"), used, "--config", config, "--format", "auto")
        answer.demand(3, "SHA256SUMS says")
        with open(used, "rb") as written:
            assert not any(written.read(_MIB))
            written.seek(-_MIB, os.SEEK_END)
            assert not any(written.read())

        shutil.rmtree(keys)
        os.mkdir(keys)
        answer = caller.deploy(server.url("image.tar.xz"), caller.path("new.raw"), *words)
        answer.demand(3, "is not signed by a trusted key")
        assert not os.path.exists(caller.path("new.raw"))


@pytest.mark.requires("qemu-img")
def test_a_disk_format_has_to_be_asked_for(caller: Caller, alpine: FixtureImage) -> None:
    """R-FMT-1, D-3: by `--format auto`; as `diskdump` the same bytes are copied as they are."""
    image, disk = caller.path("image"), caller.path("disk.raw")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", alpine.path, image], timeout=120)
    words = ("--disk-size", "256M", "--hostname", "unpacked.example.org")
    caller.deploy(image, disk, *words, "--format", "auto").demand(0)
    assert ExtImage.on(disk, alpine).text("/etc/hostname").startswith("unpacked")
    os.unlink(disk)
    caller.deploy(image, disk, *words, "--format", "diskdump").demand(3, "no partition found")
    assert not os.path.exists(disk)
