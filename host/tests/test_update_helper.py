"""snf-image-update-helper: from an archive to HELPER_DIR (D-15)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest

from snf_image_contract.job import CONTRACT_VERSION
from snf_image_host.cli.update_helper import main

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
