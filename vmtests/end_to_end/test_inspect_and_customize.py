"""Looking at an image without touching it, and changing a disk that was deployed before."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest

from snf_image_vmtests import crypt_hash
from snf_image_vmtests.caller import Caller, helper_words
from snf_image_vmtests.ext_image import ExtImage, boot_signature
from snf_image_vmtests.fixture_images import FixtureImage, load_fixture, names
from snf_image_vmtests.places import fixture_directory

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(400, method="signal"),
]
MIB = 1024 * 1024
WRITTEN = [name for name in (names() if os.path.isdir(fixture_directory()) else ()) if "-on-" not in name]


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(caller: Caller, fixture: FixtureImage, *words: str) -> dict[str, Any]:
    """What ``inspect --json`` finds; the image is the same before and after, with its times (D-28)."""
    before = os.stat(fixture.path)
    assert digest(fixture.path) == fixture.sha256
    answer = caller.run("inspect", fixture.path, *helper_words(), "--json", *words).demand(0)
    assert digest(fixture.path) == fixture.sha256
    assert os.stat(fixture.path).st_mtime_ns == before.st_mtime_ns
    return answer.document


def prove_facts(found: dict[str, Any], fixture: FixtureImage) -> None:
    """What was found is what the fixture's recipe says."""
    facts, system = fixture.facts, found["system"]
    others = ("windows", "windows-legacy", "freebsd", "netbsd", "openbsd")
    assert system["os_family"] == (facts.family if facts.family in others else "linux")
    assert system["distribution"] == facts.distribution
    assert system["root_partition"] == facts.root_partition
    assert system["partition_table"] == facts.table
    if facts.network_backend is not None:
        assert system["network_backend"] == facts.network_backend
    assert {account.name for account in facts.accounts} <= set(found["users"])
    seen = {row["number"]: row for row in found["partitions"]}
    for part in fixture.partitions:
        row = seen[part.number]
        if part.inside:
            # Of a disklabel only the partition around it is told, and what begins where it does.
            assert row["start"] <= part.start * 2048 < row["start"] + row["sectors"], part
            continue
        assert (row["start"], row["sectors"]) == (part.start * 2048, part.size * 2048), part
        if part.filesystem is not None:
            assert row["filesystem"] == part.filesystem


@pytest.mark.parametrize("name", WRITTEN)
def test_inspect(caller: Caller, name: str) -> None:
    """D-28, R-DISTRO-1: every fixture with a recipe of its own is what that says; nothing is changed."""
    fixture = load_fixture(name)
    prove_facts(inspect(caller, fixture), fixture)


def test_inspection_foretells_a_deployment(caller: Caller, alpine: FixtureImage) -> None:
    """D-28: what would be done is what is done. D-30: the receipt says what was asked, and no secret.

    T-7: nor is there one in what --debug shows.
    """
    words = (
        "--hostname", "told", "--password-file", caller.file("password", "new-Secret-991\n"),
        "--property", "EXCLUDE_TASK_DeleteSSHKeys=yes",
    )  # fmt: skip
    found = inspect(caller, alpine, *words)
    prove_facts(found, alpine)
    report, disk = caller.path("receipt.json"), caller.disk("disk.raw", 256)
    more = ("--report", report, "--json", "--debug", "--progress", "json")
    answer = caller.deploy(alpine.path, disk, *words, *more).demand(0)
    assert '"event": "console"' in answer.stderr, "--debug does not show the console"
    assert os.stat(report).st_mode & 0o777 == 0o600
    with open(report, encoding="utf-8") as file:
        text = file.read()
    receipt = json.loads(text)
    assert answer.document["receipt"] == receipt
    done = [(task["name"], task["skipped"]) for task in receipt["tasks"]]
    assert [(task["task"], task["skipped"]) for task in found["tasks"]] == done
    assert receipt["image"]["sha256"] == alpine.sha256
    assert receipt["asked"]["hostname"] == "told"
    assert receipt["asked"]["password"] is True
    stored = passwords(disk, alpine)["root"]
    assert crypt_hash.verify("new-Secret-991", stored)
    for secret in ("new-Secret-991", stored):
        assert secret not in text
        assert secret not in answer.stderr


def test_again(caller: Caller, alpine: FixtureImage) -> None:
    """R-SCR-CREATE-2: a used disk gets what a new one gets; customising changes what was changed."""
    disk = caller.disk("disk.raw", 256)
    key = ("--swap", "2:32", "--password-file", caller.file("password", "first\n"))
    caller.deploy(alpine.path, disk, "--hostname", "first", *key).demand(0)
    made = ExtImage.on(disk, alpine)
    first = {name: made.read(f"/etc/{name}") for name in ("hostname", "hosts", "passwd", "group")}
    partitions = table(disk)
    caller.run(
        "customize", disk, *helper_words(), "--hostname", "second",
        "--password-file", caller.file("password", "second\n"),
    ).demand(0)  # fmt: skip
    assert made.text("/etc/hostname") == "second\n"
    assert crypt_hash.verify("second", passwords(disk, alpine)["root"])
    assert boot_signature(disk) == b"\x55\xaa"
    key = ("--swap", "2:32", "--password-file", caller.file("password", "first\n"))
    caller.deploy(alpine.path, disk, "--hostname", "first", *key).demand(0)
    assert {name: made.read(f"/etc/{name}") for name in first} == first
    assert table(disk) == partitions
    assert crypt_hash.verify("first", passwords(disk, alpine)["root"])
    assert [line.split()[2] for line in made.text("/etc/fstab").splitlines() if "swap" in line] == ["swap"]
    made.check()


def test_a_disk_that_cannot_be_customised(caller: Caller) -> None:
    """D-12: a disk that this run did not copy to keeps its boot signature, whatever happens."""
    disk = caller.disk("disk.raw", 64)
    caller.run("customize", disk, *helper_words(), "--hostname", "x").demand(3, "no partition found")
    assert boot_signature(disk) == b"\x55\xaa"
    caller.run("customize", caller.path("nothing"), *helper_words()).demand(2, "there is no such disk")


def passwords(disk: str, fixture: FixtureImage) -> dict[str, str]:
    shadow = ExtImage.on(disk, fixture).text("/etc/shadow")
    return dict(line.split(":")[:2] for line in shadow.splitlines())


def table(disk: str) -> bytes:
    """Partition entries and disk signature of an MBR."""
    with open(disk, "rb") as file:
        return os.pread(file.fileno(), 512, 0)[440:]
