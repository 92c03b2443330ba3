"""The provider on a real Ganeti when something fails: what Ganeti then tells, and what the disk holds."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from snf_image_process import PIPE, run, start
from snf_image_vmtests.ext_image import boot_signature
from snf_image_vmtests.ganeti_cluster import Cluster, add_words, spell
from snf_image_vmtests.ganeti_traces import MONITORED, messages, receipts

pytestmark = [
    pytest.mark.requires(
        "root", "qemu", "fixtures", "helper-image", "snf-image", "ganeti", "e2fsprogs", "fdisk"
    ),
    pytest.mark.timeout(400, method="signal"),
]
ALPINE = {"img_id": "alpine-mbr-ext4.diskdump", "img_format": "diskdump"}


def test_failing_customisation(cluster: Cluster) -> None:
    """R-SCR-CREATE-3, R-MON-6, D-12, D-5: the helper is killed; Ganeti shows our summary; nothing boots."""
    name = "inst7.gnt.test"
    with start(cluster.words(*add_words(name, ALPINE)), stdout=PIPE, stderr=PIPE) as adding:
        wait_for_task(cluster, name)
        run(["kill", "-KILL", str(helper_of(cluster))], timeout=10)
        assert adding.stderr is not None
        told = adding.stderr.read().decode()
        assert adding.wait(60) == 1
    assert f"create of {name} failed: " in told
    assert "was killed by signal 9" in told
    assert "The instance and its disks are still there" in told
    assert f"gnt-instance reinstall {name}" in told
    assert boot_signature(cluster.disk_of(name)) == b"\0\0"
    errors = [message for message in messages(cluster, name) if message["type"] == "image-error"]
    assert len(errors) == 1
    assert cluster.state not in json.dumps(errors)
    assert "/srv/" not in json.dumps(errors)
    (entry,) = receipts(cluster, name)
    assert entry["result"] == "failure"
    kept = re.findall(r"evidence on the node: (\S+)", told)
    assert len(kept) == 1, told
    assert kept[0].startswith(f"/var/log/snf-image/{name}/")
    assert {"command", "job.json", "console.log"} <= set(os.listdir(cluster.path(kept[0])))
    cluster.run("gnt-instance", "remove", "--force", name).demand()


def test_a_signal(cluster: Cluster) -> None:
    """R-HLP-13, D-16: SIGTERM to create cleans up, and is what Ganeti then tells."""
    name = "inst10.gnt.test"
    with start(cluster.words(*add_words(name, ALPINE)), stdout=PIPE, stderr=PIPE) as adding:
        wait_for_task(cluster, name)
        helper = helper_of(cluster)
        (script,) = [pid for pid, words in cluster.processes().items() if words.endswith(" create")]
        run(["kill", "-TERM", str(script)], timeout=10)
        assert adding.stderr is not None
        told = adding.stderr.read().decode()
        assert adding.wait(60) == 1
    assert f"create of {name} failed: interrupted" in told
    assert not os.path.exists(f"/proc/{helper}")
    assert boot_signature(cluster.disk_of(name)) == b"\0\0"
    cluster.run("gnt-instance", "remove", "--force", name).demand()


def wait_for_task(cluster: Cluster, name: str) -> None:
    """Wait until the helper of an instance is at work."""
    path = cluster.path(f"{MONITORED}{name}")
    end = time.monotonic() + 120
    while not (os.path.exists(path) and "task-start" in cluster.read(path)):
        assert time.monotonic() < end, "no task was begun"
        time.sleep(0.1)


def helper_of(cluster: Cluster) -> int:
    """The process id of the only helper VM on the node."""
    found = [pid for pid, words in cluster.processes().items() if "snf-helper" in words]
    assert len(found) == 1, "there must be one helper VM"
    return found[0]


def test_refused_before_the_copy(cluster: Cluster) -> None:
    """R-SRC-LOCAL-4, R-DST-LOCAL-2, R-OSP-16: images that are not there or too large; the instance stays."""
    name = "inst8.gnt.test"
    missing = {"img_id": "../../etc/shadow", "img_format": "diskdump", "inst_properties": '{"SWAP":"b"}'}
    told = cluster.add(name, missing).demand(1).text
    assert "create of inst8.gnt.test failed: the request is wrong" in told
    assert "leads out of the directory of images" in told
    assert "property SWAP: there is no disk b" in told
    assert "root:" not in told
    parameters = spell({"img_id": "nowhere", "img_format": "diskdump", "inst_properties": "{}"})
    told = cluster.run("gnt-instance", "reinstall", "-f", "-O", parameters, name).demand(1).text
    assert "create of inst8.gnt.test failed: the request is wrong" in told
    assert "there is no image 'nowhere' on this node" in told
    cluster.run("gnt-instance", "remove", "--force", name).demand()
    told = cluster.add(name, ALPINE, size="64M").demand(1).text
    assert "has 134217728 bytes" in told
    assert "hint: give it a larger disk" in told
    cluster.run("gnt-instance", "remove", "--force", name).demand()
