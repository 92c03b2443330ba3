"""Manifests: what is compared, and that receipt and tree must tell the same story."""

import hashlib
import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_vmtests import manifest
from snf_image_vmtests.manifest import Item


def _receipt(*changes: tuple[str, str, str]) -> dict[str, object]:
    listed = [{"path": path, "change": kind, "detail": detail} for path, kind, detail in changes]
    return {"tasks": [{"name": "T", "changes": listed}]}


def _file(content: str = "x", **other: object) -> Item:
    values = {"kind": "file", "mode": 0o644, "uid": 0, "gid": 0, "content": content}
    return Item(**(values | other))  # type: ignore[arg-type]  # a test's shorthand


def test_an_archive_becomes_a_manifest_with_owners_modes_attributes_and_contents(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "a.tar")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        directory = tarfile.TarInfo(".")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        file = tarfile.TarInfo("./etc/shadow")
        file.mode, file.uid, file.gid, file.size = 0o640, 0, 42, 3
        file.pax_headers = {"SCHILY.xattr.security.selinux": "label"}
        archive.addfile(file, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("./etc/shadow.link")
        link.type, link.linkname = tarfile.LNKTYPE, "./etc/shadow"
        archive.addfile(link)
        pipe = tarfile.TarInfo("./run/pipe")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    made = manifest.read_archive(path)
    assert made["/"].kind == "directory"
    assert made["/etc/shadow"] == Item(
        kind="file", mode=0o640, uid=0, gid=42,
        content="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        xattrs=(("security.selinux", b"label".hex()),), names=("/etc/shadow", "/etc/shadow.link"),
    )  # fmt: skip
    assert made["/etc/shadow.link"] == made["/etc/shadow"]
    assert made["/run/pipe"].kind == "fifo"
    assert manifest.read_files(path, ["/etc/shadow", "/run/pipe", "/none"]) == {"/etc/shadow": b"abc"}


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9),
        st.builds(
            Item,
            kind=st.sampled_from(["file", "directory", "link"]),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, 2**32),
            gid=st.integers(0, 2**32),
            content=st.text(max_size=9),
            xattrs=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=2).map(tuple),
            links=st.integers(1, 9),
            names=st.lists(st.text(max_size=5), max_size=2).map(tuple),
        ),
    )
)
def test_a_saved_manifest_is_read_back_the_same(tmp_path_factory: object, made: manifest.Manifest) -> None:
    path = os.path.join(str(tmp_path_factory.getbasetemp()), f"saved-{os.getpid()}")  # type: ignore[attr-defined]
    manifest.save(made, path)
    assert manifest.load(path) == made


def test_differences_name_what_is_different() -> None:
    before = {"/a": _file(), "/b": _file(), "/c": _file(), "/d": _file()}
    after = {"/a": _file(), "/b": _file("y", mode=0o600), "/c": _file(uid=5), "/e": _file()}
    found = manifest.differences(before, after)
    assert found == {"/b": "mode, content", "/c": "uid", "/d": "removed", "/e": "created"}


def test_a_change_that_the_receipt_forgets_is_found() -> None:
    found = {"/etc/shadow": "content", "/etc/passwd": "content"}
    wrong = manifest.unexplained(found, _receipt(("/etc/shadow", "modified", "")))
    assert wrong == ["/etc/passwd: content, but the receipt does not say so"]


def test_a_change_that_only_the_receipt_knows_is_found() -> None:
    receipt = _receipt(("/etc/shadow", "modified", ""), ("disk 0 partition 1", "partition", "grown"))
    wrong = manifest.unexplained({}, receipt)
    assert wrong == ["/etc/shadow: in the receipt, but it is as it was"]


def test_a_renamed_directory_explains_what_is_below_it_and_nothing_beside() -> None:
    found = {"/a": "removed", "/a/f": "removed", "/b": "created", "/b/f": "created", "/bb": "created"}
    wrong = manifest.unexplained(found, _receipt(("/a", "renamed", "to /b")))
    assert wrong == ["/bb: created, but the receipt does not say so"]


@pytest.mark.parametrize("what", ["mode", "uid, content", "xattrs, content", "kind, mode, content"])
def test_a_modified_file_keeps_owner_mode_and_attributes(what: str) -> None:
    """R-TASK-6: the receipt speaks of contents, so nothing else of the file may have changed."""
    receipt = _receipt(("/etc/shadow", "modified", ""), ("/etc/shadow", "modified", ""))
    assert manifest.unexplained({"/etc/shadow": "content"}, receipt) == []
    other = ", ".join(word for word in what.split(", ") if word != "content")
    wrong = manifest.unexplained({"/etc/shadow": what}, receipt)
    assert wrong == [f"/etc/shadow: {other}, but the receipt speaks of its contents only"]


def test_changed_attributes_are_no_excuse_for_changed_contents() -> None:
    receipt = _receipt(("/etc/rc.d/rc.inet1", "attributes", ""))
    assert manifest.unexplained({"/etc/rc.d/rc.inet1": "mode, uid"}, receipt) == []
    wrong = manifest.unexplained({"/etc/rc.d/rc.inet1": "mode, content"}, receipt)
    assert wrong == ["/etc/rc.d/rc.inet1: content, but the receipt speaks of its attributes only"]


def _archive(path: str, members: list[tarfile.TarInfo], beside: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
        for name, data in beside.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _member(name: str, *, link: str | None = None, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.REGTYPE if link is None else tarfile.LNKTYPE
    member.linkname, member.size = link or "", size
    return member


def test_names_of_one_file_are_known_to_each_other_and_counted(tmp_path: object) -> None:
    """A name can be hidden: below a mount point, or the short one of NTFS. The count still tells."""
    path = os.path.join(str(tmp_path), "a.tar")
    members = [
        _member("./a", size=1), _member("./b", link="./a"), _member("./links", size=2), _member("./é\n"),
        _member("./sub/c", link="./a"),
    ]  # fmt: skip
    _archive(path, members, {"links": "3 a\0003 b\0003 sub/c\0002 é\n\000".encode()})
    made = manifest.read_archive(path)
    assert sorted(made) == ["/a", "/b", "/links", "/sub/c", "/é\n"]
    for name in ("/a", "/b", "/sub/c"):
        assert (made[name].links, made[name].names) == (3, ("/a", "/b", "/sub/c"))
    assert (made["/é\n"].links, made["/é\n"].names) == (2, ())
    assert (made["/links"].links, made["/links"].names) == (1, ())
    assert manifest.read_files(path, ["/b", "/links"]) == {"/b": b"\0", "/links": b"\0\0"}
    assert manifest.groups(made, {"/a": _file(names=("/a", "/z"))})["/a"] == {"/a", "/b", "/sub/c", "/z"}


def test_security_descriptors_of_ntfs_are_attributes(tmp_path: object) -> None:
    """As getfattr prints them: by path from the top, which is a dot, with odd characters as octal digits."""
    path = os.path.join(str(tmp_path), "a.tar")
    top = _member(".")
    top.type = tarfile.DIRTYPE
    listed = {
        "system.ntfs_acl": b"# file: .\nsystem.ntfs_acl=0x6162\n\n"
        b"# file: a\\134\\012b\nsystem.ntfs_acl=0x616263\n\n",
        "system.ntfs_attrib": b"# file: a\\134\\012b\nsystem.ntfs_attrib=0x20000000\n\n",
    }
    _archive(path, [top, _member("./a\\\nb")], listed)
    made = manifest.read_archive(path)
    assert made["/"].xattrs == (("system.ntfs_acl", hashlib.sha256(b"ab").hexdigest()),)
    assert made["/a\\\nb"].xattrs == (
        ("system.ntfs_acl", hashlib.sha256(b"abc").hexdigest()),
        ("system.ntfs_attrib", hashlib.sha256(b" \0\0\0").hexdigest()),
    )


def _linked(*names: str, content: str = "x") -> dict[str, Item]:
    """A file with these names."""
    several = names if len(names) > 1 else ()
    return dict.fromkeys(names, _file(content, links=len(names), names=several))


def _wrong(before: manifest.Manifest, after: manifest.Manifest, *changes: tuple[str, str, str]) -> list[str]:
    found = manifest.differences(before, after)
    return manifest.unexplained(found, _receipt(*changes), manifest.groups(before, after))


def test_a_link_that_was_broken_is_found_at_every_name() -> None:
    before, after = _linked("/a", "/b"), _linked("/a") | _linked("/b")
    assert manifest.differences(before, after) == {"/a": "links, names", "/b": "links, names"}
    assert _wrong(before, after) == [
        "/a: links, names, but the receipt does not say so",
        "/b: links, names, but the receipt does not say so",
    ]


def test_a_file_of_several_names_must_not_be_replaced_under_one() -> None:
    """D-29: it is rewritten, so that all its names show the change; the receipt has the one asked for."""
    before = _linked("/a", "/b")
    rewritten, replaced = _linked("/a", "/b", content="y"), _linked("/a", content="y") | _linked("/b")
    assert _wrong(before, rewritten, ("/a", "modified", "")) == []
    assert _wrong(before, replaced, ("/a", "modified", "")) == [
        "/a: links, names, but the receipt speaks of its contents only",
    ]


def test_a_name_that_was_removed_or_moved_explains_what_its_others_count_and_no_more() -> None:
    before = _linked("/a", "/b", "/d/c")
    assert _wrong(before, _linked("/b", "/d/c"), ("/a", "removed", "")) == []
    assert _wrong(before, _linked("/a", "/b", "/e/c"), ("/d", "renamed", "to /e")) == [
        "/d: in the receipt, but it is as it was",
        "/e: in the receipt, but it is as it was",
    ]
    assert _wrong(before, _linked("/b", "/d/c", content="y"), ("/a", "removed", "")) == [
        "/b: content, but the receipt speaks of its other names only",
        "/d/c: content, but the receipt speaks of its other names only",
    ]


def test_what_was_made_anew_may_be_like_it_wants() -> None:
    """A file that was moved away first, or removed, and then made again."""
    receipt = _receipt(("/etc/a", "renamed", "to /etc/b"), ("/etc/a", "created", ""))
    found = {"/etc/a": "mode, uid, content", "/etc/b": "created"}
    assert manifest.unexplained(found, receipt) == []
