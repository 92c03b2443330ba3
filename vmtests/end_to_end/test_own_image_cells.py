"""The documented example: an image's author runs pytest on a description, and gets cells and a report."""

from __future__ import annotations

import json
import os
import re

import pytest

from snf_image_process import run
from snf_image_vmtests import places
from snf_image_vmtests.fixture_images import load_fixture

BSD = {"network_file: /etc/network/interfaces\n": "", "uid: 1000": "uid: 1001"}
"""What of the example is otherwise on a BSD."""
BSD_CELL = "fqdn-password-keys-static"


@pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image")
@pytest.mark.timeout(400, method="signal")
@pytest.mark.parametrize(
    ("fixture", "family", "changes", "wanted"),
    [
        ("alpine-mbr-ext4", "alpine", {}, "fqdn-password-swapdisk-static-slaac"),
        ("freebsd-gpt-ufs2", "freebsd", BSD | {"root_partition: 1": "root_partition: 3"}, BSD_CELL),
        ("netbsd-mbr-ffs1-big-endian", "netbsd", BSD, BSD_CELL),
        (
            "openbsd-mbr-ffs2",
            "openbsd",
            BSD | {"root_partition: 1": 'root_partition: 1\nmounts: ["/home=1e"]'},
            BSD_CELL,
        ),
    ],
)
def test_the_documented_example_is_deployed_and_reported(
    fixture: str, family: str, changes: dict[str, str], wanted: str, tmp_path: object
) -> None:
    image = load_fixture(fixture)
    directory = str(tmp_path)
    with open(os.path.join(places.CHECKOUT, "docs", "vmtests.md"), encoding="utf-8") as file:
        (text,) = re.findall(r"^```yaml\n(# my-image\.yaml\n.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
    assert len(text.splitlines()) <= 10
    for old, new in {"family: debian": f"family: {family}", **changes}.items():
        assert old in text
        text = text.replace(old, new)
    with open(os.path.join(directory, "my-image.yaml"), "w", encoding="utf-8") as file:
        file.write(text)
    os.symlink(image.path, os.path.join(directory, "my-image.raw"))
    argv = [
        places.command("pytest"), "--image-matrix", "my-image.yaml", "--image-report", "my-report",
        "-p", "no:cacheprovider", "-n", "0", "-k", wanted,
    ]  # fmt: skip
    environment = {"HOME": directory, "SNF_IMAGE_BUILD": places.build_directory()}
    done = run(argv, timeout=300, cwd=directory, env=environment, accept=(0, 1))
    assert done.status == 0, done.text
    assert "report: my-report/report.html" in done.text
    with open(os.path.join(directory, "my-report", "report.json"), encoding="utf-8") as file:
        report = json.load(file)
    outcomes = {row["id"]: row["outcome"] for row in report["cells"]}
    assert outcomes.pop(wanted) == "passed"
    assert set(outcomes.values()) == {"not run"}
    (row,) = [row for row in report["cells"] if row["id"] == wanted]
    assert row["family"] == family
    assert {"receipt.json", "deploy.log", "helper-events.jsonl"} <= set(os.listdir(row["evidence"]))
