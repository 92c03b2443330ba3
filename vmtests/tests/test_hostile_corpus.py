"""The hostile corpus: complete, each row with real damage, and a sample of every family."""

import contextlib
import os
import re
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from hostile import crc32c, disklabel, ffs, gpt, mbr
from hostile.corpus import CORPUS, sample
from hostile.image import EITHER, FINE, REFUSED, UNFIT, HostileImage
from hostile.linux_services import alias_bomb
from hostile.region import ImageFile, Region, digest, extents
from hostile.structures import every_structure
from image_recipes.bsd_label import label
from image_recipes.recipe import Disk, LabelEntry, Partition
from snf_image_vmtests.fixture_images import Facts, FixtureImage, PartitionFacts, Setting, load_fixture
from ufs.mkfs import Node, make
from ufs.superblock import Shape

RECIPES = Path(__file__).parents[2] / "fixtures" / "images" / "recipes"
MIB = 1024 * 1024
SECTORS = MIB // 512
TABLES = (*mbr.IMAGES, *gpt.IMAGES)
UFS = (*disklabel.IMAGES, *ffs.IMAGES)


@cache
def facts_of(base: str) -> dict[str, str]:
    facts = yaml.safe_load((RECIPES / f"{base}.yaml").read_text())["facts"]
    assert isinstance(facts, dict)
    return facts


def test_there_are_at_least_60_images_with_ids_of_their_own() -> None:
    ids = [image.id for image in CORPUS]
    assert len(ids) >= 60
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name) for name in ids)


def test_every_structure_is_damaged_and_no_unknown_one() -> None:
    assert {image.structure for image in CORPUS} == every_structure()


def test_every_file_system_family_and_table_is_attacked() -> None:
    recipes = [facts_of(path.stem) for path in RECIPES.glob("*.yaml") if path.stem != "inspection"]
    attacked = [facts_of(image.base) for image in CORPUS]
    for fact in ("family", "root_filesystem", "table"):
        assert {facts[fact] for facts in attacked} == {facts[fact] for facts in recipes}, fact


def test_the_sample_has_one_image_of_each_family() -> None:
    families = [facts_of(image.base)["family"] for image in sample()]
    assert len(sample()) == 12
    assert len(set(families)) == 12
    assert set(families) == {facts_of(image.base)["family"] for image in CORPUS}
    assert {facts_of(image.base)["table"] for image in sample()} == {"mbr", "gpt"}
    damaged = {image.structure.partition(":")[0] for image in sample()}
    assert damaged >= {
        "mbr",
        "gpt",
        "disklabel",
        "ext",
        "xfs",
        "btrfs",
        "ntfs",
        "ufs1",
        "ufs2",
        "tree",
        "windows",
    }


def test_what_is_expected_can_be_judged() -> None:
    for image in CORPUS:
        assert image.ends in (FINE, REFUSED, UNFIT, EITHER), image.id
        assert not image.words or 0 not in image.ends, f"{image.id}: words of an error that need not come"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def small_fixture(image: HostileImage, path: Path) -> FixtureImage:
    """An image of 16 MiB with the table of the base, and of UFS with its file system."""
    facts = facts_of(image.base)
    size = 16 * MIB
    path.write_bytes(b"")
    with opened(path) as fd:
        os.truncate(fd, size)
        whole = Region(fd, 0, size)
        if facts["table"] == "gpt":
            write_gpt(whole)
        else:
            write_mbr(whole, logical="logical" in image.base)
        if facts["root_filesystem"].startswith("ufs"):
            write_ufs(whole, facts)
    return FixtureImage(
        name=image.base,
        path=str(path),
        sha256="",
        size=size,
        facts=Facts(
            family=facts["family"], distribution="", root_partition=1, accounts=(), hostname=Setting(path=""),
            root_filesystem=facts["root_filesystem"], table=facts["table"],
        ),
        partitions=(PartitionFacts(number=1, start=1, size=12),),
    )  # fmt: skip


def write_mbr(disk: Region, *, logical: bool) -> None:
    def entry(at: int, kind: int, start: int, sectors: int) -> None:
        disk.write(at, struct.pack("<B3sB3sII", 0, b"\0\0\0", kind, b"\0\0\0", start, sectors))

    disk.write(510, b"\x55\xaa")
    entry(446, 0x83, SECTORS, (4 if logical else 12) * SECTORS)
    if logical:
        entry(462, 5, 5 * SECTORS, 10 * SECTORS)
        for record, following in ((5, 3), (8, None)):
            disk.write(record * MIB + 510, b"\x55\xaa")
            entry(record * MIB + 446, 0x83, SECTORS, SECTORS)
            if following is not None:
                entry(record * MIB + 462, 5, following * SECTORS, 2 * SECTORS)


def write_gpt(disk: Region) -> None:
    disk.write(446, struct.pack("<B3sB3sII", 0, b"\0\0\0", 0xEE, b"\0\0\0", 1, disk.size // 512 - 1))
    disk.write(510, b"\x55\xaa")
    array = struct.pack("<16s16sQQQ72s", b"\1" * 16, b"\2" * 16, SECTORS, 13 * SECTORS - 1, 0, b"")
    array = array.ljust(128 * 128, b"\0")
    last = disk.size // 512 - 1
    for at, other, place in ((1, last, 2), (last, 1, last - 32)):
        disk.write(place * 512, array)
        head = struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, at, other, 34, last - 33, b"\3" * 16, place,
            128, 128, zlib.crc32(array),
        )  # fmt: skip
        disk.write(at * 512, head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:])


def write_ufs(disk: Region, facts: dict[str, str]) -> None:
    version = int(facts["root_filesystem"][-1])
    order = ">" if facts["family"] == "netbsd" else "<"
    shape = Shape(
        version=version,
        size=12 * MIB,
        order=order,
        bsize=16384,
        fsize=2048,
        hashes=facts["family"] == "freebsd",
    )
    nodes = [
        Node(path="etc"),
        Node(path="etc/hosts", data=b"x" * 100),
        Node(path="etc/master.passwd", data=b"root:*:0:0::0:0::/root:/bin/sh\n"),
        Node(path="root"),
    ]
    with open(os.memfd_create("ufs"), "r+b") as file:
        make(file.fileno(), shape, nodes)
        disk.write(MIB, os.pread(file.fileno(), 12 * MIB, 0))
    if facts["family"] != "freebsd":
        slice_ = Partition(
            number=1, start=1, size=12, type="a6", label=(LabelEntry(letter="a", start=0, size=12),)
        )
        whole = Disk(size=16, table="mbr", id="0x1", partitions=(slice_,))
        disk.write(MIB + 512, label(slice_, whole, disk.size // 512, facts["family"]))


@pytest.mark.parametrize("image", [*TABLES, *UFS], ids=lambda image: image.id)
def test_damage_to_tables_and_ufs_changes_a_few_bytes(image: HostileImage, tmp_path: Path) -> None:
    """The same ones each time."""
    fixture = small_fixture(image, tmp_path / "base.raw")
    digests = set()
    for name in ("one.raw", "two.raw"):
        with ImageFile.copy_of(fixture, str(tmp_path / name)) as made:
            image.damage(made)
        digests.add(digest(str(tmp_path / name)))
    assert len(digests) == 1
    assert digests != {digest(fixture.path)}


@pytest.mark.requires("fixtures", "e2fsprogs", "ntfs-3g")
def test_damage_changes_every_base(tmp_path: Path) -> None:
    """What the small images cannot show: each structure is where the damage looks for it."""
    for image in CORPUS:
        fixture = load_fixture(image.base)
        path = tmp_path / "image.raw"
        with ImageFile.copy_of(fixture, str(path)) as made:
            image.damage(made)
        assert digest(str(path)) != digest(fixture.path), image.id


def test_flipping_inverts_so_many_bits_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with opened(path) as fd:
        Region(fd, 100, 500).flip(50, 20, bits=7)
    data = path.read_bytes()
    assert int.from_bytes(data, "little").bit_count() == 7
    assert not any(data[:150] + data[170:])


def test_a_part_goes_through_a_tool_and_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 4096 + b"b" * 4096 + b"c" * 4096)
    with opened(path) as fd, Region(fd, 4096, 4096).extracted() as alone:
        assert Path(alone).read_bytes() == b"b" * 4096
        with open(alone, "r+b") as file:
            file.write(b"d" * 10)
    assert path.read_bytes() == b"a" * 4096 + b"d" * 10 + b"b" * 4086 + b"c" * 4096


def test_a_digest_tells_data_from_a_hole_and_sizes_apart(tmp_path: Path) -> None:
    found = set()
    for size, data in ((MIB, b""), (2 * MIB, b""), (2 * MIB, b"x")):
        path = tmp_path / "file"
        path.write_bytes(data)
        os.truncate(path, size)
        found.add(digest(str(path)))
    assert len(found) == 3
    with opened(tmp_path / "file") as fd:
        assert [at for at, _ in extents(fd, 0, 2 * MIB)] == [0]


def test_crc32c_is_that_of_the_standard() -> None:
    """The check value of CRC-32C (Castagnoli), and the same before the last inversion."""
    assert crc32c.inverted(b"123456789") == 0xE3069283
    assert crc32c.raw(b"123456789") == 0xE3069283 ^ 0xFFFFFFFF


def test_the_alias_bomb_is_yaml_and_small() -> None:
    bomb = alias_bomb()
    assert len(bomb) < 4096
    assert len(yaml.safe_load(bomb)["network"]["ethernets"]) == 9
