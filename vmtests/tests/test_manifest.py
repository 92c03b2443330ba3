"""Manifests: what is compared, and that receipt and tree must tell the same story."""

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
        xattrs=(("security.selinux", b"label".hex()),),
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


def test_what_was_made_anew_may_be_like_it_wants() -> None:
    """A file that was moved away first, or removed, and then made again."""
    receipt = _receipt(("/etc/a", "renamed", "to /etc/b"), ("/etc/a", "created", ""))
    found = {"/etc/a": "mode, uid, content", "/etc/b": "created"}
    assert manifest.unexplained(found, receipt) == []
