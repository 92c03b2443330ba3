"""The Debian packages in a fresh Debian 12: lintian, install, use, upgrade, purge (D-34)."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from snf_image_process import run
from snf_image_vmtests import places
from snf_image_vmtests.debian_node import DebianNode, built_package
from snf_image_vmtests.fixture_images import load_fixture
from snf_image_vmtests.operator_pages import shell_lines

PACKAGES = ("snf-image", "snf-image-helper")
IMAGE = "/var/lib/snf-image/debian-12.diskdump"
DEFINITION = "/usr/share/ganeti/os/snf-image"
CONFIGURATION = "# The operator's own.\nHELPER_ACCEL=tcg\nHELPER_TCG_TIMEOUT_FACTOR=10\n"

pytestmark = pytest.mark.requires("root", "mmdebstrap", "lintian", "fixtures")


def test_lintian_finds_nothing() -> None:
    """Neither errors nor warnings."""
    argv = ["lintian", "--allow-root", "--fail-on", "error,warning", *(map(built_package, PACKAGES))]
    done = run(argv, timeout=300, accept=range(256))
    assert (done.status, done.text) == (0, "")


def test_install_use_upgrade_purge(node: DebianNode, predecessor: str, older: str) -> None:
    """D-34: one node's life, from the package of earlier versions to the purge.

    A changed conffile stays, ``doctor`` and a deployment work, nothing remains.
    """
    before = node.files()
    node.install(predecessor)
    with open(node.path("/etc/default/snf-image"), "w", encoding="utf-8") as file:
        file.write(CONFIGURATION)
    node.install(older)
    assert not os.path.exists(node.path(f"{DEFINITION}/common.sh"))
    node.install(*(built_package(name) for name in PACKAGES))

    with open(node.path("/etc/default/snf-image"), encoding="utf-8") as file:
        assert file.read() == CONFIGURATION
    _check_definition(node)
    _update_the_helper(node)
    _leave_something_behind(node)
    _run_the_quick_start(node)

    shipped = run(["dpkg-deb", "--contents", built_package("snf-image")], timeout=60).text
    assert " ./usr/share/man/man1/snf-image-deploy.1.gz" in shipped
    completed = node.run(
        "bash", "-c", "source /usr/share/bash-completion/completions/snf-image; complete -p snf-image"
    )
    assert "_snf_image" in completed.text

    node.run("apt-get", "-q", "-y", "purge", *PACKAGES)
    assert node.files() - before == {"./var/lib/snf-image", f".{IMAGE}"}
    for directory in ("/var/log/snf-image", "/var/cache/snf-image"):
        assert not os.path.exists(node.path(directory))


def _check_definition(node: DebianNode) -> None:
    """R-SCR-1: the scripts run from where Ganeti looks for them; the list of variants is the operator's."""
    assert node.run("cat", f"{DEFINITION}/variants.list").text == "default\n"
    assert node.run("cat", f"{DEFINITION}/ganeti_api_version").text.split() == ["20"]
    failed = node.run(f"{DEFINITION}/verify", "parameters", accept=(1,))
    assert b"img_id" in failed.stdout + failed.stderr


def _update_the_helper(node: DebianNode) -> None:
    """D-15: an archive made as the page on installation says; a wrong digest changes nothing."""
    directory = places.helper_directory()
    run(["tar", "-C", directory, "--exclude=./warm", "-cf", node.path("/srv/helper.tar"), "."], timeout=120)
    digest = run(["sha256sum", node.path("/srv/helper.tar")], timeout=120).text.split()[0]
    update = ["snf-image-update-helper", "/srv/helper.tar", "--sha256"]
    inode = os.stat(node.path("/var/lib/snf-image/helper")).st_ino
    refused = node.run(*update, digest[::-1], accept=(3,))
    assert b"nothing was changed" in refused.stderr
    assert os.stat(node.path("/var/lib/snf-image/helper")).st_ino == inode
    node.run(*update, digest)
    assert os.path.exists(node.path("/var/lib/snf-image/helper/disk.img"))
    node.run("snf-image", "helper", "verify")
    os.unlink(node.path("/srv/helper.tar"))


def _run_the_quick_start(node: DebianNode) -> None:
    """D-15: what the page shows, as it stands there."""
    run(["cp", "--sparse=always", load_fixture("debian-bookworm-mbr").path, node.path(IMAGE)], timeout=120)
    script = "\n".join(shell_lines("quick-start.md", "On one node, without Ganeti"))
    told = node.run("sh", "-euc", script).text
    assert "can deploy" in told
    assert "debian" in told
    with open(node.path("/srv/web1.json"), encoding="utf-8") as file:
        receipt = json.load(file)
    assert receipt["result"] == "success", receipt
    assert os.path.getsize(node.path("/srv/web1.raw")) == 2 << 30
    for name in os.listdir(node.path("/srv")):
        assert os.stat(node.path(f"/srv/{name}")).st_mode & 0o077 == 0
        os.unlink(node.path(f"/srv/{name}"))


def _leave_something_behind(node: DebianNode) -> None:
    """What deployments leave on a node: history, and the state of a started helper."""
    create = ["env", "OS_API_VERSION=20", "INSTANCE_NAME=web1.example.org", f"{DEFINITION}/create"]
    node.run(*create, accept=(1,))
    assert "web1.example.org" in node.run("snf-image", "history").text
    # A deployment would have it made by a process that outlives it, and not the namespaces of this test.
    node.run("snf-image", "helper", "warm")
    for directory in ("/var/log/snf-image/web1.example.org", "/var/lib/snf-image/helper/warm"):
        assert os.listdir(node.path(directory))


def test_pip_gives_the_commands(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`pip install .` without a network, in a new environment; then `ganeti install` into a directory."""
    place = str(tmp_path_factory.mktemp("pip"))
    source = os.path.join(place, "source")
    ignored = shutil.ignore_patterns("build", ".*", "*.egg-info")
    shutil.copytree(places.CHECKOUT, source, ignore=ignored, symlinks=True)
    run(["/usr/bin/python3", "-m", "venv", "--system-site-packages", f"{place}/venv"], timeout=120)
    pip = [f"{place}/venv/bin/pip", "install", "--no-index", "--no-build-isolation", "--quiet", source]
    run(pip, timeout=300, env={"HOME": place})
    assert run([f"{place}/venv/bin/snf-image", "--version"], timeout=60).text.startswith("snf-image ")
    assert "HELPER_URL" in run([f"{place}/venv/bin/snf-image-update-helper", "--help"], timeout=60).text
    with open(f"{place}/config", "w", encoding="utf-8") as file:
        file.write(f"VARIANTS_DIR={place}/variants\n")
    install = [f"{place}/venv/bin/snf-image", "ganeti", "install", "--os-dir", f"{place}/os"]
    run([*install, "--config", f"{place}/config"], timeout=60)
    failed = run([f"{place}/os/verify"], timeout=60, accept=(1,), cwd=f"{place}/os")
    assert b"img_id" in failed.stdout + failed.stderr
