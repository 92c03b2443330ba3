"""Deploying onto a file needs no root (D-8)."""

from __future__ import annotations

import glob
import json
import os
import stat
import time
from pathlib import Path

import pytest

from snf_image_vmtests import crypt_hash, places
from snf_image_vmtests.caller import ORDINARY_UID, Caller
from snf_image_vmtests.ext_image import ExtImage
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("root", "user", "qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(400, method="signal"),
]


def test_a_deployment(ordinary_user: Caller, alpine: FixtureImage) -> None:
    """D-7, D-8, D-25: qemu runs as the caller; what is remembered lies in the caller's cache directory.

    The first deployment boots the helper and leaves somebody behind, who saves the state for the second.
    """
    caller = ordinary_user
    disk, report = caller.path("disk.raw"), caller.path("receipt.json")
    words = caller.deploy_words(
        alpine.path, disk, "--disk-size", "192M", "--hostname", "mine", "--accel", "auto",
        "--password-file", caller.file("password", "new\n"), "--report", report, "--progress", "json",
    )  # fmt: skip
    with caller.start(*words, env={"XDG_CACHE_HOME": caller.path("cache")}) as command:
        command.until("helper VM started")
        with open(f"/proc/{command.qemu()}/status", encoding="ascii") as file:
            state = dict(line.split(":", 1) for line in file.read().splitlines())
        command.finish().demand(0)
    saved = caller.path("cache/snf-image/warm")
    end = time.monotonic() + 120
    while not glob.glob(f"{saved}/*.json"):
        assert time.monotonic() < end, "no state of the helper was saved"
        time.sleep(0.5)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in glob.glob(f"{saved}/*")} == {0o600}
    assert json.loads(Path(report).read_text(encoding="utf-8"))["helper"]["warm"] is False
    again = words[words.index(disk) + 1 :]
    cache = {"XDG_CACHE_HOME": caller.path("cache")}
    caller.run("deploy", alpine.path, disk, *again, env=cache).demand(0)
    assert json.loads(Path(report).read_text(encoding="utf-8"))["helper"]["warm"] is True
    assert state["Uid"].split() == [str(ORDINARY_UID)] * 4
    assert state["NoNewPrivs"].strip() == "1"
    for path in (disk, report):
        status = os.stat(path)
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (ORDINARY_UID, 0o600), path
    made = ExtImage.on(disk, alpine)
    made.check()
    assert made.text("/etc/hostname") == "mine\n"
    stored = dict(line.split(":")[:2] for line in made.text("/etc/shadow").splitlines())
    assert crypt_hash.verify("new", stored["root"])
    memory = caller.path("cache/snf-image/kvm-probe.json")
    if os.path.exists(memory):
        # A trial of KVM took place and was remembered.
        assert stat.S_IMODE(os.stat(memory).st_mode) == 0o600
    assert not os.path.exists(caller.path("home/.cache")), "XDG_CACHE_HOME is not obeyed"


def test_what_an_ordinary_user_may_not(ordinary_user: Caller, alpine: FixtureImage) -> None:
    """D-8, D-9, D-16: files are opened with the caller's rights, and a stranger's helper is not started."""
    caller = ordinary_user
    secret = caller.file("secret.raw", b"x" * 4096)
    os.chown(secret, 0, 0)
    disk = caller.disk("disk.raw", 192)
    caller.deploy(secret, disk).demand(2, "secret.raw cannot be read: Permission denied")
    caller.deploy(alpine.path, secret).demand(2, "secret.raw cannot be opened: Permission denied")
    caller.deploy(alpine.path, "/nowhere.raw", "--disk-size", "192M").demand(
        2, "/nowhere.raw cannot be made: Permission denied"
    )
    helper = caller.path("helper")
    os.mkdir(helper)
    for name in os.listdir(places.helper_directory()):
        os.symlink(os.path.join(places.helper_directory(), name), os.path.join(helper, name))
    os.chown(helper, 12345, 12345)
    answer = caller.deploy(alpine.path, disk, "--helper-dir", helper)
    answer.demand(5, "a helper image must belong to root or to its user")
    config = caller.file("snf-image.conf", "HELPER_ACCEL=tcg\n")
    where = ("--helper-dir", places.helper_directory(), "--config", config)
    found = caller.run("doctor", *where, "--json").demand(0)
    assert {"accounts", "space"} <= {finding["check"] for finding in found.document["findings"]}
