"""The door to the untrusted tree."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_image_helper.errors import ImageError
from snf_image_helper.root import MAX_CONFIG_FILE, LinkOnPath, Root
from snf_image_process import run
from trees import (
    Device,
    Directory,
    Fifo,
    File,
    GuestOf,
    HardLink,
    Link,
    Node,
    Socket,
    changes,
    content,
    exists,
    mode,
    owner,
    warnings,
)

Operation = Callable[[Root, str], object]

CHANGING: dict[str, Operation] = {
    "write": lambda root, path: root.write(path, b"evil"),
    "force": lambda root, path: root.write(path, b"evil", mode=0o600, force=True),
    "mkdir": lambda root, path: root.mkdir(f"{path}.d/sub"),
    "remove": lambda root, path: root.remove(path),
    "remove_tree": lambda root, path: root.remove_tree(path),
    "rename": lambda root, path: root.rename(path, f"{path}.old"),
    "symlink": lambda root, path: root.symlink("x", f"{path}.link"),
    "set_attributes": lambda root, path: root.set_attributes(path, mode=0o777),
}
LOOKING: dict[str, Operation] = {
    "read": lambda root, path: root.read_optional(path),
    "list": lambda root, path: root.list(path) if root.is_dir(path) else [],
    "stat": lambda root, path: root.stat(path),
    "links": lambda root, path: root.links(path),
}


def open_and_close(root: Root, path: str) -> None:
    with root.open_file(path):
        pass


OPENING: dict[str, Operation] = {
    "open_file": open_and_close,
    "read_head": lambda root, path: root.read_head(path, 10),
}


def snapshot(top: Path) -> list[tuple[str, int, bytes]]:
    """Everything below ``top``: path, mode, contents."""
    found = []
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((str(path), status.st_mode, data))
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the guest that stands for the helper's own files."""
    directory = tmp_path / "outside"
    (directory / "etc").mkdir(parents=True)
    for name in ("hostname", "shadow", "etc/hostname", "etc/shadow"):
        (directory / name).write_bytes(b"the helper's own")
    return directory


@pytest.mark.parametrize("name", [*CHANGING, *LOOKING])
@pytest.mark.parametrize("where", ["last component", "directory"])
@pytest.mark.parametrize("kind", ["absolute", "relative", "proc"])
def test_no_link_of_the_image_leads_out(
    guest_of: GuestOf, outside: Path, name: str, where: str, kind: str
) -> None:
    """T-78, T-123, R-TASK-5: whatever is done through a link, the files of the helper stay as they are."""
    target = {
        "absolute": str(outside),
        "relative": "../" * 40 + str(outside).lstrip("/"),
        "proc": "/proc/self/root" + str(outside),
    }[kind]
    tree: dict[str, Node] = (
        {"/etc/hostname": Link(f"{target}/hostname")} if where == "last component" else {"/etc": Link(target)}
    )
    guest = guest_of(tree)
    before = snapshot(outside)
    try:
        result = ({**CHANGING, **LOOKING})[name](guest.root, "/etc/hostname")
    except ImageError as error:
        assert str(error).startswith("/etc")  # noqa: PT017 - both endings are right
    else:
        assert result != b"the helper's own"
    assert snapshot(outside) == before


@pytest.mark.parametrize("name", ["write", "force", "set_attributes", "read", "list", "stat", "links"])
@pytest.mark.parametrize("target", ["/etc/hostname", "hostname", "../etc/./hostname"])
def test_a_link_to_itself_is_an_error_that_names_it(guest_of: GuestOf, name: str, target: str) -> None:
    """R-TASK-5: looping links end, in an error about the image."""
    guest = guest_of({"/etc/hostname": Link(target)})
    with pytest.raises(ImageError, match=r"^/etc/hostname: too many links"):
        ({**CHANGING, **LOOKING})[name](guest.root, "/etc/hostname")


@pytest.mark.parametrize("name", CHANGING)
def test_a_loop_in_the_way_is_an_error(guest_of: GuestOf, name: str) -> None:
    """R-TASK-5: also where the loop is a directory of the path."""
    guest = guest_of({"/etc": Link("/usr/etc"), "/usr/etc": Link("../etc")})
    with pytest.raises(ImageError, match="too many links"):
        CHANGING[name](guest.root, "/etc/hostname")


def test_an_absolute_link_is_relative_to_the_root(guest_of: GuestOf) -> None:
    """R-TASK-6: what the link leads to is replaced, the link stays, the receipt names the file."""
    guest = guest_of({"/etc/hostname": Link("/usr/lib/name"), "/usr/lib/name": File("old", mode=0o640)})
    guest.root.write("/etc/hostname", b"new")
    assert content(guest, "/usr/lib/name") == b"new"
    assert mode(guest, "/usr/lib/name") == 0o640
    assert os.readlink(f"{guest.target}/etc/hostname") == "/usr/lib/name"
    assert changes(guest) == [("modified", "/usr/lib/name")]


def test_dot_dot_stops_at_the_root(guest_of: GuestOf) -> None:
    """R-TASK-5: ``..`` above the root is the root."""
    guest = guest_of({"/etc/hostname": Link("../../../../../../../../name"), "/name": "old"})
    guest.root.write("/etc/hostname", b"new")
    assert content(guest, "/name") == b"new"


def test_relative_links_start_where_they_stand(guest_of: GuestOf) -> None:
    """R-TASK-5: ``..`` of a link is taken where the link really is, not as text."""
    guest = guest_of({"/a/b/file": Link("../file"), "/link": Link("/a/b"), "/a/file": "old"})
    guest.root.write("/link/file", b"new")
    assert content(guest, "/a/file") == b"new"
    assert guest.root.read("/link/file") == b"new"


def test_a_dangling_link_is_followed_where_its_directory_exists(guest_of: GuestOf) -> None:
    guest = guest_of({"/etc/a": Link("/usr/b"), "/usr": None, "/etc/c": Link("/nowhere/d")})
    guest.root.write("/etc/a", b"new")
    assert content(guest, "/usr/b") == b"new"
    with pytest.raises(ImageError, match=r"^/etc/c: the directory it belongs in does not exist"):
        guest.root.write("/etc/c", b"new")
    assert not guest.root.exists("/etc/c")
    assert guest.root.lstat("/etc/c") is not None


def test_a_file_is_created_with_what_was_stated(guest_of: GuestOf) -> None:
    """R-TASK-6: a new file gets the stated attributes, and the receipt hears of it."""
    guest = guest_of({"/etc": None})
    guest.root.write("/etc/hostname", b"web1\n", mode=0o600, uid=12, gid=34)
    assert (content(guest, "/etc/hostname"), mode(guest, "/etc/hostname")) == (b"web1\n", 0o600)
    assert owner(guest, "/etc/hostname") == (12, 34)
    assert changes(guest) == [("created", "/etc/hostname")]


def _acl(user: int) -> bytes:
    """A POSIX ACL of version 2 that lets one more user read."""
    no_id = 0xFFFFFFFF
    entries = [(0x01, 6, no_id), (0x02, 4, user), (0x04, 4, no_id), (0x10, 4, no_id), (0x20, 0, no_id)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_a_replaced_file_keeps_mode_attributes_and_acl(guest_of: GuestOf) -> None:
    """R-TASK-6: a new inode, with everything of the old one but its contents."""
    attributes = {"user.note": b"kept", "system.posix_acl_access": _acl(1234)}
    guest = guest_of({"/etc/shadow": File("old", mode=0o640, attributes=attributes)})
    path = f"{guest.target}/etc/shadow"
    before = os.stat(path)
    guest.root.write("/etc/shadow", b"new", mode=0o777)
    after = os.stat(path)
    assert content(guest, "/etc/shadow") == b"new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == attributes
    assert os.listdir(f"{guest.target}/etc") == ["shadow"]


def test_special_bits_survive(guest_of: GuestOf) -> None:
    """R-TASK-6: giving a file away takes its set-uid bit; the mode is set after that."""
    guest = guest_of({"/bin/su": File("old", mode=0o4755)})
    guest.root.write("/bin/su", b"new")
    assert mode(guest, "/bin/su") == 0o4755


@pytest.mark.requires("root")
def test_a_replaced_file_keeps_its_owner(guest_of: GuestOf) -> None:
    """R-TASK-6: owner and group, whatever is stated for new files."""
    guest = guest_of({"/etc/shadow": File("old", mode=0o640, uid=7, gid=42)})
    guest.root.write("/etc/shadow", b"new")
    assert owner(guest, "/etc/shadow") == (7, 42)


def test_force_gives_the_stated_attributes(guest_of: GuestOf) -> None:
    """R-PERS-5: a file that is wholly ours gets mode and owner even if it is there, and loses ACL."""
    attributes = {"system.posix_acl_access": _acl(1234)}
    guest = guest_of({"/root/key": File("same", mode=0o664, attributes=attributes)})
    guest.root.write("/root/key", b"same", mode=0o600, uid=12, gid=34, force=True)
    assert (mode(guest, "/root/key"), owner(guest, "/root/key")) == (0o600, (12, 34))
    assert os.listxattr(f"{guest.target}/root/key") == []


@pytest.mark.parametrize(
    ("old", "told"),
    [
        (File("old", mode=0o600), ["modified"]),
        (File("old", mode=0o640), ["modified", "attributes"]),
        (File("old", mode=0o600, uid=7), ["modified", "attributes"]),
        (File("old", mode=0o600, attributes={"user.note": b"lost"}), ["modified", "attributes"]),
    ],
)
def test_force_tells_that_attributes_changed(guest_of: GuestOf, old: File, told: list[str]) -> None:
    """R-TASK-6: the receipt speaks of attributes, too, if those of a file that was there changed."""
    guest = guest_of({"/etc/hosts": old})
    guest.root.write("/etc/hosts", b"new", mode=0o600, force=True)
    assert changes(guest) == [(kind, "/etc/hosts") for kind in told]


def test_unchanged_contents_are_not_written(guest_of: GuestOf) -> None:
    guest = guest_of({"/etc/hostname": "web1\n"})
    before = os.stat(f"{guest.target}/etc/hostname")
    guest.root.write("/etc/hostname", b"web1\n")
    assert os.stat(f"{guest.target}/etc/hostname").st_ino == before.st_ino
    assert changes(guest) == []


@pytest.mark.parametrize("data", [b"new", b"newer and longer than the old", b""])
def test_a_file_of_several_names_is_rewritten_in_place(guest_of: GuestOf, data: bytes) -> None:
    """D-29: both names show the change, and the user is told."""
    guest = guest_of({"/etc/hosts": File("the old", mode=0o600), "/etc/hosts.orig": HardLink("/etc/hosts")})
    guest.root.write("/etc/hosts", data)
    assert content(guest, "/etc/hosts.orig") == data
    assert mode(guest, "/etc/hosts") == 0o600
    assert warnings(guest) == ["/etc/hosts: has 2 names; rewritten in place, so all show the change"]


def test_a_forced_file_of_several_names_shows_its_secret_to_nobody(guest_of: GuestOf) -> None:
    """D-29: rewritten in place, the stated mode holds for every name."""
    guest = guest_of({"/root/key": File("old", mode=0o666), "/srv/known": HardLink("/root/key")})
    guest.root.write("/root/key", b"secret", mode=0o600, force=True)
    assert (content(guest, "/srv/known"), mode(guest, "/srv/known")) == (b"secret", 0o600)


def test_on_ufs_attributes_are_kept_by_rewriting(guest_of: GuestOf) -> None:
    """D-29: where a copy would lose extended attributes the file is rewritten, else replaced."""
    tree: dict[str, Node] = {
        "/a": File("old", attributes={"user.note": b"kept"}),
        "/b": "old",
    }
    guest = guest_of(tree, rewrite_in_place=True)
    inodes = [os.stat(f"{guest.target}{path}").st_ino for path in ("/a", "/b")]
    guest.root.write("/a", b"new")
    guest.root.write("/b", b"new")
    assert os.stat(f"{guest.target}/a").st_ino == inodes[0]
    assert os.stat(f"{guest.target}/b").st_ino != inodes[1]
    assert warnings(guest) == ["/a: rewritten in place, to keep its extended attributes"]


@pytest.mark.parametrize("name", ["write", "force", "read", "remove"])
def test_a_directory_where_a_file_is_expected_is_an_error(guest_of: GuestOf, name: str) -> None:
    """R-TASK-6."""
    guest = guest_of({"/etc/hostname": None})
    with pytest.raises(ImageError, match=r"^/etc/hostname: "):
        ({**CHANGING, **LOOKING})[name](guest.root, "/etc/hostname")


SPECIAL = [
    pytest.param(Fifo(), "a FIFO", id="fifo"),
    pytest.param(Socket(), "a socket", id="socket"),
    pytest.param(
        Device("character"), "a character device", id="character", marks=pytest.mark.requires("root")
    ),
    pytest.param(Device("block"), "a block device", id="block", marks=pytest.mark.requires("root")),
    # Ones that have a driver: reading from them would have no end, writing to them no effect.
    pytest.param(
        Device("character", 1, 5), "a character device", id="zero", marks=pytest.mark.requires("root")
    ),
]


@pytest.mark.parametrize("through", ["/etc/hostname", "/link"])
@pytest.mark.parametrize("name", ["write", "force", "set_attributes", "read", "open_file", "read_head"])
@pytest.mark.parametrize(("node", "what"), SPECIAL)
def test_a_special_file_where_a_file_is_expected_is_an_error(
    guest_of: GuestOf, node: Node, what: str, name: str, through: str
) -> None:
    """R-TASK-6: it is not even opened, also where a link leads to it, and stays what it is."""
    guest = guest_of({"/etc/hostname": node, "/link": Link("etc/hostname")})
    before = os.lstat(f"{guest.target}/etc/hostname")
    told = rf"^{through}: (not a regular file but {what}|neither a regular file nor a directory)$"
    with pytest.raises(ImageError, match=told):
        ({**CHANGING, **LOOKING, **OPENING})[name](guest.root, through)
    after = os.lstat(f"{guest.target}/etc/hostname")
    assert (after.st_mode, after.st_rdev, after.st_ino) == (before.st_mode, before.st_rdev, before.st_ino)
    assert changes(guest) == []


@pytest.mark.parametrize("name", ["mkdir", "list", "below"])
@pytest.mark.parametrize(("node", "what"), SPECIAL)
def test_a_special_file_where_a_directory_is_expected_is_an_error(
    guest_of: GuestOf, node: Node, what: str, name: str
) -> None:
    """R-TASK-6."""
    guest = guest_of({"/etc": node})
    act: dict[str, Operation] = {
        "mkdir": lambda root, path: root.mkdir(f"{path}/sub"),
        "list": lambda root, path: root.list(path),
        "below": lambda root, path: root.write(f"{path}/hostname", b"x"),
    }
    with pytest.raises(ImageError, match=r"^/etc(/hostname)?: (is not|not) a directory"):
        act[name](guest.root, "/etc")


@pytest.mark.parametrize(("node", "what"), SPECIAL)
def test_a_special_file_can_be_removed(guest_of: GuestOf, node: Node, what: str) -> None:
    """R-TASK-6: with all that is done to remove a file, and nothing else."""
    for name in ("remove", "remove_tree", "rename"):
        guest = guest_of({"/etc/hostname": node})
        CHANGING[name](guest.root, "/etc/hostname")
        assert not exists(guest, "/etc/hostname")


def test_a_large_file_is_no_configuration(guest_of: GuestOf) -> None:
    """R-TASK-6: 16 MiB are read, a byte more is an error, a sparse terabyte as well."""
    guest = guest_of({"/etc/hosts": ""})
    path = f"{guest.target}/etc/hosts"
    os.truncate(path, MAX_CONFIG_FILE)
    assert len(guest.root.read("/etc/hosts")) == MAX_CONFIG_FILE
    for size in (MAX_CONFIG_FILE + 1, 1 << 40):
        os.truncate(path, size)
        with pytest.raises(ImageError, match=r"^/etc/hosts: larger than 16777216 bytes"):
            guest.root.read("/etc/hosts")
    assert guest.root.read_head("/etc/hosts", 3) == b"\0\0\0"


def test_a_directory_of_a_million_names_is_refused(
    guest_of: GuestOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper's memory is bounded whatever the image holds."""
    monkeypatch.setattr("snf_image_helper.root.MAX_ENTRIES", 3)
    guest = guest_of({f"/etc/{number}": "" for number in range(4)})
    with pytest.raises(ImageError, match=r"^/etc: more than 3 names"):
        guest.root.list("/etc")


@pytest.mark.parametrize("number", [errno.EUCLEAN, errno.EBADMSG, errno.EIO, errno.EROFS])
def test_a_damaged_file_system_is_called_so(
    guest_of: GuestOf, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """R-TASK-5: no words of a kernel that only its developers know."""

    def damaged(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    guest = guest_of({"/etc/shadow": "old"})
    monkeypatch.setattr(os, "rename", damaged)
    with pytest.raises(ImageError, match=r"^/etc/shadow: the file system is .*damaged$"):
        guest.root.write("/etc/shadow", b"new")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_file_system_leaves_the_old_file(
    guest_of: GuestOf, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """R-TASK-6: all or nothing, a clear text, and no temporary file."""

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    guest = guest_of({"/etc/shadow": "old"})
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ImageError, match=r"^/etc/shadow: the file system is full$"):
        guest.root.write("/etc/shadow", b"new")
    assert content(guest, "/etc/shadow") == b"old"
    assert os.listdir(f"{guest.target}/etc") == ["shadow"]
    assert changes(guest) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    where = tmp_path / "small"
    where.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(where)], timeout=10)
    yield where
    run(["umount", "-l", str(where)], timeout=10)


@pytest.mark.requires("root")
def test_a_really_full_file_system(small: Path) -> None:
    """R-TASK-6: the kernel's own word for it, while writing."""
    (small / "hosts").write_bytes(b"old")
    fd = os.open(small, os.O_RDONLY)
    try:
        root = Root(fd, record=lambda _: None, warn=lambda _: None)
        with pytest.raises(ImageError, match="the file system is full"):
            root.write("/hosts", b"x" * 100_000)
    finally:
        os.close(fd)
    assert [path.name for path in small.iterdir()] == ["hosts"]
    assert (small / "hosts").read_bytes() == b"old"


def test_directories_are_made_with_their_parents(guest_of: GuestOf) -> None:
    guest = guest_of({"/root": None})
    guest.root.mkdir("/root/.ssh/deep", mode=0o700, uid=5, gid=6)
    for path in ("/root/.ssh", "/root/.ssh/deep"):
        assert (mode(guest, path), owner(guest, path)) == (0o700, (5, 6))
    guest.root.mkdir("/root/.ssh", mode=0o755)
    assert mode(guest, "/root/.ssh") == 0o700
    assert changes(guest) == [("directory", "/root/.ssh"), ("directory", "/root/.ssh/deep")]


def test_a_directory_in_whose_way_a_file_stands(guest_of: GuestOf) -> None:
    """R-TASK-PER-2: the error names what is in the way."""
    guest = guest_of({"/root/.ssh": "a file"})
    with pytest.raises(ImageError, match=r"^/root/\.ssh"):
        guest.root.mkdir("/root/.ssh/deep")
    with pytest.raises(ImageError, match=r"^/root/\.ssh: is not a directory"):
        guest.root.mkdir("/root/.ssh")


def test_a_directory_is_made_where_a_dangling_link_leads(guest_of: GuestOf) -> None:
    """R-TASK-5: inside the tree, and the receipt says where."""
    guest = guest_of({"/etc/cloud": Link("/usr/cloud"), "/usr": None})
    guest.root.mkdir("/etc/cloud")
    assert guest.root.is_dir("/usr/cloud")
    assert changes(guest) == [("directory", "/usr/cloud")]


def test_removing(guest_of: GuestOf) -> None:
    """A link is removed itself, not what it leads to; what is absent is no news."""
    guest = guest_of({"/a": "x", "/link": Link("/a"), "/etc": "a file"})
    assert guest.root.remove("/link")
    assert content(guest, "/a") == b"x"
    for absent in ("/none", "/no/ne", "/etc/none"):
        assert not guest.root.remove(absent)
        assert not guest.root.remove_tree(absent)
    assert changes(guest) == [("removed", "/link")]


def test_removing_a_tree_stays_within_it(guest_of: GuestOf) -> None:
    guest = guest_of(
        {"/var/x/a/b/c": "1", "/var/x/a/link": Link("/etc"), "/var/x/pipe": Fifo(), "/etc/keep": "2"}
    )
    assert guest.root.remove_tree("/var/x")
    assert not exists(guest, "/var/x")
    assert content(guest, "/etc/keep") == b"2"
    assert os.listdir(f"{guest.target}/var") == []


def test_removing_a_tree_of_any_depth(guest_of: GuestOf) -> None:
    """A hostile depth takes neither descriptors nor stack."""
    guest = guest_of({"/var/x": None})
    fd = os.open(f"{guest.target}/var/x", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    assert guest.root.remove_tree("/var/x")
    assert not exists(guest, "/var/x")


@pytest.mark.requires("root")
def test_removing_a_tree_spares_what_is_mounted_in_it(guest_of: GuestOf) -> None:
    guest = guest_of({"/var/x/mounted": None})
    mounted = f"{guest.target}/var/x/mounted"
    run(["mount", "-t", "tmpfs", "tmpfs", mounted], timeout=10)
    try:
        with open(f"{mounted}/file", "wb"):
            pass
        with pytest.raises(ImageError, match=r"^/var/x: another file system is mounted in it"):
            guest.root.remove_tree("/var/x")
        assert os.listdir(mounted) == ["file"]
    finally:
        run(["umount", mounted], timeout=10)


def test_renaming_never_replaces(guest_of: GuestOf) -> None:
    guest = guest_of({"/a": "1", "/b": "2", "/dangling": Link("/none")})
    for taken in ("/b", "/dangling"):
        with pytest.raises(ImageError, match="exists already"):
            guest.root.rename("/a", taken)
    guest.root.rename("/a", "/c")
    assert content(guest, "/c") == b"1"
    assert changes(guest) == [("renamed", "/a")]


def test_linking(guest_of: GuestOf) -> None:
    guest = guest_of({"/etc/file": "1"})
    guest.root.symlink("/x", "/etc/link")
    guest.root.symlink("/x", "/etc/link")
    assert guest.root.readlink("/etc/link") == "/x"
    for taken in ("/etc/link", "/etc/file"):
        with pytest.raises(ImageError, match="exists already"):
            guest.root.symlink("/y", taken)
    with pytest.raises(ImageError):
        guest.root.readlink("/etc/file")
    assert changes(guest) == [("link", "/etc/link")]


def test_attributes_of_files_and_directories(guest_of: GuestOf) -> None:
    guest = guest_of({"/a": File("1", mode=0o644), "/d": Directory(mode=0o755)})
    guest.root.set_attributes("/a", mode=0o600)
    guest.root.set_attributes("/d", uid=3, gid=4)
    assert (mode(guest, "/a"), mode(guest, "/d"), owner(guest, "/d")) == (0o600, 0o755, (3, 4))
    with pytest.raises(ImageError, match=r"^/none: "):
        guest.root.set_attributes("/none", mode=0o600)


def test_what_is_looked_at(guest_of: GuestOf) -> None:
    guest = guest_of({"/bin/a": File("x", mode=0o755), "/bin/b": "y", "/l": Link("bin"), "/n": Link("none")})
    root = guest.root
    assert root.list("/l") == ["a", "b"]
    assert root.list("/none") == []
    assert (root.is_executable("/bin/a"), root.is_executable("/bin/b")) == (True, False)
    assert (root.exists("/n"), root.is_dir("/l"), root.is_file("/bin/a")) == (False, True, True)
    assert root.read_optional("/none") is None
    assert root.read_optional("/bin/a/none") is None
    with pytest.raises(FileNotFoundError):
        root.read("/none")
    with pytest.raises(ImageError, match=r"^/bin/a: "):
        root.list("/bin/a")
    with root.open_directory("/bin") as fd:
        assert sorted(os.listdir(fd)) == ["a", "b"]


def test_links_on_a_path(guest_of: GuestOf) -> None:
    """R-TASK-KEY-3: every link that resolving goes through, also those in the targets of links."""
    guest = guest_of(
        {
            "/home/u/.ssh": Link("../keys/./here"),
            "/home/keys": Link("/srv/keys"),
            "/srv/keys/here/authorized_keys": "x",
        }
    )
    me = os.getuid()
    assert guest.root.links("/home/u/.ssh/authorized_keys") == (
        LinkOnPath("/home/u/.ssh", me),
        LinkOnPath("/home/keys", me),
    )
    assert guest.root.links("/../home/u/none/at/all") == ()


@pytest.mark.parametrize("path", ["/", "/etc/..", "/etc/."])
def test_no_name_of_a_file(guest_of: GuestOf, path: str) -> None:
    guest = guest_of({"/etc": None})
    with pytest.raises(ImageError, match="not the name of a file"):
        guest.root.write(path, b"x")


def test_a_name_with_a_nul_is_refused(guest_of: GuestOf) -> None:
    """Paths from the image are cut at no NUL."""
    guest = guest_of({"/etc/a": "x"})
    with pytest.raises(ImageError):
        guest.root.read("/etc/a\0b")
