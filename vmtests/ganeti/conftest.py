"""One cluster for all tests of this folder, with the provider and a few images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from snf_image_process import run
from snf_image_vmtests import places
from snf_image_vmtests.fixture_images import FixtureImage, load_fixture
from snf_image_vmtests.ganeti_cluster import IMAGES, Cluster, provided

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
    "alpine-mbr-ext4", "ubuntu-gpt-ext4", "debian-bookworm-mbr", "windows2022-gpt-ntfs",
    "freebsd-gpt-ufs2-hashes",
)  # fmt: skip
MONITOR = """#!/bin/sh
# Keeps what it is told of each instance; of inst5 it wants to hear nothing.
[ "$2" != inst5.gnt.test ] || exit 1
exec cat >"/srv/monitored-$2"
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
    _put_dump(load_fixture("alpine-mbr-ext4"), bare_cluster.path(f"{IMAGES}/alpine.extdump"))
    provided(bare_cluster, CONFIGURATION)
    return bare_cluster


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
