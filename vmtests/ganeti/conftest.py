"""One cluster for all tests of this folder, with the provider and a few images."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import pytest

from snf_image_process import run
from snf_image_vmtests import places
from snf_image_vmtests.fixture_images import FixtureImage, load_fixture
from snf_image_vmtests.ganeti_cluster import IMAGES, Cluster, provided
from snf_image_vmtests.ganeti_traces import MONITORED

MIB = 1024 * 1024
CONFIGURATION = (
    "# As operators have it: a path made of another, and words of earlier versions.",
    "BASE=/srv",
    f'IMAGE_DIR="$BASE/{os.path.basename(IMAGES)}"',
    f"HELPER_DIR={places.helper_directory()}",
    "HELPER_ACCEL=tcg",
    "HELPER_SOFT_TIMEOUT=120",
    "VERSION_CHECK=yes",
    'PROGRESS_MONITOR="/srv/monitor --for"',
    "RENAME_GUEST=yes",
    "IMPORT_GROW=yes",
)
DISKDUMPS = (
    "alpine-mbr-ext4", "debian-bookworm-mbr", "debian-trixie-gpt-xfs", "windows2022-gpt-ntfs",
    "freebsd-gpt-ufs2-hashes",
)  # fmt: skip
EXTDUMP = "debian-bookworm-extlinux"
LOCKS = "/run/snf-image"
GANETIS = re.compile(r"sleep|arping|fping|.*ganeti")
"""What Ganeti starts itself comes and goes."""
MONITOR = f"""#!/bin/sh
# Keeps what it is told of each instance; of three it wants to hear nothing, each in its own way.
case $2 in
    inst3.gnt.test) exec tail -f /dev/null ;;
    inst4.gnt.test) head -c 64M /dev/zero; head -c 64M /dev/zero >&2 ;;
    inst5.gnt.test) exit 1 ;;
esac
exec cat >"{MONITORED}$2"
"""


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[Cluster]:
    """A cluster that has only what the node's packages brought."""
    with Cluster(os.path.join(places.build_directory(), "ganeti-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster(bare_cluster: Cluster) -> Cluster:
    """A cluster whose operator set up the provider, some images and a program that watches progress."""
    bare_cluster.write("/srv/monitor", MONITOR, 0o755)
    for name in DISKDUMPS:
        _put(load_fixture(name).path, bare_cluster.path(f"{IMAGES}/{name}.diskdump"))
    _put_dump(load_fixture(EXTDUMP), bare_cluster.path(f"{IMAGES}/{EXTDUMP}.extdump"))
    provided(bare_cluster, CONFIGURATION)
    return bare_cluster


@pytest.fixture(scope="session", autouse=True)
def leftovers(cluster: Cluster) -> Iterator[None]:
    """R-HLP-13, T-23, T-44: when every instance is gone, the node has what it had before the first."""
    before = everything(cluster)
    yield
    listed = cluster.run("gnt-instance", "list", "--no-headers", "-o", "name").demand().stdout.split()
    for name in listed:
        cluster.run("gnt-instance", "remove", "--force", "--shutdown-timeout=0", name).demand()
    assert everything(cluster) == before


def _put(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(os.path.realpath(source), target)
        return
    run(["cp", "--sparse=always", source, target], timeout=120)


def _put_dump(fixture: FixtureImage, target: str) -> None:
    """A dump of the root file system alone."""
    root = fixture.root()
    argv = ["dd", f"if={fixture.path}", f"of={target}", "bs=1M", f"skip={root.start}", f"count={root.size}"]
    run([*argv, "conv=sparse"], timeout=120)
    os.truncate(target, root.size * MIB)


def everything(cluster: Cluster) -> dict[str, object]:
    """All that a deployment could leave on a node."""
    mounts = cluster.run("cat", "/proc/1/mounts").demand().stdout.splitlines()
    others = [words for words in cluster.processes().values() if "snf" in words or not GANETIS.match(words)]
    return {
        "processes": sorted({words.split(" -")[0] for words in others}),
        "mounts": mounts,
        "loop devices": cluster.loop_devices(),
        "temporary": sorted(os.listdir(cluster.path("/var/tmp"))),
        # The node has them in common with the machine, where others may be at work.
        "temporary of ours": [name for name in os.listdir("/tmp") if name.startswith("snf-image")],
        "shared memory": [name for name in os.listdir("/dev/shm") if "snf" in name],
        "locks": [name for name in os.listdir(LOCKS) if _is_stale(name)],
        "interfaces": cluster.run("ls", "/sys/class/net").demand().stdout.split(),
        "nbd": [name for name in os.listdir("/sys/block") if name.startswith("nbd")],
        "disks": sorted(os.listdir(cluster.path("/srv/ganeti/file-storage"))),
    }


def _is_stale(name: str) -> bool:
    """Whether a lock's file is there although nobody holds it."""
    return run(["flock", "--nonblock", f"{LOCKS}/{name}", "true"], timeout=10, accept=(0, 1)).status == 0
