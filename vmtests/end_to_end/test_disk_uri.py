"""A disk that only qemu reaches: copied to, customised, and named by its URI alone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile

import pytest

from snf_image_process import start
from snf_image_vmtests.caller import Caller
from snf_image_vmtests.ext_image import ExtImage, boot_signature
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("qemu", "qemu-nbd", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(400, method="signal"),
]


@pytest.mark.parametrize("start_of_vm", ["cold", "warm"])
def test_a_deployment_onto_a_uri(caller: Caller, alpine: FixtureImage, start_of_vm: str) -> None:
    """R-DST-URI-1, R-DST-URI-2: the helper reaches the disk through the same server as the copy."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        # As a storage would, it lets everybody in.
        os.chmod(directory, 0o755)  # noqa: S103
        disk, path = os.path.join(directory, "disk.raw"), os.path.join(directory, "server")
        shutil.copyfile(caller.disk("disk.raw", 256), disk)
        words = ["qemu-nbd", "-f", "raw", "-t", "-e", "8", "-x", "disk", "-k", path, disk]
        with start(words) as server:
            while not os.path.exists(path):
                assert server.wait(0.02) is None
            os.chmod(path, 0o777)  # noqa: S103
            uri = f"nbd+unix:///disk?socket={path}"
            report = caller.path("receipt.json")
            words = ["--hostname", "behind.example.org", "--report", report]
            asked = caller.deploy_words(
                alpine.path, uri, *words, *(["--cold"] if start_of_vm == "cold" else [])
            )
            with caller.start(*asked) as command:
                answer = command.finish()
            server.stop(grace=10)
        answer.demand(0)
        with open(report, encoding="ascii") as file:
            assert json.load(file)["helper"]["warm"] == (start_of_vm == "warm")
        assert path not in answer.stderr + answer.stdout
        assert boot_signature(disk) == b"\x55\xaa"
        assert ExtImage.on(disk, alpine).text("/etc/hostname").startswith("behind")
