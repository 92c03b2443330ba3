"""Names of images never lead out of their directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snf_image_contract.secret import Secret
from snf_image_host.configuration import NodeConfig
from snf_image_host.errors import NodeError, UserError
from snf_image_host.ganeti.images import find_image
from snf_image_host.image_directory import open_image_file
from snf_image_host.parameters.problems import Problems
from snf_image_host.sources.backends import BackendPlaces


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """``img`` with images, ``img2`` beside it, and links of all kinds."""
    directory = tmp_path / "img"
    (directory / "sub").mkdir(parents=True)
    (tmp_path / "img2").mkdir()
    (directory / "a.diskdump").write_bytes(b"inside")
    (directory / "sub/b").write_bytes(b"below")
    (tmp_path / "img2/secret").write_bytes(b"outside")
    (directory / "relative").symlink_to("sub/b")
    (directory / "absolute").symlink_to(directory / "sub/b")
    (directory / "out").symlink_to("../img2/secret")
    (directory / "away").symlink_to(tmp_path / "img2/secret")
    (directory / "dangling").symlink_to("../img2/nothing")
    (directory / "loop").symlink_to("loop")
    (directory / "dir-out").symlink_to("../img2")
    os.mkfifo(directory / "pipe")
    return directory


def content(directory: Path, name: str, *, allow_links: bool = False) -> bytes:
    with open_image_file(str(directory), name, allow_links=allow_links) as fd:
        return os.read(fd, 100)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.diskdump", b"inside"), ("/a.diskdump", b"inside"), ("sub/b", b"below"), ("//sub//b", b"below"),
        ("sub/../a.diskdump", b"inside"), ("relative", b"below"), ("absolute", b"below"),
    ],
)  # fmt: skip
def test_names_below(images: Path, name: str, expected: bytes) -> None:
    """R-SRC-LOCAL-2, D-14: sub-directories, a leading slash, and links that stay below the directory."""
    assert content(images, name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "out",
        "away",
        "dangling",
        "dir-out/secret",
        "../img2/secret",
        "sub/../../img2/secret",
        "loop",
        "../img2/no",
    ],
)
def test_names_that_leave(images: Path, name: str) -> None:
    """R-SRC-LOCAL-4, T-13, T-14: refused, and the error does not tell whether anything is there."""
    with pytest.raises(UserError) as caught:
        content(images, name)
    assert caught.value.messages == (f"the image name {name} leads out of the directory of images",)


def test_what_is_no_file(images: Path, tmp_path: Path) -> None:
    """R-SRC-LOCAL-4, R-SRC-LOCAL-5: a pipe, a directory, nothing, and no directory of images at all."""
    for name in ("pipe", "sub", "."):
        with pytest.raises(UserError, match="is no regular file"):
            content(images, name)
    with pytest.raises(FileNotFoundError):
        content(images, "nothing")
    with pytest.raises(NodeError) as caught:
        content(tmp_path / "nowhere", "a")
    assert caught.value.messages == ("the image cannot be read",)
    assert str(tmp_path) in caught.value.details[0]


@pytest.mark.requires("root")
def test_links_of_root(images: Path) -> None:
    """R-SRC-LOCAL-4, D-14: with the operator's consent root's links may leave, others' may not."""
    images.parent.chmod(0o755)
    for name in ("out", "away", "dir-out/secret"):
        assert content(images, name, allow_links=True) == b"outside"
    for name in ("../img2/secret", "loop"):
        with pytest.raises(UserError, match="leads out"):
            content(images, name, allow_links=True)
    os.lchown(images / "out", 1000, 1000)
    with pytest.raises(UserError, match="leads out"):
        content(images, "out", allow_links=True)
    images.chmod(0o777)
    with pytest.raises(UserError, match="leads out"):
        content(images, "away", allow_links=True)


def places(images: Path) -> BackendPlaces:
    """Where this test's operator has his programs, and his files about them."""
    return BackendPlaces(programs=str(images.parent / "os"), configuration=str(images.parent / "etc"))


def found(images: Path, **parameters: str) -> tuple[str | None, Problems]:
    problems = Problems()
    config = NodeConfig.defaults(image_dir=str(images))
    given = {name: Secret(text) for name, text in parameters.items()}
    with find_image(given, config, problems, places(images)) as asked:
        return None if asked.path is None else asked.shown, problems


def test_identifiers(images: Path) -> None:
    """R-SRC-LOCAL-1, R-SRC-LOCAL-3, T-12, R-SRC-NULL-1: what names a local image."""
    for text in ("a.diskdump", "local://a.diskdump", "LOCAL:///a.diskdump"):
        name, problems = found(images, img_id=text)
        assert (name, problems.errors, problems.warnings) == ("a.diskdump", [], [])
    name, problems = found(images, img_id="file://a.diskdump")
    assert (name, problems.warnings) == ("a.diskdump", ["img_id: file:// is deprecated, use local://"])
    name, problems = found(images, img_id="a", img_format="diskdump")
    assert name == "a.diskdump"
    assert problems.warnings == ["img_id: 'a' is there as 'a.diskdump' only: give the whole name"]
    assert found(images, img_id="null")[1].errors == []
    assert found(images, img_id="-x")[1].errors == []  # reported by its own rules


def test_an_image_of_a_server(images: Path) -> None:
    """R-SRC-NET-1, R-SEC-2."""
    image, problems = found(images, img_id="https://me:pw@h/a?t=1")
    assert problems.errors == []
    assert "https://h/a" in str(image)
    assert "pw" not in str(image)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a", "img_id: there is no image 'a' on this node"),
        ("local://", "img_id: the name of the image is empty"),
        ("local:///", "img_id: the name of the image is empty"),
        ("pithos://u/c/o", "img_id: no back-end knows 'pithos://u/c/o'; Pithos needs a back-end of its own"),
        ("gopher://h/a", "img_id: no back-end knows 'gopher://h/a'"),
        ("out", "img_id: the image name out leads out of the directory of images"),
    ],
)
def test_identifiers_that_name_none(images: Path, text: str, error: str) -> None:
    """R-BACK-7, R-BACK-10, R-SEC-2: one line each, without credentials."""
    assert found(images, img_id=text)[1].errors == [error]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("local", "a.diskdump", "no back-end knows 'a.diskdump'"),
        ("local", "local://a.diskdump", "no back-end knows 'local://a.diskdump'"),
        ("null", "null", "there is no image 'null' on this node"),
    ],
)
def test_a_disabled_source_is_not_asked(images: Path, name: str, text: str, error: str) -> None:
    """R-BACK-6, R-BACK-7: also one that is built in, however the image is named."""
    assert found(images, img_id=text)[1].errors == []
    files = Path(places(images).configuration, "backends", "src")
    files.mkdir(parents=True)
    (files / f"{name}.disabled").touch()
    image, problems = found(images, img_id=text)
    assert (image, problems.errors) == (None, [f"img_id: {error}"])
    assert problems.warnings == [f"img_id: the back-end {name} is disabled by {files}/{name}.disabled"]


@pytest.mark.parametrize("text", ["a.diskdump", "local://a.diskdump", "null"])
def test_a_program_goes_before_the_built_in_sources(images: Path, text: str) -> None:
    """R-BACK-4, R-BACK-5: its priority is 50, if nobody says otherwise."""
    program = Path(places(images).programs, "src", "ours")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho yes\n")
    program.chmod(0o755)
    problems = Problems()
    given = {"img_id": Secret(text)}
    with find_image(given, NodeConfig.defaults(image_dir=str(images)), problems, places(images)) as asked:
        assert (asked.kind, asked.program, asked.path) == ("program", str(program), text)
