"""The helper image that was built: its size, its parts, its boot, and that it can be built again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_image_contract.events import Hello, decode_event
from snf_image_host.helper_image import load, verify
from snf_image_process import PIPE, run, start

CHECKOUT = Path(__file__).parents[2]
HELPER = Path(os.environ.get("SNF_IMAGE_BUILD", CHECKOUT / "build")) / "helper"
ARTEFACTS = ("kernel", "initrd", "root.img", "disk.img", "sbom.cdx.json", "manifest.json")
MIB = 1024 * 1024

pytestmark = pytest.mark.requires("helper-image")


def test_it_is_whole() -> None:
    """R-HLP-18."""
    assert verify(str(HELPER)) == []


def test_kernel_initrd_and_root_stay_small() -> None:
    """At most 120 MiB; the self-booting disk is counted apart."""
    assert sum((HELPER / name).stat().st_size for name in ("kernel", "initrd", "root.img")) <= 120 * MIB


def test_the_kernel_is_the_cloud_kernel_and_there_is_no_systemd() -> None:
    packages = {package.name for package in load(str(HELPER)).packages}
    assert any(name.endswith("-cloud-amd64") and name.startswith("linux-image-") for name in packages)
    assert not packages & {"systemd", "systemd-sysv", "udev", "ifupdown", "isc-dhcp-client"}


def test_the_bill_of_materials_lists_every_package() -> None:
    """CycloneDX, with a package URL for each."""
    document = json.loads((HELPER / "sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    listed = {(component["name"], component["version"]) for component in document["components"]}
    assert listed == {(package.name, package.version) for package in load(str(HELPER)).packages}
    assert all(component["purl"].startswith("pkg:deb/debian/") for component in document["components"])


@pytest.fixture
def sockets() -> Iterator[Path]:
    directory = tempfile.mkdtemp(prefix="boot")
    yield Path(directory)
    shutil.rmtree(directory)


@pytest.mark.requires("qemu")
def test_the_disk_boots_by_itself_into_the_helper(sockets: Path) -> None:
    """BIOS, boot loader, kernel, initrd and root from one disk: the helper says hello on its third port."""
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-machine", "pc", "-accel", "tcg", "-m", "512",
        "-display", "none", "-no-reboot",
        "-drive", f"file={HELPER / 'disk.img'},format=raw,if=virtio,snapshot=on",
        "-serial", f"file:{sockets / 'console'}", "-serial", "null",
        "-chardev", f"socket,id=events,path={sockets / 'events'},server=on,wait=on",
        "-serial", "chardev:events",
    ]  # fmt: skip
    with start(argv, stderr=PIPE) as qemu, socket.socket(socket.AF_UNIX) as events:
        events.settimeout(120)
        while not (sockets / "events").exists():
            assert qemu.wait(0.05) is None, qemu.stderr and qemu.stderr.read()
        events.connect(str(sockets / "events"))
        line = events.makefile("rb").readline(70_000)
    hello = decode_event(line, 0)
    assert isinstance(hello, Hello)
    assert hello.build == load(str(HELPER)).build


def digests(directory: Path) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in ARTEFACTS}


@pytest.mark.requires("root", "buildah", "mmdebstrap", "erofs", "network")
def test_a_second_build_gives_the_same_bytes(tmp_path: Path) -> None:
    """D-35: empty caches, another directory, host name, date and umask; the differing file is named."""
    checkout = tmp_path / "elsewhere" / "checkout"
    for folder in ("contract", "process", "helper", "helper-image"):
        shutil.copytree(CHECKOUT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"{checkout}/helper-image/build --output {tmp_path}/helper --cache {tmp_path}/cache"
    # Not a fake clock: everything that could tell the date takes it from the kernel.
    script = f"hostname another-host && umask 077 && {build}"
    run(["unshare", "--uts", "sh", "-c", script], timeout=1500, env={"HOME": "/root", "TZ": "Asia/Tokyo"})
    first, second = digests(HELPER), digests(tmp_path / "helper")
    assert [name for name in ARTEFACTS if first[name] != second[name]] == []


@pytest.mark.engines
@pytest.mark.requires("root", "podman", "docker-sdk", "mmdebstrap", "erofs")
def test_a_docker_compatible_service_builds_the_same(tmp_path: Path, sockets: Path) -> None:
    """ENGINE=docker, against podman's service: the same bytes again."""
    address = f"unix://{sockets}/podman.sock"
    service = [
        "podman", "--runtime", "runc", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
        "--root", str(tmp_path / "storage"), "--runroot", str(sockets / "run"),
        "system", "service", "--time", "0", address,
    ]  # fmt: skip
    with start(service, env={"HOME": "/root"}) as podman:
        while not (sockets / "podman.sock").exists():
            assert podman.wait(0.1) is None
        argv = [
            "/usr/bin/env", f"DOCKER_HOST={address}",
            shutil.which("python3", path=str(CHECKOUT / ".venv/bin")) or "python3",
            str(CHECKOUT / "helper-image/build"), "--engine", "docker", "--output", str(tmp_path / "helper"),
        ]  # fmt: skip
        run(argv, timeout=1500, env={"HOME": "/root"})
    first, second = digests(HELPER), digests(tmp_path / "helper")
    assert [name for name in ARTEFACTS if first[name] != second[name]] == []
