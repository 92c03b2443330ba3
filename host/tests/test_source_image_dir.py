"""Images below IMAGE_DIR: what leads out of it, what is taken instead, what is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snf_image_host.errors import NodeError, UserError
from snf_image_host.parameters.problems import ParseError
from snf_image_host.sources.backends import BackendPlaces, Located, locate
from snf_image_host.sources.beneath import open_beneath

NOWHERE = BackendPlaces(programs="/nonexistent", configuration="/nonexistent")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "img"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "a").write_bytes(b"inside")
    (directory / "old.diskdump").write_bytes(b"old")
    (tmp_path / "img2").mkdir()
    (tmp_path / "img2" / "b").write_bytes(b"outside")
    return directory


def read(images: Path, name: str, *, allow_symlinks: bool = False) -> tuple[bytes, bool]:
    fd, with_suffix = open_beneath(str(images), name, name, suffix="diskdump", allow_symlinks=allow_symlinks)
    with open(fd, "rb") as file:
        return file.read(), with_suffix


@pytest.mark.parametrize("name", ["sub/a", "/sub/a", "sub//a", "./sub/a", "sub/../sub/a"])
def test_names_are_relative_to_the_directory(name: str, images: Path) -> None:
    """R-SRC-LOCAL-2: also those that begin with a slash."""
    assert read(images, name) == (b"inside", False)


def test_a_name_without_its_format_is_found(images: Path) -> None:
    """R-SRC-LOCAL-3, T-12."""
    assert read(images, "old") == (b"old", True)


@pytest.mark.parametrize(
    "name", ["../img2/b", "sub/../../img2/b", "../img/../img2/b", "/../img2/b", "sub/nothing", "../nothing"]
)
def test_nothing_outside_is_opened_and_nothing_told_of_it(name: str, images: Path) -> None:
    """R-SRC-LOCAL-4, T-14: the same words whether there is such a file or not."""
    with pytest.raises(UserError) as caught:
        read(images, name)
    assert caught.value.messages == (f"the image {name} cannot be read",)


@pytest.mark.parametrize("name", ["", "/", "//", "a\0b"])
def test_a_name_that_is_none(name: str, images: Path) -> None:
    """R-SRC-LOCAL-1: an empty name, or one that no file can have."""
    with pytest.raises(UserError, match="empty"):
        read(images, name)


@pytest.mark.parametrize("name", ["-x", "new\nline", "a b", "%2e%2e"])
def test_odd_names_are_only_names(name: str, images: Path) -> None:
    """R-SRC-LOCAL-2: below the directory a file may be called anything."""
    (images / name).write_bytes(b"odd")
    assert read(images, name)[0] == b"odd"


def test_links_that_stay_below_are_followed(images: Path) -> None:
    """D-14: they can only show what is there anyway."""
    (images / "latest").symlink_to("sub/a")
    (images / "sub" / "up").symlink_to("../old.diskdump")
    assert read(images, "latest")[0] == b"inside"
    assert read(images, "sub/up")[0] == b"old"


def test_links_that_lead_out_are_not_followed(images: Path) -> None:
    """R-SRC-LOCAL-4, T-13: relative, absolute, and on the way."""
    (images / "out").symlink_to("../img2/b")
    (images / "absolute").symlink_to(images.parent / "img2" / "b")
    (images / "dir").symlink_to("../img2")
    (images / "loop").symlink_to("loop")
    for name in ("out", "absolute", "dir/b", "loop"):
        with pytest.raises(UserError, match="cannot be read"):
            read(images, name)


@pytest.mark.requires("root")
def test_roots_links_may_lead_out_if_the_operator_says_so(images: Path) -> None:
    """R-SRC-LOCAL-4: and only root's, in directories that nobody else can write."""
    (images / "out").symlink_to("../img2/b")
    (images / "absolute").symlink_to(images.parent / "img2" / "b")
    assert read(images, "out", allow_symlinks=True)[0] == b"outside"
    assert read(images, "absolute", allow_symlinks=True)[0] == b"outside"
    with pytest.raises(UserError):
        read(images, "../img2/b", allow_symlinks=True)
    os.lchown(images / "out", 12345, 12345)
    with pytest.raises(UserError):
        read(images, "out", allow_symlinks=True)
    images.chmod(0o777)
    with pytest.raises(UserError):
        read(images, "absolute", allow_symlinks=True)


def test_without_the_directory_the_user_is_told_little(tmp_path: Path) -> None:
    """R-SRC-LOCAL-5: the path is for the operator's log."""
    with pytest.raises(NodeError) as caught:
        read(tmp_path / "none", "a")
    assert caught.value.messages == ("the image cannot be read",)
    assert str(tmp_path) in caught.value.details[0]


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
