"""UFS as the proofs look at it: archives like those of other file systems."""

import os

import pytest

from snf_image_vmtests import manifest, places, ufs_look
from ufs.mkfs import Node, make
from ufs.superblock import Shape

NODES = [
    Node(path="etc"),
    Node(path="etc/master.passwd", data=b"root:x\n", mode=0o600),
    Node(path="etc/same", same_as="etc/master.passwd"),
    Node(path="home"),
    Node(path="top", data=b"1"),
]
BELOW = [Node(path="a", data=b"22"), Node(path="b", same_as="a")]
MIB = 1024 * 1024


def test_names_of_one_file_are_known_to_each_other_and_counted(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(places.BUILD_VARIABLE, str(tmp_path))
    path = os.path.join(str(tmp_path), "disk")
    for name, nodes in (("one", NODES), ("two", BELOW)):
        fd = os.open(os.path.join(str(tmp_path), name), os.O_RDWR | os.O_CREAT)
        make(fd, Shape(version=2, size=8 * MIB), nodes)
        with open(fd, "rb") as file, open(path, "ab") as disk:
            file.seek(0)
            disk.write(file.read())
    with ufs_look.archive(path, {"/": 0, "/home": 8 * MIB}) as archive:
        made = manifest.read_archive(archive)
        files = manifest.read_files(archive, ["/etc/same", "/home/b"])
    assert made.keys() == {f"/{node.path}" for node in NODES} | {"/", "/home/a", "/home/b"}
    for names in (("/etc/master.passwd", "/etc/same"), ("/home/a", "/home/b")):
        assert {(made[name].links, made[name].names) for name in names} == {(2, names)}
    assert (made["/top"].links, made["/top"].names) == (1, ())
    assert (made["/etc"].links, made["/home"].links) == (1, 1)
    assert files == {"/etc/same": b"root:x\n", "/home/b": b"22"}
