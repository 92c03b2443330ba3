"""Requests that are wrong: found together, before anything is written, or told by the helper as status 2."""

from __future__ import annotations

import json

import pytest

from snf_image_vmtests import crypt_hash
from snf_image_vmtests.caller import Caller, helper_words
from snf_image_vmtests.ext_image import ExtImage, boot_signature
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(400, method="signal"),
]
EVERY_CHARACTER = "".join(map(chr, range(0x20, 0x7F)))
BEYOND_ASCII = "pässwörd пароль 密码 \N{GRINNING FACE}"
USERS = 100_000


def test_what_is_wrong_with_a_request(caller: Caller, alpine: FixtureImage) -> None:
    """R-OSP-16, R-PROP-5, R-PERS-3, T-16, T-83: every problem at once, and the disk is not touched."""
    files = [{"path": "/root/a", "contents": "not base64!"}, {"path": "relative", "contents": ""}]
    disk = caller.disk("disk.raw", 256)
    answer = caller.deploy(
        alpine.path, disk,
        "--hostname", "two\nlines",
        "--password-file", caller.file("password", "\n"),
        "--personality", caller.file("files.json", json.dumps(files)),
        "--property", "DO_SYNC=perhaps",
        "--property", "SWAP=2:lots",
    )  # fmt: skip
    answer.demand(2)
    for words in ("hostname", "img_passwd", "contents", "path", "DO_SYNC", "SWAP"):
        assert words.lower() in answer.stderr.lower(), words
    assert boot_signature(disk) == b"\x55\xaa"
    assert answer.kept == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"path": "/a", ', "personality"),
        ('{"path": "/a", "contents": ""}', "personality"),
        ('[{"path": "/a"}]', "contents"),
    ],
    ids=["malformed", "an object", "incomplete"],
)
def test_a_malformed_personality(caller: Caller, alpine: FixtureImage, text: str, words: str) -> None:
    """T-16, R-PERS-1."""
    disk = caller.disk("disk.raw", 256)
    files = caller.file("files.json", text)
    caller.deploy(alpine.path, disk, "--personality", files).demand(2, words)
    assert boot_signature(disk) == b"\x55\xaa"


def test_malformed_properties(caller: Caller, alpine: FixtureImage) -> None:
    """R-PROP-1: as an operator's configuration can give them."""
    config = caller.file("snf-image.conf", 'IMG_PROPERTIES=\'{"OSFAMILY": "linux"\'\n')
    disk = caller.disk("disk.raw", 256)
    caller.deploy(alpine.path, disk, "--config", config).demand(2, "img_properties")
    assert boot_signature(disk) == b"\x55\xaa"


def test_options_that_do_not_exist(caller: Caller) -> None:
    """D-31: the nearest one is named."""
    answer = caller.run("deploy", "a", "b", "--hostnam", "x").demand(2, "--hostnam")
    assert "--hostname" in answer.stderr


def test_swap_that_does_not_fit(caller: Caller, alpine: FixtureImage) -> None:
    """R-TASK-FIX-5."""
    disk = caller.disk("disk.raw", 256)
    answer = caller.deploy(alpine.path, disk, "--swap", "2:512").demand(2, "SWAP=2:512")
    assert "Warning" not in answer.error
    assert boot_signature(disk) == b"\0\0"


def test_a_user_who_does_not_exist(caller: Caller, alpine: FixtureImage) -> None:
    """T-82, R-TASK-PW-2: nobody's password is changed then; a longer name is not taken for it."""
    disk = caller.disk("disk.raw", 256)
    words = ("--password-file", caller.file("password", "new\n"), "--property", "USERS=root alic")
    caller.deploy(alpine.path, disk, *words).demand(2, "user 'alic': not in /etc/shadow of the image")
    stored = passwords(ExtImage.on(disk, alpine))
    assert crypt_hash.verify("old", stored["root"])
    assert crypt_hash.verify("old", stored["alice"])


def test_odd_but_right(caller: Caller, alpine: FixtureImage) -> None:
    """R-OSP-7: any printable character in a password. T-80, T-81: one line of 100,000 changes.

    R-PROP-6: a property one letter off is a property of the user's own; a warning names the known one.
    Afterwards the disk is customised once more, and this time the password is not ASCII.
    """
    image = ExtImage.copy_of(alpine, caller.path("image.raw"))
    crowd = "".join(
        f"u{number}:x:{number}:{number}::/home/u{number}:/bin/sh\n" for number in range(2000, 2000 + USERS)
    )
    locked = "".join(f"u{number}:!:19000:0:99999:7:::\n" for number in range(2000, 2000 + USERS))
    image.replace("/etc/passwd", image.read("/etc/passwd") + crowd.encode())
    before = image.text("/etc/shadow") + locked
    image.replace("/etc/shadow", before.encode(), mode=0o640, gid=42)
    disk = caller.disk("disk.raw", 256)
    words = (
        "--password-file", caller.file("password", EVERY_CHARACTER + "\n"),
        "--property", "USERS=root u101999",
        "--property", "EXCLUDE_TASK_AddSwaps=yes",
        "--property", "OSFAMILI=linux",
        "--progress", "json",
    )  # fmt: skip
    answer = caller.deploy(image.path, disk, *words).demand(0)
    assert "property EXCLUDE_TASK_ADDSWAPS names no task, did you mean AddSwap" in answer.stderr
    assert "property OSFAMILI is not known, did you mean OSFAMILY" in answer.stderr
    made = ExtImage.on(disk, alpine)
    after = made.text("/etc/shadow")
    stored = passwords(made)
    assert crypt_hash.verify(EVERY_CHARACTER, stored["root"])
    assert crypt_hash.verify(EVERY_CHARACTER, stored["u101999"])
    pairs = list(zip(before.splitlines(), after.splitlines(), strict=True))
    changed = [old.split(":")[0] for old, new in pairs if old != new]
    assert changed == ["root", "u101999"]
    password = caller.file("password", BEYOND_ASCII + "\n")
    caller.run("customize", disk, *helper_words(), "--password-file", password, "--hostname", "again").demand(
        0
    )
    assert crypt_hash.verify(BEYOND_ASCII, passwords(made)["root"])
    assert made.text("/etc/hostname") == "again\n"
    made.check()


def passwords(image: ExtImage) -> dict[str, str]:
    return dict(line.split(":")[:2] for line in image.text("/etc/shadow").splitlines())
