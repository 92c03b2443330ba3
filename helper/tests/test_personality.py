"""Injected files: where they go, whose they are, and how cloud-init installs them at first boot."""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trees
from snf_image_contract.job import EnforcePersonality, PersonalityFile
from snf_image_contract.names import TaskName
from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux.cloud_init import PER_ONCE_DIRECTORY
from snf_image_helper.unix.personality import STORE, enforce_personality
from snf_image_process import ProcessError, run
from trees import Directory, Fifo, File, GuestOf, Link, Tree

ACCOUNTS: Tree = {
    "/etc/passwd": "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n1000:x:77:0::/:/bin/sh\n#:\nbroken\n",
    "/etc/group": "root:x:0:\nstaff:x:50:web\nweb:x:99:\n",
}
SCRIPT = f"{PER_ONCE_DIRECTORY}/98_snf-image-60EnforcePersonality"


def file(path: str, contents: bytes = b"injected\n", **fields: Any) -> PersonalityFile:
    encoded = Secret(base64.b64encode(contents).decode())
    return PersonalityFile(path=path, contents=encoded, **fields)


def enforced(guest_of: GuestOf, tree: Tree, *files: PersonalityFile, **fields: object) -> Guest:
    guest = guest_of(
        {**ACCOUNTS, **tree},
        task=TaskName.ENFORCE_PERSONALITY,
        enforce_personality=EnforcePersonality(files=files),
        **fields,
    )
    enforce_personality(guest)
    return guest


def test_no_files_is_a_warning(guest_of: GuestOf) -> None:
    """R-TASK-PER-1."""
    guest = enforced(guest_of, {})
    assert trees.changes(guest) == []
    assert len(trees.warnings(guest)) == 1


def test_defaults(guest_of: GuestOf) -> None:
    """R-PERS-5: uid 0, gid 0, mode 0440."""
    guest = enforced(guest_of, {"/etc": Directory()}, file("/etc/motd", b"\x00\xff\r\n"))
    assert trees.content(guest, "/etc/motd") == b"\x00\xff\r\n"
    assert (trees.mode(guest, "/etc/motd"), trees.owner(guest, "/etc/motd")) == (0o440, (0, 0))


def test_owner_group_and_mode(guest_of: GuestOf) -> None:
    """R-PERS-6, R-TASK-PER-2: names of the target's own files; digits that are no name are a number."""
    guest = enforced(
        guest_of,
        {},
        file("/srv/a", owner="web", group="staff", mode=0o4755),
        file("/srv/b", owner="1000", group="1000", mode=0o600),
        file("/srv/c", owner="web"),
        file("/srv/d", group="web"),
    )
    assert [trees.owner(guest, f"/srv/{name}") for name in "abcd"] == [(33, 50), (77, 1000), (33, 0), (0, 99)]
    assert [trees.mode(guest, f"/srv/{name}") for name in "abcd"] == [0o4755, 0o600, 0o440, 0o440]


def test_mode_zero_and_owner_zero_are_what_they_are(guest_of: GuestOf) -> None:
    """T-122, R-PERS-4, R-PERS-6."""
    guest = enforced(guest_of, {}, file("/a", mode=0, owner="0", group="0"))
    assert (trees.mode(guest, "/a"), trees.owner(guest, "/a")) == (0, (0, 0))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"owner": "nobody-here"}, "nobody-here"),
        ({"group": "nobody-here"}, "nobody-here"),
        ({"owner": "staff"}, "staff"),
        ({"owner": "web:"}, "web:"),
        ({"owner": ""}, "''"),
        ({"owner": "4294967295"}, "4294967295"),
        ({"owner": "broken"}, "broken"),
        ({"owner": "٣"}, "owner"),
    ],
)
def test_an_unknown_account_is_an_error_before_anything_is_written(
    fields: dict[str, Any], word: str, guest_of: GuestOf
) -> None:
    """R-PERS-6: the error names file and account."""
    with pytest.raises(RequestError, match="/srv/second") as caught:
        enforced(guest_of, {}, file("/srv/first"), file("/srv/second", **fields))
    assert word in str(caught.value)
    assert not (Path(_last_guest(guest_of)) / "srv").exists()


def _last_guest(guest_of: GuestOf) -> str:
    """The tree of the guest made last: one more, beside it."""
    top = guest_of({}).target
    return f"{top[:-1]}{int(top[-1]) - 1}"


def test_bad_base64_is_an_error_without_its_text(guest_of: GuestOf) -> None:
    """R-PERS-3, R-SEC-1."""
    bad = PersonalityFile(path="/a", contents=Secret("c2VjcmV0*"))
    with pytest.raises(RequestError, match="/a") as caught:
        enforced(guest_of, {}, bad)
    assert "c2Vj" not in str(caught.value)


def test_white_space_in_base64_is_fine(guest_of: GuestOf) -> None:
    """R-PERS-3."""
    spaced = PersonalityFile(path="/a", contents=Secret("aW5q\n ZWN0\r\n"))
    assert trees.content(enforced(guest_of, {}, spaced), "/a") == b"inject"


def test_missing_directories_belong_to_the_file(guest_of: GuestOf) -> None:
    """R-TASK-PER-2: 0750 with the file's owner and group; existing ones stay as they are."""
    guest = enforced(
        guest_of, {"/srv": Directory(mode=0o700)}, file("/srv/x/y/z", owner="web", group="staff")
    )
    for path in ("/srv/x", "/srv/x/y"):
        assert (trees.mode(guest, path), trees.owner(guest, path)) == (0o750, (33, 50))
    assert trees.mode(guest, "/srv") == 0o700


def test_an_existing_file_is_replaced_with_all_it_had(guest_of: GuestOf) -> None:
    """R-TASK-PER-2."""
    guest = enforced(guest_of, {"/etc/motd": File("old", mode=0o666)}, file("/etc/motd", owner="web"))
    assert (trees.text(guest, "/etc/motd"), trees.mode(guest, "/etc/motd")) == ("injected\n", 0o440)
    assert trees.owner(guest, "/etc/motd") == (33, 0)


def test_files_come_in_the_order_given(guest_of: GuestOf) -> None:
    """R-TASK-PER-2: a later file may lie below a link or directory that an earlier one made."""
    guest = enforced(guest_of, {"/b": Link("/a")}, file("/a", b"first"), file("/b", b"second"))
    assert trees.text(guest, "/a") == "second"


@pytest.mark.parametrize(
    ("tree", "path", "named"),
    [
        ({"/srv/x": "a file"}, "/srv/x/y/z", "/srv/x"),
        ({"/srv/x": Directory()}, "/srv/x", "/srv/x"),
        ({"/srv/x": Fifo()}, "/srv/x", "/srv/x"),
        ({"/srv/x": Link("x")}, "/srv/x", "/srv/x"),
        ({"/srv/x": Link("x")}, "/srv/x/y", "/srv/x"),
        ({"/srv": Fifo()}, "/srv/x", "/srv"),
    ],
)
def test_what_is_in_the_way_is_named(tree: Tree, path: str, named: str, guest_of: GuestOf) -> None:
    """R-TASK-PER-2, R-TASK-6."""
    with pytest.raises(ImageError, match=named):
        enforced(guest_of, tree, file(path))


@pytest.mark.parametrize("target", ["{out}", "../../../../../../../../../../..{out}", "/proc/self/cwd{out}"])
def test_links_of_the_image_never_lead_out(target: str, guest_of: GuestOf, tmp_path: Path) -> None:
    """T-123, R-TASK-5: as a directory on the way and as the file itself."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("safe")
    link = target.format(out=outside)
    for tree, path in (
        ({"/srv/x": Link(link)}, "/srv/x/victim"),
        ({"/srv/x": Link(f"{link}/victim")}, "/srv/x"),
        ({"/srv": Link(link)}, "/srv/new/file"),
    ):
        with contextlib.suppress(ImageError):
            enforced(guest_of, tree, file(path))
        assert [entry.name for entry in outside.iterdir()] == ["victim"]
        assert (outside / "victim").read_text() == "safe"


# -- with cloud-init -------------------------------------------------------------------------------

CLOUD: Tree = {"/etc/cloud/cloud.cfg.d": Directory()}


def boot(guest: Guest) -> str:
    """Run the script as at first boot, below the tree instead of ``/``; what it says on stderr."""
    path = Path(guest.target + SCRIPT)
    text = path.read_text()
    text = text.replace(f"stored={STORE}", f"stored={shlex.quote(guest.target + STORE)}")
    lines = []
    for line in text.splitlines():
        words = (
            shlex.split(line)
            if line.startswith(("make_directory /", "install_file ", "make_directory '"))
            else []
        )
        if words and "(" not in words[0]:
            index = 1 if words[0] == "make_directory" else 2
            words[index] = guest.target + words[index]
            me = f"{os.geteuid()}:{os.getegid()}"
            words[index + 1] = me if os.geteuid() else words[index + 1]
            line = shlex.join(words)  # noqa: PLW2901 - the line with the tree's path
        lines.append(line)
    path.write_text("\n".join(lines) + "\n")
    try:
        return run(["/bin/sh", str(path)], timeout=20).stderr.decode()
    except ProcessError as error:
        return "\n".join(error.stderr_tail)


def test_first_boot_installs_the_files(guest_of: GuestOf) -> None:
    """R-TASK-PER-4, R-PERS-5, T-122."""
    guest = enforced(
        guest_of,
        {**CLOUD, "/etc/motd": File("old", mode=0o666), "/etc/real": "old", "/etc/link": Link("real")},
        file("/etc/motd", b"\x00new\xff"),
        file("/srv/a/b", mode=0, owner="0", group="0"),
        file("/etc/link", b"through", mode=0o644),
        cloud_init=True,
    )
    assert (trees.mode(guest, STORE), trees.mode(guest, SCRIPT)) == (0o700, 0o700)
    assert [trees.mode(guest, f"{STORE}/{name}") for name in guest.root.list(STORE)] == [0o600] * 3
    assert trees.text(guest, "/etc/motd") == "old"
    assert boot(guest) == ""
    assert trees.content(guest, "/etc/motd") == b"\x00new\xff"
    assert [trees.mode(guest, path) for path in ("/etc/motd", "/srv/a/b", "/srv/a")] == [0o440, 0, 0o750]
    assert trees.text(guest, "/etc/real") == "through"
    assert not trees.exists(guest, STORE)
    assert not trees.exists(guest, SCRIPT)


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
NASTY = ["a b", "it's", 'say "x"', "$(touch x)", "`x`", "-rf", "*", "\\", "é漢", "~", "#", "&;|", " "]


@pytest.mark.parametrize("name", NASTY)
def test_no_path_breaks_the_script(name: str, guest_of: GuestOf) -> None:
    """T-124, R-TASK-PER-4: as a directory and as the file, all the way to the installed file."""
    path = f"/srv/{name}/{name}"
    guest = enforced(guest_of, CLOUD, file(path), cloud_init=True)
    assert boot(guest) == ""
    assert trees.text(guest, path) == "injected\n"
    assert os.listdir(f"{guest.target}/srv") == [name]


@given(NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_a_shell_reads_each_path_as_one_word(guest_of: GuestOf, name: str) -> None:
    """T-124: asked of a real shell, newlines included."""
    guest = enforced(guest_of, CLOUD, file(f"/{name}"), cloud_init=True)
    calls = trees.text(guest, SCRIPT).partition("status=1\n}\n\n")[2].rpartition("rm -rf")[0]
    program = "install_file() { printf '%s' \"$2\"; }\n" + calls
    done = run(["/bin/sh"], stdin=program.encode(), timeout=20)
    assert done.stdout == f"/{name}".encode()


def test_accounts_are_looked_up_at_boot(guest_of: GuestOf) -> None:
    """R-TASK-PER-4: users need not exist in the image."""
    guest = enforced(guest_of, CLOUD, file("/a", owner="made by cloud-init", group="it's"), cloud_init=True)
    assert f"install_file 0 /a {shlex.quote('''made by cloud-init:it's''')} 0440\n" in trees.text(
        guest, SCRIPT
    )


def test_what_cannot_be_installed_does_not_stop_the_others(guest_of: GuestOf) -> None:
    """R-TASK-PER-4: the secrets go all the same."""
    guest = enforced(
        guest_of,
        {**CLOUD, "/srv/directory": Directory()},
        file("/srv/directory"),
        file("/srv/file"),
        cloud_init=True,
    )
    assert "/srv/directory: not installed" in boot(guest)
    assert trees.text(guest, "/srv/file") == "injected\n"
    assert not trees.exists(guest, STORE)


def test_debugging_leaves_the_script_to_be_looked_at(guest_of: GuestOf) -> None:
    """R-TASK-CI-6."""
    guest = enforced(guest_of, CLOUD, file("/a"), cloud_init=True, cloud_init_debug=True)
    assert trees.mode(guest, SCRIPT) == 0o600


def test_without_cloud_init_in_the_image(guest_of: GuestOf) -> None:
    """R-TASK-CI-1: an error, and no secret is left behind."""
    with pytest.raises(RequestError, match="cloud-init not found"):
        enforced(guest_of, {}, file("/a"), cloud_init=True)
    assert not os.path.exists(_last_guest(guest_of) + STORE)
