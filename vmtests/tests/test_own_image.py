"""An image of somebody else: described in a few lines, looked at, and given the cells of everybody."""

import itertools
import os
import re
import struct

import pytest
import yaml

from image_recipes.bsd_label import put_labels
from image_recipes.recipe import Disk, Filesystem, LabelEntry, Partition
from snf_image_process import run
from snf_image_vmtests import own_image, places
from snf_image_vmtests.fixture_images import Setting
from snf_image_vmtests.matrix import MatrixError

pytestmark = pytest.mark.requires("e2fsprogs", "fdisk")
MIB = 1024 * 1024


def documented() -> str:
    """The example of the documentation."""
    with open(os.path.join(places.CHECKOUT, "docs", "vmtests.md"), encoding="utf-8") as file:
        (example,) = re.findall(
            r"^```yaml\n(# my-image\.yaml\n.*?)^```$", file.read(), re.MULTILINE | re.DOTALL
        )
    return str(example)


def _image(directory: str, table: str) -> str:
    """A disk of 64 MiB as ``table`` says to sfdisk, with ext4 on its partition that starts at sector 4096."""
    path = os.path.join(directory, "my-image.raw")
    with open(path, "xb") as file:
        file.truncate(64 * MIB)
    run(["sfdisk", "--quiet", path], timeout=60, stdin=table.encode())
    offset = "offset=2097152"
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", offset, path, "20M"], timeout=60)
    return path


def _describe(directory: object, text: str) -> str:
    path = os.path.join(str(directory), "my-image.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def test_the_documented_example_gets_every_pair_of_requests(tmp_path: object) -> None:
    _image(str(tmp_path), "label: dos\nstart=4096, type=83\n")
    assert len(documented().splitlines()) <= 10
    matrix = own_image.load(_describe(tmp_path, documented()))
    assert matrix.image is not None
    assert matrix.image.facts.root_filesystem == "ext4"
    assert [(part.start_sector, part.sector_count) for part in matrix.image.partitions] == [(4096, 126976)]
    assert {cell.disk_size for cell in matrix.cells} == {64 + 256}
    pairs = {(cell.credential, cell.network) for cell in matrix.cells}
    credentials = ("none", "password", "hash", "keys", "password+keys")
    networks = ("none", "dhcp", "static", "static+slaac")
    assert pairs == set(itertools.product(credentials, networks))
    assert {cell.swap for cell in matrix.cells} == {None, "2:32", "b"}
    assert not any(cell.cloud_init for cell in matrix.cells)
    assert len(matrix.cells) <= 25


def test_numbers_and_odd_sectors_are_those_of_the_table(tmp_path: object) -> None:
    """A GPT's last partition may end anywhere; swap behind number 1 of 14 is number 2."""
    table = (
        "label: gpt\nnode14 : start=2048, size=2048, type=uefi\nnode1 : start=4096, size=100001, type=linux\n"
    )
    _image(str(tmp_path), table)
    text = "image: my-image.raw\nfamily: alpine\nroot_partition: 1\ncloud_init: true\n"
    matrix = own_image.load(_describe(tmp_path, text))
    assert matrix.image is not None
    assert [(part.number, part.sector_count) for part in matrix.image.partitions] == [(1, 100001), (14, 2048)]
    assert {cell.swap for cell in matrix.cells} == {None, "2:32", "b"}
    assert any(cell.cloud_init for cell in matrix.cells)


def test_a_full_table_has_no_room_for_swap(tmp_path: object) -> None:
    rows = ["start=4096, size=65536", *(f"start={place}, size=2048" for place in (71680, 75776, 79872))]
    _image(str(tmp_path), "\n".join(["label: dos", *rows, ""]))
    text = "image: my-image.raw\nfamily: suse\nroot_partition: 1\n"
    assert {cell.swap for cell in own_image.load(_describe(tmp_path, text)).cells} == {None, "b"}


def test_own_cells_need_no_fixture(tmp_path: object) -> None:
    _image(str(tmp_path), "label: dos\nstart=4096\n")
    text = documented() + "cells:\n  - {id: one, disk_size: 99, hostname: h}\n"
    (cell,) = own_image.load(_describe(tmp_path, text)).cells
    assert (cell.id, cell.fixture, cell.hostname) == ("one", own_image.NAME, "h")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image": "none.raw"}, r"none\.raw"),
        ({"family": "plan9"}, "family: must be one of debian"),
        ({"root_partition": 3}, "root_partition: 3 has no known file system"),
        ({"root_partition": "1"}, "root_partition: expected number"),
        ({"mounts": ["boot"]}, "mounts: 'boot' is not like /boot=2"),
        ({"mounts": ["/boot=9"]}, "mounts: there is no partition 9"),
        ({"mounts": ["/boot=1"]}, "mounts: partition 1 is mounted twice"),
        ({"accounts": []}, "accounts: root, whose password is set, is not among them"),
        ({"accounts": [{"name": "alice", "uid": 1, "home": "/"}]}, "accounts: root"),
        ({"colour": "red"}, "colour: unknown field"),
        ({"cells": {}}, "expected a mapping with a list named cells"),
    ],
)
def test_what_is_wrong_with_a_description_is_said(
    tmp_path: object, changed: dict[str, object], words: str
) -> None:
    _image(str(tmp_path), "label: dos\nstart=4096\n")
    path = _describe(tmp_path, yaml.safe_dump(yaml.safe_load(documented()) | changed))
    with pytest.raises(MatrixError, match=words) as caught:
        own_image.load(path)
    assert path in str(caught.value)


def test_pytest_finds_the_cells_without_being_told_of_a_test(tmp_path: object) -> None:
    _image(str(tmp_path), "label: dos\nstart=4096, type=83\n")
    _describe(tmp_path, documented())
    argv = [places.command("pytest"), "--image-matrix", "my-image.yaml", "--collect-only", "-q", "-n", "0"]
    text = run(argv, timeout=120, cwd=str(tmp_path), env={"HOME": str(tmp_path)}).text
    assert "::test_cell[nothing]" in text
    assert "::test_cell[password-swappartition-dhcp]" in text


@pytest.mark.parametrize(
    ("family", "line", "expected"),
    [
        ("debian", "", False),
        ("alpine", "", True),
        ("slackware", "", True),
        ("alpine", "kernel_names: false\n", False),
        ("debian", "kernel_names: true\n", True),
    ],
)
def test_who_calls_interfaces_as_the_kernel_does(
    tmp_path: object, family: str, line: str, *, expected: bool
) -> None:
    """It is the family's habit, unless the description says otherwise."""
    _image(str(tmp_path), "label: dos\nstart=4096, type=83\n")
    text = documented().replace("family: debian", f"family: {family}") + line
    matrix = own_image.load(_describe(tmp_path, text))
    assert matrix.image is not None
    assert matrix.image.facts.kernel_names is expected


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_image_of_freebsd_is_asked_for_what_can_be_proved_of_it(tmp_path: object, version: str) -> None:
    path = os.path.join(str(tmp_path), "my-image.raw")
    with open(path, "x+b") as file:
        file.truncate(64 * MIB)
        run(["sfdisk", "--quiet", path], timeout=60, stdin=b"label: gpt\nstart=4096\n")
        file.seek(4096 * 512 + (65536 if version == "2" else 8192) + 1372)
        file.write({"1": 0x011954, "2": 0x19540119}[version].to_bytes(4, "little"))
    text = "image: my-image.raw\nfamily: freebsd\nroot_partition: 1\n"
    matrix = own_image.load(_describe(tmp_path, text))
    assert matrix.image is not None
    assert matrix.image.facts.root_filesystem == f"ufs{version}"
    assert matrix.image.facts.network_file == "/etc/rc.conf"
    assert matrix.image.root().offset == 2097152
    assert {cell.credential for cell in matrix.cells} == {"none", "password", "hash", "keys", "password+keys"}
    assert {cell.swap for cell in matrix.cells} == {None}


def _bsd_image(directory: str, table: str, family: str, order: str = "<") -> str:
    """A disk with a disklabel in its slice at sector 4096: UFS2 in a, swap in b, UFS1 in e, of an order."""
    ffs = Filesystem(type="ufs2", uuid="")
    entries = (
        LabelEntry(letter="a", start=0, size=20, filesystem=ffs),
        LabelEntry(letter="b", start=20, size=1),
        LabelEntry(letter="e", start=22, size=32, filesystem=ffs),
    )
    place = Partition(number=1, start=2, size=61, type="", label=entries)
    path = os.path.join(directory, "my-image.raw")
    with open(path, "x+b") as file:
        file.truncate(64 * MIB)
        run(["sfdisk", "--quiet", path], timeout=60, stdin=table.encode())
        put_labels(path, Disk(size=64, table="mbr", id="0x1", partitions=(place,)), family)
        # Tracks of a cylinder are twice those of the fixtures, and the checksum is right again.
        file.seek(2 * MIB + 512)
        sector = bytearray(file.read(512))
        sector[48] ^= 16 ^ 32
        sector[136] ^= 16 ^ 32
        file.seek(2 * MIB + 512)
        file.write(sector)
        for start, offset, magic in ((2, 65536, 0x19540119), (24, 8192, 0x011954)):
            file.seek(start * MIB + offset + 1372)
            file.write(struct.pack(f"{order}I", magic))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("family", "table", "network_file"),
    [
        ("openbsd", "label: dos\nstart=4096, type=a6\n", "/etc/hostname.vio0"),
        (
            "openbsd",
            "label: gpt\nstart=4096, type=824CC7A0-36A8-11E3-890A-952519AD3F61\n",
            "/etc/hostname.vio0",
        ),
        ("netbsd", "label: dos\nstart=4096, type=a9\n", "/etc/ifconfig.vioif0"),
    ],
)
def test_the_file_systems_of_a_disklabel_are_found(
    tmp_path: object, family: str, table: str, network_file: str, order: str
) -> None:
    """The root is partition a of it; a NetBSD's file system may be of either byte order."""
    _bsd_image(str(tmp_path), table, family, order)
    text = f"image: my-image.raw\nfamily: {family}\nroot_partition: 1\nmounts: ['/home=1e']\n"
    matrix = own_image.load(_describe(tmp_path, text))
    assert matrix.image is not None
    assert matrix.image.facts.root_filesystem == "ufs2"
    assert matrix.image.facts.hostname == Setting(path="/etc/myname")
    assert matrix.image.facts.network_file == network_file
    assert matrix.image.facts.kernel_names
    seen = [
        (part.number, part.inside, part.mount, part.filesystem, part.offset, part.sector_count)
        for part in matrix.image.partitions
    ]
    assert seen == [
        (1, True, "/", "ufs2", 2 * MIB, 40960),
        (1, True, None, None, 22 * MIB, 2048),
        (1, True, "/home", "ufs1", 24 * MIB, 65536),
    ]
    assert matrix.image.root().offset == 2 * MIB
    assert matrix.image.last_partition().mount == "/home"
    assert {part.cylinder for part in matrix.image.partitions} == {63 * 32}
    assert {cell.credential for cell in matrix.cells} == {"none", "password", "hash", "keys", "password+keys"}
    assert {(cell.swap, cell.cloud_init) for cell in matrix.cells} == {(None, False)}


def test_a_netbsd_may_do_without_a_disklabel(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "my-image.raw")
    with open(path, "x+b") as file:
        file.truncate(64 * MIB)
        run(["sfdisk", "--quiet", path], timeout=60, stdin=b"label: dos\nstart=4096, type=a9\n")
        file.seek(4096 * 512 + 8192 + 1372)
        file.write(struct.pack(">I", 0x011954))
    text = "image: my-image.raw\nfamily: netbsd\nroot_partition: 1\n"
    matrix = own_image.load(_describe(tmp_path, text))
    assert matrix.image is not None
    (root,) = matrix.image.partitions
    assert (root.inside, root.filesystem, root.offset) == (False, "ufs1", 2097152)


@pytest.mark.parametrize(
    ("family", "line", "words"),
    [
        ("openbsd", "root_partition: 2", "root_partition: 2 has no known file system"),
        ("openbsd", "root_partition: 1\nmounts: ['/home=1']", "mounts: there is no partition 1$"),
        ("openbsd", "root_partition: 1\nmounts: ['/home=1f']", "mounts: there is no partition 1f"),
        ("openbsd", "root_partition: 1\nmounts: ['/home=1a']", "mounts: partition 1a is mounted twice"),
        ("netbsd", "root_partition: 1", "root_partition: 1 has no known file system"),
    ],
)
def test_what_is_wrong_with_the_description_of_a_disklabel_is_said(
    tmp_path: object, family: str, line: str, words: str
) -> None:
    """A label counts in a partition of its own family's type only."""
    path = _bsd_image(str(tmp_path), "label: dos\nstart=4096, type=a6\n", "openbsd")
    if family == "netbsd":
        with open(path, "r+b") as file:  # what begins where the slice does
            file.seek(2 * MIB + 65536 + 1372)
            file.write(bytes(4))
    with pytest.raises(MatrixError, match=words):
        own_image.load(_describe(tmp_path, f"image: my-image.raw\nfamily: {family}\n{line}\n"))


def test_a_damaged_disklabel_is_said(tmp_path: object) -> None:
    path = _bsd_image(str(tmp_path), "label: dos\nstart=4096, type=a6\n", "openbsd")
    with open(path, "r+b") as file:
        file.seek(4097 * 512 + 20)
        file.write(b"\x01")
    text = "image: my-image.raw\nfamily: openbsd\nroot_partition: 1\n"
    with pytest.raises(MatrixError, match=r"my-image\.raw: the disklabel's checksum is wrong"):
        own_image.load(_describe(tmp_path, text))
