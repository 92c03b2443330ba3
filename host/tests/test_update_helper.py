"""snf-image-update-helper: from an archive to HELPER_DIR (D-15)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulated_source import LoopbackServer, QuietHandler, answering
from snf_image_contract.job import CONTRACT_VERSION
from snf_image_host import helper_image
from snf_image_host.cli.update_helper import main
from snf_image_host.vm import account
from snf_image_process import run

FILES = {"kernel": b"k" * 100, "initrd": b"i" * 10, "root.img": b"r" * 1000}


def archive(
    path: str,
    files: dict[str, bytes] | None = None,
    *,
    mode: str = "w",
    members: tuple[tarfile.TarInfo, ...] = (),
) -> str:
    """A helper image in a tar archive; returns its sha256."""
    files = FILES if files is None else files
    described = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in FILES.items()}
    manifest = {
        "format": 1, "build": "ab" * 32, "contract_version": CONTRACT_VERSION, "cmdline": "", "packages": [],
        "files": described,
    }  # fmt: skip
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]  # the mode is a variable
        for name, data in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode, entry.uid = len(data), 0o4777, 4711
            tar.addfile(entry, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@pytest.fixture
def place(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> str:
    config = os.path.join(str(tmp_path), "config")
    with open(config, "w", encoding="utf-8"):
        return str(tmp_path)


def update(place: str, *words: str) -> int:
    return main([*words, "--helper-dir", f"{place}/helper", "--config", f"{place}/config"])


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_takes_the_place_of_the_old_image(place: str, mode: str) -> None:
    os.mkdir(f"{place}/helper")
    with open(f"{place}/helper/stale", "w", encoding="utf-8"):
        pass
    digest = archive(f"{place}/a.tar", mode=mode)
    assert update(place, f"{place}/a.tar", "--sha256", digest) == 0
    assert sorted(os.listdir(f"{place}/helper")) == ["initrd", "kernel", "manifest.json", "root.img"]
    assert os.stat(f"{place}/helper/kernel").st_mode & 0o7777 == 0o644
    assert sorted(os.listdir(place)) == ["a.tar", "config", "helper"]


def test_file_urls_and_the_configuration_name_it_too(place: str) -> None:
    digest = archive(f"{place}/a b.tar")
    with open(f"{place}/config", "w", encoding="utf-8") as file:
        file.write(f'HELPER_URL="file://{place}/a%20b.tar"\nHELPER_SHA256={digest}\n')
    assert update(place) == 0
    assert os.path.exists(f"{place}/helper/root.img")


def test_another_digest_changes_nothing(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    archive(f"{place}/a.tar")
    assert update(place, f"{place}/a.tar", "--sha256", "0" * 64) == 3
    assert "0" * 64 in capsys.readouterr().err
    assert sorted(os.listdir(place)) == ["a.tar", "config"]


def test_what_the_manifest_does_not_tell_changes_nothing(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archive(f"{place}/a.tar", FILES | {"kernel": b"other"})
    assert update(place, f"{place}/a.tar") == 3
    assert "kernel has sha256" in capsys.readouterr().err
    assert not os.path.exists(f"{place}/helper")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "sub/evil", "kernel"])
def test_names_that_leave_or_come_twice_are_refused(place: str, name: str) -> None:
    archive(f"{place}/a.tar", members=(tarfile.TarInfo(name),))
    assert update(place, f"{place}/a.tar") == 3
    assert sorted(os.listdir(place)) == ["a.tar", "config"]


def test_links_and_devices_are_refused(place: str) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo("more")
        member.type, member.linkname = kind, "/etc/passwd"
        archive(f"{place}/a.tar", members=(member,))
        assert update(place, f"{place}/a.tar") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["https://example.org/helper.tar"], "needs a digest or a signature"),
        (["ftp://example.org/helper.tar", "--sha256", "0" * 64], "scheme file, https or http"),
        ([], "no helper image was named"),
        (["/nowhere/helper.tar"], "there is no file"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly(
    place: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert update(place, *words) == 2
    assert said in capsys.readouterr().err


def test_no_archive_is_an_error_without_a_traceback(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open(f"{place}/a.tar", "wb") as file:
        file.write(b"<html>not found</html>" * 100)
    assert update(place, f"{place}/a.tar") == 3
    assert "not in a tar archive" in capsys.readouterr().err


class Handler(QuietHandler):
    """Answers with files of a directory, piece by piece."""

    server: Server

    def answer(self) -> None:
        data = (self.server.directory / self.path.partition("?")[0].lstrip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        # The first piece is not all of it.
        for part in (data[:32], data[32:]):
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(0.2)


class Server(LoopbackServer):
    def __init__(self, directory: str) -> None:
        super().__init__(Handler)
        self.directory = Path(directory)


@pytest.fixture
def server(place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(account, "lock_directory", lambda _: place)
    with open(f"{place}/config", "w", encoding="utf-8") as file:
        file.write(f"FETCH_ALLOWED_HOSTS=127.0.0.1\nTRUSTED_KEYS_DIR={place}/keys\n")
    with answering(Server(place)) as made:
        yield made


def signed(place: str, name: str) -> str:
    """A signature of the archive by a new key, whose public half is ``NAME.pem``."""
    private, signature = f"{place}/{name}.private", f"{place}/{name}.sig"
    run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], timeout=30)
    run(["openssl", "pkey", "-in", private, "-pubout", "-out", f"{place}/{name}.pem"], timeout=30)
    sign = ["openssl", "pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", f"{place}/a.tar"]
    run([*sign, "-out", signature], timeout=30)
    return signature


@pytest.mark.requires("curl")
def test_an_archive_from_the_network(place: str, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """D-15, R-HLP-18, R-SEC-2: it needs its digest, and nobody is told what opens the server."""
    digest = archive(f"{place}/a.tar")
    url = server.url("/a.tar?t0ken=1").replace("://", "://me:hunter2@")
    assert update(place, url, "--sha256", digest[::-1]) == 3
    assert not os.path.exists(f"{place}/helper")
    assert update(place, url, "--sha256", digest) == 0
    assert os.path.exists(f"{place}/helper/root.img")
    with open(f"{place}/config", "a", encoding="utf-8") as file:
        file.write(f"HELPER_URL={url}\nHELPER_SHA256={digest[::-1]}\n")
    assert update(place) == 3
    assert update(place, url, "--sha256", digest.upper()) == 0
    told = capsys.readouterr()
    for secret in ("hunter2", "t0ken"):
        assert secret not in told.out + told.err


@pytest.mark.requires("curl", "openssl")
def test_a_signature_instead_of_a_digest(place: str, server: Server) -> None:
    """D-15, R-HLP-18: by a key that is trusted, of exactly these bytes, from a file or the network."""
    archive(f"{place}/a.tar")
    ours = signed(place, "ours")
    stranger = signed(place, "stranger")
    url = server.url("/a.tar")
    assert update(place, url, "--signature", ours) == 3
    os.mkdir(f"{place}/keys", 0o700)
    os.rename(f"{place}/ours.pem", f"{place}/keys/ours.pem")
    assert update(place, url, "--signature", stranger) == 3
    assert not os.path.exists(f"{place}/helper")
    assert update(place, url, "--signature", server.url("/ours.sig")) == 0
    assert os.path.exists(f"{place}/helper/root.img")
    archive(f"{place}/a.tar", FILES, mode="w:gz")
    assert update(place, f"{place}/a.tar", "--signature", ours) == 3


def test_it_builds_one_from_a_source_tree(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-15: as `snf-image helper build` does, into the same place."""
    built = []

    def build(*, output: str, source: str | None) -> None:
        built.append((output, source))
        archive(f"{place}/a.tar")
        assert update(place, f"{place}/a.tar") == 0

    monkeypatch.setattr(helper_image, "build", build)
    assert update(place, "--build", "--source", f"{place}/source") == 0
    assert built == [(f"{place}/helper", f"{place}/source")]
