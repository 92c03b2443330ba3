"""Requests that a real Ganeti must not let through: what tenants and operators can write wrongly."""

from __future__ import annotations

import os

import pytest

from snf_image_vmtests.ganeti_cluster import Cluster

pytestmark = [
    pytest.mark.requires(
        "root", "qemu", "fixtures", "helper-image", "snf-image", "ganeti", "e2fsprogs", "fdisk"
    ),
    pytest.mark.timeout(400, method="signal"),
]
ALPINE = {"img_id": "alpine-mbr-ext4.diskdump", "img_format": "diskdump"}
WRONG = {
    "every mistake at once": (
        {"img_id": "x", "img_format": "DISKDUMP", "img_passwd": "", "os_product_key": "no",
         "inst_properties": '{"SWAP":"0:1"}'},
        ("img_format: must be one of diskdump", "img_passwd: must not be empty", "os_product_key: must be",
         "property SWAP"),
    ),
    "an option": (ALPINE | {"img_id": "-o/etc/x"}, ("img_id: must not begin with '-'",)),
    "a command": (ALPINE | {"img_properties": "$(touch /var/tmp/executed)"}, ("not valid JSON",)),
    "back-quotes": (ALPINE | {"img_properties": '{"`touch /var/tmp/executed`": 1}'}, ("property name",)),
    "deep": (ALPINE | {"img_properties": "[" * 50000}, ("img_properties: nested too deeply",)),
    "twice": (ALPINE | {"img_properties": '{"SWAP": 1, "swap": 2}'}, ("occurs twice",)),
    "a huge number": (ALPINE | {"img_properties": '{"SWAP": 1e9999999999999999999}'}, ("is too long",)),
    "NUL": (ALPINE | {"img_properties": '{"NOTE": "a\\u0000b"}'}, ("img_properties: holds a NUL",)),
    "a local file": (ALPINE | {"os_answer_file": "file:///etc/shadow"}, ("file: URLs are not",)),
    "gopher": (ALPINE | {"config_url": "gopher://h/x"}, ("config_url: must be a URL of scheme",)),
    "a secret URL": (ALPINE | {"config_url": "gopher://me:hunter2@h/x?token=t0k"}, ("config_url",)),
    "two passwords": (ALPINE | {"img_passwd": "a", "img_passwd_hash": "$6$a$b"}, ("exclude each other",)),
    "a line break": (ALPINE | {"img_passwd": "a\nb"}, ("img_passwd: must not hold NUL or line breaks",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_verify_refuses(cluster: Cluster, case: str) -> None:
    """R-SCR-VERIFY-1, R-SCR-VERIFY-2, T-1, T-2, T-4, T-16: nothing is created, each mistake is a line."""
    parameters, expected = WRONG[case]
    told = cluster.add("inst9.gnt.test", parameters).demand(1).text
    for words in expected:
        assert words in told
    assert "Traceback" not in told
    assert "hunter2" not in told
    assert "t0k" not in told
    assert not os.path.exists(cluster.path("/var/tmp/executed"))
    listed = cluster.run("gnt-instance", "list", "--no-headers", "-o", "name").demand().stdout
    assert "inst9" not in listed


def test_the_largest_value(cluster: Cluster) -> None:
    """D-18: what Linux lets through in one variable is looked at as a whole."""
    text = '["' + "A" * (126 * 1024)
    told = cluster.add("inst9.gnt.test", ALPINE | {"img_personality": text}).demand(1).text
    assert "img_personality: not valid JSON" in told


def test_unknown_variant(cluster: Cluster) -> None:
    """R-SCR-3: a variant that Ganeti is forced to take but nobody made."""
    words = ["--force-variant"]
    told = cluster.add("inst9.gnt.test", ALPINE, *words, os="snf-image+typo").demand(1).text
    assert "there is no OS variant typo" in told


def test_configuration_with_a_program(cluster: Cluster) -> None:
    """T-5, R-CONF-4: it is not run, and the operator is told where it stands."""
    original = cluster.read("/etc/default/snf-image")
    cluster.write("/etc/default/snf-image", original + "IMAGE_DIR=$(touch /var/tmp/executed)\n")
    try:
        told = cluster.add("inst9.gnt.test", ALPINE).demand(1).text
    finally:
        cluster.write("/etc/default/snf-image", original)
    assert "/etc/default/snf-image:11: IMAGE_DIR: of expansions only $NAME" in told
    assert not os.path.exists(cluster.path("/var/tmp/executed"))
