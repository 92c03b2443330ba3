"""Images from real servers of ftp, ftps and https on loopback, good ones and bad ones."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from simulated_certificate import make_certificate
from simulated_ftp import FtpServer, ftp_server
from simulated_source import MIB, Heard, LoopbackServer, QuietHandler, answering, copied, image_bytes
from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import FetchPolicy, ImageSource, SourceSettings
from snf_image_host.errors import ImageError, NodeError, SnfImageError, UserError
from snf_image_host.fetching import fetch_document
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account

IMAGE: Final = image_bytes(5, 2 * MIB)
LOOPBACK: Final = FetchPolicy(hosts=("127.0.0.1",), timeout=5, idle_timeout=5)
pytestmark = pytest.mark.requires("curl")


def deploy(url: str, disk: Path, policy: FetchPolicy = LOOPBACK, heard: Heard | None = None) -> CopyResult:
    source = ImageSource(
        path=url,
        shown="the-image",
        format=ImageFormat.DISKDUMP,
        kind="url",
        settings=SourceSettings(fetch=policy, runtime_dir=str(disk.parent / "run")),
    )
    return copied(source, disk, size=4 * MIB, sink=heard, idle_timeout=20)


def arrived(disk: Path) -> bool:
    return disk.read_bytes()[: len(IMAGE)] == IMAGE


class Handler(QuietHandler):
    def answer(self) -> None:
        with contextlib.suppress(OSError):
            if self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                for _ in itertools.count():
                    self.wfile.write(IMAGE)
            if self.path == "/downgrade":
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1:9/image")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(IMAGE)))
            self.end_headers()
            # A body beyond what was announced is none of the response's.
            self.wfile.write(IMAGE + (b"more" if self.path == "/more" else b""))


@contextlib.contextmanager
def https(context: ssl.SSLContext) -> Iterator[str]:
    server = LoopbackServer(Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with answering(server):
        yield server.url("", "https")


@pytest.fixture
def ftp() -> Iterator[FtpServer]:
    with ftp_server() as server:
        yield server


def test_https(tmp_path: Path) -> None:
    """R-SRC-NET-1, R-FETCH-5: the certificate must be one that FETCH_CA_FILE, or the system, vouches for."""
    trusted, context = make_certificate(tmp_path)
    other, _ = make_certificate(tmp_path, address="127.0.0.9")
    heard = Heard()
    with https(context) as url:
        deploy(f"{url}/a", tmp_path / "disk", dataclasses.replace(LOOPBACK, ca_file=str(trusted)))
        assert arrived(tmp_path / "disk")
        for ca_file in (None, str(other)):
            policy = dataclasses.replace(LOOPBACK, ca_file=ca_file)
            with pytest.raises(NodeError, match=r"(?i)certificate"):
                deploy(f"{url}/a", tmp_path / "no-disk", policy)
        insecure = dataclasses.replace(LOOPBACK, insecure=True)
        deploy(f"{url}/a", tmp_path / "disk2", insecure, heard)
    assert arrived(tmp_path / "disk2")
    assert any("FETCH_INSECURE" in warning for warning in heard.warnings)
    assert not (tmp_path / "no-disk").exists()


def test_a_certificate_for_another_address_is_refused(tmp_path: Path) -> None:
    """R-FETCH-5: the name in it counts, not only who signed it."""
    trusted, context = make_certificate(tmp_path, address="127.0.0.9")
    with https(context) as url, pytest.raises(NodeError, match=r"(?i)certificate|subject name"):
        deploy(f"{url}/a", tmp_path / "disk", dataclasses.replace(LOOPBACK, ca_file=str(trusted)))


def test_https_leads_nowhere_that_is_not_encrypted(tmp_path: Path) -> None:
    """R-FETCH-2."""
    trusted, context = make_certificate(tmp_path)
    policy = dataclasses.replace(LOOPBACK, ca_file=str(trusted))
    with https(context) as url, pytest.raises(UserError, match="redirects from https to http"):
        deploy(f"{url}/downgrade", tmp_path / "disk", policy)


def test_what_never_ends_is_bounded_by_the_disk_or_the_kind_of_document(tmp_path: Path) -> None:
    """R-FETCH-4, R-DST-LOCAL-2: also where nobody told how much would come."""
    trusted, context = make_certificate(tmp_path)
    policy = dataclasses.replace(LOOPBACK, ca_file=str(trusted))
    with https(context) as url:
        with pytest.raises(UserError, match=f"more than {4 * MIB} bytes"):
            deploy(f"{url}/endless", tmp_path / "disk", policy)
        with pytest.raises(UserError, match="more than 1000 bytes"):
            fetch_document(f"{url}/endless", 1000, policy, Account.of_caller(), Reporter())


def test_bytes_beyond_the_announced_length_never_arrive(tmp_path: Path) -> None:
    """R-SRC-NET-3."""
    trusted, context = make_certificate(tmp_path)
    with https(context) as url:
        policy = dataclasses.replace(LOOPBACK, ca_file=str(trusted))
        assert deploy(f"{url}/more", tmp_path / "disk", policy).image_bytes == len(IMAGE)
    assert not any((tmp_path / "disk").read_bytes()[len(IMAGE) :])


def test_ftp(ftp: FtpServer, tmp_path: Path) -> None:
    """R-SRC-NET-1, R-SRC-NET-2: the size is that of SIZE; credentials go to the server and nowhere else."""
    ftp.put("/images/a.raw", IMAGE)
    deploy(ftp.url("/images/a.raw", login="me:pa55word@"), tmp_path / "disk")
    assert arrived(tmp_path / "disk")
    assert "PASS pa55word" in ftp.commands


def test_ftp_without_sizes(ftp: FtpServer, tmp_path: Path) -> None:
    """R-SRC-NET-2: unknown is fine."""
    ftp.put("/a.raw", IMAGE).told = None
    assert deploy(ftp.url("/a.raw"), tmp_path / "disk").image_bytes == len(IMAGE)
    assert arrived(tmp_path / "disk")


def test_ftps(tmp_path: Path) -> None:
    """R-SRC-NET-1, R-FETCH-5: encrypted from the first byte, and the certificate is verified."""
    trusted, context = make_certificate(tmp_path)
    with ftp_server(context) as server:
        server.put("/a.raw", IMAGE)
        deploy(server.url("/a.raw"), tmp_path / "disk", dataclasses.replace(LOOPBACK, ca_file=str(trusted)))
        assert arrived(tmp_path / "disk")
        with pytest.raises(NodeError, match=r"(?i)certificate"):
            deploy(server.url("/a.raw"), tmp_path / "no-disk")
    assert "PROT P" in server.commands


def test_a_passive_answer_does_not_move_the_connection(ftp: FtpServer, tmp_path: Path) -> None:
    """R-FETCH-3, T-3: data comes from the address that was checked, whatever the server says."""
    ftp.epsv, ftp.pasv_host = False, "127,0,0,77"
    ftp.put("/a.raw", IMAGE)
    deploy(ftp.url("/a.raw"), tmp_path / "disk")
    assert arrived(tmp_path / "disk")
    assert any(command == "PASV" for command in ftp.commands)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"sent": MIB}, ImageError, f"ended early, after {MIB} of {len(IMAGE)} bytes"),
        ({"told": MIB}, ImageError, f"more than the {MIB} bytes"),
        ({"told": 3 * MIB}, ImageError, f"ended early, after {len(IMAGE)} of {3 * MIB} bytes"),
        ({"sent": MIB, "told": None, "status": "426 broken"}, ImageError, f"ended early, after {MIB} bytes"),
        ({"told": None, "endless": True}, UserError, f"more than {4 * MIB} bytes"),
        ({"sent": MIB, "stalls": True}, NodeError, "nothing came for 0.5 seconds"),
    ],
)  # fmt: skip
def test_bad_ftp_servers(
    changes: dict[str, object], kind: type[SnfImageError], message: str, ftp: FtpServer, tmp_path: Path
) -> None:
    """R-SRC-NET-3, R-FETCH-4, T-11: one that stops, lies, stalls or never ends."""
    file = ftp.put("/a.raw", IMAGE)
    for name, value in changes.items():
        setattr(file, name, value)
    # A busy machine is no stalling server.
    policy = dataclasses.replace(LOOPBACK, idle_timeout=0.5 if "stalls" in changes else 20)
    with pytest.raises(kind, match=message):
        deploy(ftp.url("/a.raw"), tmp_path / "disk", policy)
    assert not (tmp_path / "disk").exists()


def test_what_an_ftp_server_does_not_have(ftp: FtpServer, tmp_path: Path) -> None:
    """R-BACK-9: is an error and no empty image."""
    with pytest.raises(SnfImageError, match=r"cannot be fetched|ended early"):
        deploy(ftp.url("/a.raw"), tmp_path / "disk")


def test_loopback_is_refused_by_default(ftp: FtpServer, tmp_path: Path) -> None:
    """R-FETCH-3, T-3: for every scheme."""
    ftp.put("/a.raw", IMAGE)
    with pytest.raises(UserError, match="its host has a loopback address"):
        deploy(ftp.url("/a.raw"), tmp_path / "disk", FetchPolicy())
    assert ftp.commands == []
