"""An image whose links lead out of it; what is only refused, is in ``vmtests/hostile``."""

from __future__ import annotations

import json

import pytest

from snf_image_vmtests import crypt_hash
from snf_image_vmtests.caller import Caller
from snf_image_vmtests.deployment import KEY
from snf_image_vmtests.ext_image import ExtImage
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(300, method="signal"),
]
MOVED = ("hostname", "hosts", "shadow", "passwd", "group", "fstab", "machine-id", "os-release")


def everything(caller: Caller) -> tuple[str, ...]:
    """Options that make every task write something."""
    files = [{"path": "/etc/motd.d/x", "contents": "QUJD"}, {"path": "/root/.profile", "contents": "QUJD"}]
    return (
        "--hostname", "new1",
        "--password-file", caller.file("password", "new\n"),
        "--auth-keys", caller.file("keys", f"{KEY}\n"),
        "--swap", "2:32",
        "--nic", "mac=aa:00:00:12:34:56,ip=dhcp",
        "--personality", caller.file("files.json", json.dumps(files)),
    )  # fmt: skip


def test_links_that_lead_out(caller: Caller, alpine: FixtureImage) -> None:
    """T-78, T-123, R-TASK-5: absolute links and too many `..` stay inside, at every path we write."""
    image = ExtImage.copy_of(alpine, caller.path("image.raw"))
    image.debug("mkdir /outside", "mkdir /outside/ssh", "mkdir /outside/motd.d", write=True)
    present = set(image.names("/etc"))
    for number, name in enumerate(sorted(present & set(MOVED))):
        image.debug(f"ln /etc/{name} /outside/{name}", f"unlink /etc/{name}", write=True)
        out = "/outside" if number % 2 else "../../../../../../outside"
        image.debug(f"symlink /etc/{name} {out}/{name}", write=True)
    image.link("/root/.ssh", "/../../outside/ssh")
    image.link("/root/.profile", "/outside/profile")
    image.link("/etc/motd.d", "../../../outside/motd.d")
    disk = caller.disk("disk.raw", 256)
    answer = caller.deploy(image.path, disk, *everything(caller), "--progress", "json")
    answer.demand(0)
    made = ExtImage.on(disk, alpine)
    made.check()
    assert made.text("/outside/hostname") == "new1\n"
    stored = dict(line.split(":")[:2] for line in made.text("/outside/shadow").splitlines())
    assert crypt_hash.verify("new", stored["root"])
    assert "swap" in made.text("/outside/fstab")
    assert KEY in made.text("/outside/ssh/authorized_keys")
    assert made.read("/outside/motd.d/x") == b"ABC"
    assert made.read("/outside/profile") == b"ABC"
    assert set(made.names("/")) - set(image.names("/")) <= {"outside"}
