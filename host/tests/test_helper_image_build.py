"""The helper image that was built: its size, its parts, its boot, and that it can be built again."""

from __future__ import annotations

import datetime as dt
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
from snf_image_host.helper_image import BaseImage, load, verify
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


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else f"{path.lstat().st_mode:o}"


def unpacked(directory: Path, into: Path) -> dict[str, str]:
    """What is in the root image and the initrd: name to digest."""
    (into / "initrd").mkdir(parents=True)
    run(["fsck.erofs", f"--extract={into / 'root'}", str(directory / "root.img")], timeout=300)
    cpio = ["cpio", "--extract", "--quiet", "--make-directories"]
    run(cpio, timeout=60, stdin=(directory / "initrd").read_bytes(), cwd=str(into / "initrd"))
    found = {str(path.relative_to(into)): path for path in sorted(into.rglob("*")) if not path.is_symlink()}
    links = {str(path.relative_to(into)): path for path in into.rglob("*") if path.is_symlink()}
    return {name: digest(path) for name, path in found.items()} | {
        name: os.readlink(path) for name, path in links.items()
    }


def assert_same_bytes(first: Path, second: Path, scratch: Path, besides: tuple[str, ...] = ()) -> None:
    """The artefacts of two builds are equal; a failure names those that are not, and the files in them.

    ``besides``: artefacts that may differ.
    """
    packages = [json.loads((path / "manifest.json").read_text())["packages"] for path in (first, second)]
    assert packages[0] == packages[1], "the archive has other packages by now: helper-image/build --refresh"
    asked = [name for name in ARTEFACTS if name not in besides]
    differ = [name for name in asked if digest(first / name) != digest(second / name)]
    if differ:
        one, other = (unpacked(path, scratch / number) for number, path in (("1", first), ("2", second)))
        inside = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        pytest.fail(f"these differ: {', '.join(differ)}; in them: {', '.join(inside[:50])}")


@pytest.mark.requires("root", "buildah", "mmdebstrap", "erofs", "network")
def test_a_second_build_gives_the_same_bytes(tmp_path: Path) -> None:
    """D-35: empty caches, another directory, host name, time zone, time and umask.

    A date is not enough to tell builds of one day apart: see the test that looks for dates.
    """
    checkout = tmp_path / "elsewhere" / "checkout"
    for folder in ("contract", "process", "helper", "helper-image"):
        shutil.copytree(CHECKOUT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"{checkout}/helper-image/build --output {tmp_path}/helper --cache {tmp_path}/cache"
    script = f"hostname another-host && umask 077 && {build}"
    run(["unshare", "--uts", "sh", "-c", script], timeout=1500, env={"HOME": "/root", "TZ": "Asia/Tokyo"})
    assert_same_bytes(HELPER, tmp_path / "helper", tmp_path / "unpacked")


def test_a_failure_would_name_the_file(tmp_path: Path) -> None:
    """D-35: two images that differ in one file of the root, and in a link."""
    (tmp_path / "tree/etc").mkdir(parents=True)
    shutil.copytree(HELPER, tmp_path / "1")
    shutil.copytree(HELPER, tmp_path / "2")
    for number, text in (("1", "a"), ("2", "b")):
        (tmp_path / "tree/etc/file").write_text(text)
        (tmp_path / "tree/link").unlink(missing_ok=True)
        (tmp_path / "tree/link").symlink_to(text)
        run(["mkfs.erofs", str(tmp_path / number / "root.img"), str(tmp_path / "tree")], timeout=60)
    with pytest.raises(pytest.fail.Exception, match=r"differ: root\.img; in them: root/etc/file, root/link$"):
        assert_same_bytes(tmp_path / "1", tmp_path / "2", tmp_path / "unpacked")


@pytest.mark.requires("erofs")
def test_no_file_knows_when_or_where_it_was_made(tmp_path: Path) -> None:
    """D-35: neither the day, in any of the ways that files are dated, nor the machine's name."""
    today = dt.datetime.now(tz=dt.UTC)
    built = dt.datetime.fromtimestamp((HELPER / "manifest.json").stat().st_mtime, tz=dt.UTC)
    # A short name, such as "vm", is part of many words.
    traces = {name for name in [socket.gethostname().encode()] if len(name) > 5 and name != b"localhost"}
    for day in {today.date(), built.date()}:
        # Written out, as a date without separators, as accounts' days since 1970, and for people.
        traces |= {day.strftime(form).encode() for form in ("%Y-%m-%d", "%Y%m%d", "%b %e %Y", "%e %b %Y")}
        traces.add(f":{(day - dt.date(1970, 1, 1)).days}:".encode())
    unpacked(HELPER, tmp_path / "unpacked")
    found = [
        (str(path.relative_to(tmp_path)), trace)
        for path in sorted((tmp_path / "unpacked").rglob("*"))
        if path.is_file() and not path.is_symlink()
        for trace in traces
        if trace in path.read_bytes()
    ]
    assert found == []
    shadow = (tmp_path / "unpacked/root/etc/shadow").read_text().splitlines()
    assert {line.split(":")[2] for line in shadow} == {str(1_700_000_000 // 86400)}


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
    assert_same_bytes(HELPER, tmp_path / "helper", tmp_path / "unpacked")


# -- an image of a registry as base --------------------------------------------------------------

AS_IN_REGISTRIES = r"""set -eu
printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
printf 'force-unsafe-io\n' >"$1/etc/dpkg/dpkg.cfg.d/docker-apt-speedup"
printf 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n' >"$1/etc/apt/apt.conf.d/docker-clean"
printf '#!/bin/sh\nexit 1\n' | tee "$1/usr/local/bin/python3" "$1/root/own" "$1/etc/own" >"$1/opt/own"
chmod 755 "$1/usr/sbin/policy-rc.d" "$1/usr/local/bin/python3"
"""
"""What images of registries have besides packages, and a program that would be taken for Debian's."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry without TLS on this machine: its address and port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    config = {"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": {"addr": address}}
    (tmp_path / "registry.json").write_text(json.dumps(config))
    with start(["docker-registry", "serve", str(tmp_path / "registry.json")], stderr=PIPE) as serving:
        while not answers(address):
            assert serving.wait(0.1) is None, serving.stderr and serving.stderr.read()
        yield address


def answers(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def push_base(image: str, scratch: Path) -> str:
    """A small Debian 12, with apt, a package and files that no helper needs; the digest of its manifest."""
    (scratch / "context").mkdir(parents=True)
    (scratch / "hook").write_text(AS_IN_REGISTRIES)
    make = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=curl"]
    make += [f'--customize-hook=sh {scratch / "hook"} "$1"', "bookworm", str(scratch / "context/base.tar")]
    run(make, timeout=900, env={"HOME": "/root"})
    (scratch / "context/Containerfile").write_text("FROM scratch\nADD base.tar /\nUSER nobody\n")
    program = ["buildah", "--storage-driver", "vfs"]
    program += ["--root", str(scratch / "layers"), "--runroot", str(scratch / "run")]
    for words in (
        ["build", "--quiet", "--isolation", "chroot", "--tag", image, str(scratch / "context")],
        ["push", "--quiet", "--tls-verify=false", "--digestfile", str(scratch / "digest"), image],
    ):
        run([*program, *words], timeout=600, env={"HOME": "/root", "TMPDIR": str(scratch)})
    shutil.rmtree(scratch / "layers")
    return (scratch / "digest").read_text().strip()


@pytest.mark.engines
@pytest.mark.requires("root", "buildah", "docker-registry", "mmdebstrap", "erofs", "network")
def test_an_image_of_a_registry_serves_as_base(registry: str, tmp_path: Path) -> None:
    """D-35: the same packages give the same bytes, whatever else the image came with."""
    image, helper = f"{registry}/debian:bookworm", tmp_path / "helper"
    pushed = push_base(image, tmp_path / "base")
    argv = [
        "/usr/bin/python3", str(CHECKOUT / "helper-image/build"), "--base", image,
        "--output", str(helper), "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    run(argv, timeout=1500, env={"HOME": "/root"})
    assert verify(str(helper)) == []
    built = load(str(helper))
    assert built.base == BaseImage(image=image, digest=pushed)
    assert_same_bytes(HELPER, helper, tmp_path / "unpacked", besides=("manifest.json",))
