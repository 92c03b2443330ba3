"""Recipes of bootable images: where packages come from, GRUB on either table, XFS from an archive."""

import io
import os
import re
import tarfile
from typing import Literal

import pytest

from image_recipes import debian, disk
from image_recipes.filesystems import Stage
from image_recipes.recipe import MIB, Disk, Filesystem, Partition, RecipeError
from image_recipes.xfs import XfsSource, make_xfs
from snf_image_process import run

STANZAS = "Types: deb\nURIs: http://one.example/debian http://two.example/debian\nSuites: bookworm\n"
LINES = """\
# deb http://no.example/debian bookworm main
deb [signed-by=/k.gpg arch=amd64] http://one.example/debian bookworm main
"""
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"


@pytest.mark.parametrize("text", [STANZAS, LINES, LINES.replace(" [signed-by=/k.gpg arch=amd64]", "")])
def test_another_suite_of_debian_comes_from_this_machines_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, text: str
) -> None:
    sources = os.path.join(str(tmp_path), "sources")
    with open(sources, "w", encoding="utf-8") as file:
        file.write(text)
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.delenv(debian.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(debian, "_MACHINE_SOURCES", (os.path.join(str(tmp_path), "none"), sources))
    monkeypatch.setattr(debian, "_os_release", lambda: release)
    assert debian.archive_of("bookworm") == [sources]
    assert debian.archive_of("trixie") == ["http://one.example/debian"]
    release["ID"] = "ubuntu"
    assert debian.archive_of("trixie") == []
    monkeypatch.setenv(debian.MIRROR_VARIABLE, "http://named.example/debian")
    assert debian.archive_of("trixie") == ["http://named.example/debian"]


def _disk(table: Literal["mbr", "gpt"], *partitions: tuple[int, int, str]) -> Disk:
    made = [
        Partition(number=number, start=start, size=size, type=kind)
        for number, (start, size, kind) in enumerate(partitions, 1)
    ]
    return Disk(size=8, table=table, id="0x1", partitions=tuple(made))


@pytest.mark.parametrize(
    ("layout", "sector"),
    [
        (_disk("mbr", (1, 6, "83")), 1),
        (_disk("gpt", (1, 4, "linux"), (5, 1, BIOS_BOOT)), 5 * 2048),
    ],
)
def test_grub_is_told_where_its_core_image_is(tmp_path: object, layout: Disk, sector: int) -> None:
    path = os.path.join(str(tmp_path), "disk")
    with open(path, "wb") as file:
        file.write(b"t" * 8 * MIB)
    disk.put_boot_loader(path, layout, b"b" * 512, b"c" * 1500)
    with open(path, "rb") as file:
        written = file.read()
    first = b"b" * 0x5C + sector.to_bytes(8, "little") + b"b" * (440 - 0x5C - 8)
    core = b"c" * 500 + (sector + 1).to_bytes(8, "little") + b"c" * (1500 - 508)
    at = sector * 512
    assert written[:440] == first
    assert written[at : at + 1500] == core
    assert set(written[440:at] + written[at + 1500 :]) <= {ord("t")}


@pytest.mark.parametrize(
    "layout",
    [
        _disk("mbr", (1, 6, "83")),
        _disk("gpt", (1, 4, "linux")),
        _disk("gpt", (1, 4, "linux"), (5, 1, BIOS_BOOT)),
    ],
)
def test_a_core_image_never_goes_where_it_does_not_fit(tmp_path: object, layout: Disk) -> None:
    path = os.path.join(str(tmp_path), "disk")
    with pytest.raises(RecipeError, match="GRUB needs room"):
        disk.put_boot_loader(path, layout, b"b" * 512, b"c" * (MIB + 1))
    assert not os.path.exists(path)


def _member(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname, member.uid, member.gid = kind, mode, link, 7, 8
    if kind == tarfile.REGTYPE:
        member.size = 5
    return member


def _make(directory: str, *members: tarfile.TarInfo) -> str:
    archive, image = os.path.join(directory, "root.tar"), os.path.join(directory, "image")
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"text\n") if member.size else None)
    with open(image, "xb") as file:
        file.truncate(320 * MIB)
    stage = Stage(directory)
    stage.unpack(archive, ["/"])
    kind = Filesystem(type="xfs", uuid="6d1c1a0e-0f5c-4c1e-9f0a-5d00000000aa")
    make_xfs(kind, XfsSource(archive=archive, mount="/", directory=stage.part("/")), image, stage.run)
    return image


def _inode(image: str, path: str) -> tuple[int, ...]:
    """Mode, owners and size."""
    fields = ("core.mode", "core.uid", "core.gid", "core.size")
    prints = [word for field in fields for word in ("-c", f"print {field}")]
    text = run(["xfs_db", "-r", "-c", f"path {path}", *prints, image], timeout=60).text
    mode, uid, gid, size = re.findall(r"= (\d+)", text)
    return int(mode, 8), int(uid), int(gid), int(size)


@pytest.mark.requires("xfsprogs")
def test_xfs_has_every_kind_of_file_with_its_mode_and_owners(tmp_path: object) -> None:
    image = _make(
        str(tmp_path),
        _member("./", tarfile.DIRTYPE, 0o755),
        _member("./tmp", tarfile.DIRTYPE, 0o1777),
        _member("./a", tarfile.DIRTYPE, 0o2755),
        _member("./a-b", mode=0o600),
        _member("./a/b", tarfile.DIRTYPE, 0o700),
        _member("./a/b/set", mode=0o4755),
        _member("./a/again", tarfile.LNKTYPE, 0o644, "./a-b"),
        _member("./a/link", tarfile.SYMTYPE, 0o777, "../nowhere"),
        _member("./z", tarfile.FIFOTYPE, 0o640),
    )
    assert _inode(image, "/tmp")[:3] == (0o041777, 7, 8)
    assert _inode(image, "/a")[:3] == (0o042755, 7, 8)
    assert _inode(image, "/a-b") == (0o100600, 7, 8, 5)
    assert _inode(image, "/a/b")[:3] == (0o040700, 7, 8)
    assert _inode(image, "/a/b/set") == (0o104755, 7, 8, 5)
    assert _inode(image, "/a/again") == (0o100644, 7, 8, 5)
    assert _inode(image, "/a/link") == (0o120777, 7, 8, len("../nowhere"))
    assert _inode(image, "/z")[:3] == (0o010640, 7, 8)
    run(["xfs_repair", "-n", "-f", image], timeout=60)


@pytest.mark.requires("xfsprogs")
def test_what_a_prototype_cannot_say_is_an_error(tmp_path: object) -> None:
    labelled = _member("./etc")
    labelled.pax_headers = {"SCHILY.xattr.user.one": "1"}
    for number, (member, words) in enumerate(
        [(labelled, "extended attributes"), (_member("./two words"), "white space")]
    ):
        directory = os.path.join(str(tmp_path), str(number))
        os.mkdir(directory)
        with pytest.raises(RecipeError, match=words):
            _make(directory, member)
