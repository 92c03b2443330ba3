"""What an identifier means, and images that are named below IMAGE_DIR."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulated_source import MIB, Heard, copied
from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource, SourceSettings, Verification
from snf_image_host.errors import UserError, VerificationError
from snf_image_host.parameters.problems import ParseError
from snf_image_host.reporter import Reporter
from snf_image_host.sources import neighbours
from snf_image_host.sources.backends import BackendPlaces, Located, locate
from snf_image_host.vm.account import Account

NOWHERE = BackendPlaces(programs="/nonexistent", configuration="/nonexistent")
DATA = b"x" * 65536


def copy(images: Path, name: str, heard: Heard) -> bytes:
    source = ImageSource(
        path=name,
        shown=name,
        format=ImageFormat.DISKDUMP,
        kind="image-dir",
        name_in_image_dir=name,
        verification=Verification(policy="if-present", trusted_keys="/nonexistent"),
        settings=SourceSettings(image_dir=str(images)),
    )
    disk = images.parent / "disk"
    copied(source, disk, size=MIB, sink=heard)
    return disk.read_bytes()[: len(DATA)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "img"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "a.diskdump").write_bytes(DATA)
    (tmp_path / "outside").write_bytes(DATA)
    return directory


@pytest.mark.parametrize("name", ["sub/a.diskdump", "/sub/a.diskdump"])
def test_an_image_below_the_directory_is_copied(name: str, images: Path) -> None:
    """R-SRC-LOCAL-2."""
    heard = Heard()
    assert copy(images, name, heard) == DATA
    assert heard.warnings == []


def test_a_name_without_its_format_is_found(images: Path) -> None:
    """R-SRC-LOCAL-3, T-12."""
    heard = Heard()
    assert copy(images, "sub/a", heard) == DATA
    assert heard.warnings == ["sub/a is there as sub/a.diskdump only: give the whole name"]


@pytest.mark.parametrize("name", ["../outside", "sub/../../outside", "out", "sub"])
def test_nothing_else_is(name: str, images: Path) -> None:
    """R-SRC-LOCAL-4, T-13: neither what is outside, nor a directory."""
    (images / "out").symlink_to("../outside")
    with pytest.raises(UserError):
        copy(images, name, Heard())
    assert not (images.parent / "disk").exists()


def test_checksums_beside_it_are_found_below_the_directory_too(images: Path) -> None:
    """D-4, R-SRC-LOCAL-4: and no link shows one from outside."""
    (images.parent / "sums").write_text("0" * 64)
    (images / "sub" / "a.diskdump.sha256").symlink_to("../../sums")
    assert copy(images, "sub/a.diskdump", Heard()) == DATA
    (images / "sub" / "a.diskdump.sha256").unlink()
    (images / "sub" / "a.diskdump.sha256").write_text("0" * 64)
    with pytest.raises(VerificationError, match=r"a\.diskdump\.sha256 says 0000"):
        copy(images, "sub/a.diskdump", Heard())


@pytest.mark.parametrize(
    ("identifier", "kind", "path"),
    [
        ("debian", "image-dir", "debian"),
        ("local://debian", "image-dir", "debian"),
        ("file://sub/x", "image-dir", "sub/x"),
        ("LOCAL:///debian", "image-dir", "/debian"),
        ("HTTPS://h/x", "url", "HTTPS://h/x"),
        ("ftp://h/x", "url", "ftp://h/x"),
        ("null", "path", None),
    ],
)
def test_an_identifier_tells_its_source(identifier: str, kind: str, path: str | None) -> None:
    """R-SRC-LOCAL-1, R-SRC-NET-1, R-SRC-NULL-1."""
    warnings: list[str] = []
    found = locate(identifier, image_format="diskdump", warn=warnings.append, places=NOWHERE)
    assert (found.kind, found.path) == (kind, path)
    assert [("file://" in text) for text in warnings] == [True] * identifier.startswith("file:")


@pytest.mark.parametrize(
    "identifier", ["local://", "file:///", "pithos://x", "rbd:x", "-x", "a\nb", "http:x", "ssh://h/x"]
)
def test_an_identifier_that_no_source_knows(identifier: str) -> None:
    """R-BACK-7, R-BACK-10: the error shows no credentials."""
    with pytest.raises(ParseError):
        locate(identifier, image_format="diskdump", warn=print, places=NOWHERE)


def test_credentials_are_not_shown() -> None:
    """R-SEC-2."""
    url = "https://u:hunter2@h/x?t=1#f"
    found = locate(url, image_format="diskdump", warn=print, places=NOWHERE)
    assert found == Located(path=url, shown="https://h/x", kind="url")


@pytest.mark.parametrize("scheme", ["https", "http", "ftps", "ftp"])
def test_what_lies_beside_an_image_of_a_server(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-4, R-SEC-2: it is asked for with the image's own credentials, whatever the scheme."""
    asked = []

    def fetch(url: str, *_: object) -> bytes:
        asked.append(url)
        return b"found"

    monkeypatch.setattr(neighbours, "fetch_document", fetch)
    source = ImageSource(
        path=f"{scheme}://me:pw@h:1/dir/a%20b.raw?token=t#f",
        shown="x",
        format=ImageFormat.DISKDUMP,
        kind="url",
    )
    beside = neighbours.Neighbours(source, Account.of_caller, Reporter())
    assert beside.name == "a b.raw"
    assert beside.beside("a b.raw.sha256", 100) == b"found"
    assert asked == [f"{scheme}://me:pw@h:1/dir/a%20b.raw.sha256?token=t"]
