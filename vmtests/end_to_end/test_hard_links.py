"""A file that has a second name: what is written under the one is seen under the other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil

import pytest

from snf_image_process import run
from snf_image_vmtests.deployment import MIB, deploy
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.fixture_images import FixtureImage
from snf_image_vmtests.inspection import InspectionVm
from snf_image_vmtests.matrix import Cell
from snf_image_vmtests.proofs import prove_disk


@pytest.mark.requires("qemu", "inspection-vm", "helper-image", "snf-image", "e2fsprogs")
@pytest.mark.timeout(400, method="signal")
def test_a_file_of_two_names_is_not_replaced_under_one(
    alpine: FixtureImage, inspection_vm: InspectionVm, evidence: Evidence, tmp_path: object
) -> None:
    """D-29: it is rewritten in place, with a warning; the proof compares the names, too."""
    path = os.path.join(str(tmp_path), "linked.raw")
    shutil.copyfile(alpine.path, path)
    for request in ("ln /etc/shadow /srv/same", "set_inode_field /etc/shadow links_count 2"):
        run(["debugfs", "-w", "-R", request, f"{path}?offset={MIB}"], timeout=60)
    with open(path, "rb") as file:
        image = dataclasses.replace(alpine, path=path, sha256=hashlib.file_digest(file, "sha256").hexdigest())
    cell = Cell(id="linked", fixture=alpine.name, disk_size=192, hostname="linked", credential="password")
    deployed = deploy(cell, image, str(tmp_path), evidence)
    assert deployed.status == 0, deployed.output
    assert "/etc/shadow: has 2 names; rewritten in place" in json.dumps(deployed.receipt["warnings"])
    tree = prove_disk(deployed, inspection_vm, evidence)
    assert tree["/srv/same"].names == ("/etc/shadow", "/srv/same")
