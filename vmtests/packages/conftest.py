"""What the tests of the packages share: older packages, and a node to install them on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from image_recipes.debian import archive_of
from snf_image_process import run
from snf_image_vmtests import places
from snf_image_vmtests.debian_node import SUITE, DebianNode, built_package


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The node's package as an earlier build had it: a lower version, and another default configuration."""
    place = tmp_path_factory.mktemp("older")
    tree = str(place / "tree")
    run(["dpkg-deb", "--raw-extract", built_package("snf-image"), tree], timeout=60)
    control = os.path.join(tree, "DEBIAN/control")
    with open(control, encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("Recommends:")]
    with open(control, "w", encoding="utf-8") as file:
        file.writelines("Version: 0.9\n" if line.startswith("Version:") else line for line in lines)
    with open(os.path.join(tree, "etc/default/snf-image"), "w", encoding="utf-8") as file:
        file.write("# An older default.\n")
    path = str(place / "snf-image_0.9_all.deb")
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, path], timeout=60)
    return path


@pytest.fixture(scope="session")
def predecessor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A package of the name that earlier versions have, with files at the same places."""
    place = tmp_path_factory.mktemp("predecessor")
    files = {
        "DEBIAN/control": (
            "Package: snf-image-host\nVersion: 0.20\nArchitecture: all\nMaintainer: nobody <a@b>\n"
            "Description: what was there before\n"
        ),
        "DEBIAN/conffiles": "/etc/default/snf-image\n",
        "etc/default/snf-image": "# As it was shipped.\n",
        "usr/share/ganeti/os/snf-image/create": "#!/bin/sh\nexit 1\n",
        "usr/share/ganeti/os/snf-image/common.sh": "",
    }
    for name, text in files.items():
        path = place / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    path = place / "snf-image-host_0.20_all.deb"
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(place / "tree"), str(path)], timeout=60)
    return str(path)


@pytest.fixture(scope="session")
def node() -> Iterator[DebianNode]:
    """A fresh Debian 12 that has what the packages depend on, and not the packages."""
    directory = os.path.join(places.build_directory(), "packages-node")
    with DebianNode(directory, archive_of(SUITE)) as made:
        yield made
