"""What a test may need of the machine, each with a check and what to do if it is missing.

``@pytest.mark.requires("qemu", "fixtures")`` skips a test where a capability is missing, and the reason
names it; with ``--must-have`` the test fails instead.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import glob
import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Final

from snf_image_vmtests import places

CHROMIUM: Final = ("chromium-headless-shell", "chromium")
"""The browser without a screen, and the whole one, which can do without."""
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """``check`` says whether it is there; ``remedy`` is shown if it is not."""

    check: Callable[[], bool]
    remedy: str


def find_program(name: str) -> str | None:
    """The path of a program, looked for where the runner of programs will."""
    return shutil.which(name, path=_SYSTEM_PATH)


def _program(*names: str, package: str | None = None) -> Capability:
    remedy = f"install the Debian package {package or names[0]}"
    return Capability(check=lambda: all(find_program(name) for name in names), remedy=remedy)


def _module(name: str, package: str) -> Capability:
    return Capability(
        check=lambda: importlib.util.find_spec(name) is not None, remedy=f"install the package {package}"
    )


def _built(directory: Callable[[], str], names: tuple[str, ...], target: str) -> Capability:
    return Capability(
        check=lambda: all(os.path.exists(os.path.join(directory(), name)) for name in names),
        remedy=f"make {target}",
    )


def _can_use_kvm() -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def _has_loop_devices() -> bool:
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control")


def _is_online_machine() -> bool:
    with open("/proc/net/route", encoding="ascii") as file:
        return any(line.split()[1] == "00000000" for line in file if line.strip())


def _has_landlock() -> bool:
    create_ruleset, ask_version = 444, 1
    return int(ctypes.CDLL(None).syscall(create_ruleset, None, ctypes.c_size_t(0), ask_version)) > 0


CAPABILITIES: Final[dict[str, Capability]] = {
    "root": Capability(check=lambda: os.geteuid() == 0, remedy="run as root"),
    "user": Capability(
        check=lambda: os.geteuid() != 0 or find_program("setpriv") is not None,
        remedy="install the Debian package util-linux, which can start programs as an ordinary user",
    ),
    "loop": Capability(check=_has_loop_devices, remedy="run as root where /dev/loop-control exists"),
    "kvm": Capability(check=_can_use_kvm, remedy="run where /dev/kvm may be used"),
    "landlock": Capability(
        check=_has_landlock, remedy="run on Linux 5.13 or later, with landlock in /sys/kernel/security/lsm"
    ),
    "network": Capability(check=_is_online_machine, remedy="run where there is a default route"),
    "qemu": _program("qemu-system-x86_64", "setpriv", package="qemu-system-x86"),
    "binutils": _program("as", "objcopy", package="binutils"),
    "qemu-img": _program("qemu-img", package="qemu-utils"),
    "ssh-keygen": _program("ssh-keygen", package="openssh-client"),
    "e2fsprogs": _program("mke2fs", "e2fsck", "debugfs", "dumpe2fs", package="e2fsprogs"),
    "xfsprogs": _program("mkfs.xfs", "xfs_db", "xfs_repair", package="xfsprogs"),
    "btrfs-progs": _program("mkfs.btrfs", "btrfs", package="btrfs-progs"),
    "dosfstools": _program("mkfs.vfat", package="dosfstools"),
    "ntfs-3g": _program("mkntfs", "ntfs-3g", package="ntfs-3g"),
    "fuse": Capability(
        check=lambda: os.access("/dev/fuse", os.R_OK | os.W_OK), remedy="run where /dev/fuse may be used"
    ),
    "swap": _program("mkswap", package="util-linux"),
    "fdisk": _program("sfdisk", package="fdisk"),
    "parted": _module("parted", "python3-parted or pyparted"),
    "hivex": Capability(
        check=lambda: importlib.util.find_spec("hivex") is not None
        and all(find_program(name) for name in ("hivexsh", "hivexget", "hivexregedit")),
        remedy="install the Debian packages python3-hivex, libhivex-bin and libwin-hivex-perl",
    ),
    "erofs": _program("mkfs.erofs", package="erofs-utils"),
    "squashfs": _program("mksquashfs", package="squashfs-tools"),
    "mmdebstrap": _program("mmdebstrap"),
    "lintian": _program("lintian", "dpkg-deb"),
    "buildah": _program("buildah"),
    "podman": _program("podman"),
    "docker-registry": _program("docker-registry"),
    "docker-sdk": _module("docker", "docker (Python)"),
    "guestfs": _program("virt-customize", package="guestfs-tools"),
    "netplan": _program("netplan", package="netplan.io"),
    "nmcli": _program("nmcli", package="network-manager"),
    "networkd": Capability(
        check=lambda: os.path.exists("/lib/systemd/systemd-networkd"),
        remedy="install the Debian package systemd",
    ),
    "systemd-analyze": _program("systemd-analyze", package="systemd"),
    "ifupdown": _program("ifup", "ifquery", package="ifupdown"),
    "cloud-init": _program("cloud-init"),
    "sshd": _program("sshd", package="openssh-server"),
    "ganeti": _program("gnt-cluster", "nsenter", "losetup", package="ganeti"),
    "zstd": _program("zstd"),
    "xz": _program("xz", package="xz-utils"),
    "lz4": _program("lz4"),
    "curl": _program("curl"),
    "ca-certificates": Capability(
        check=lambda: os.path.exists("/etc/ssl/certs/ca-certificates.crt"),
        remedy="install the Debian package ca-certificates",
    ),
    "openssl": _program("openssl"),
    "gpg": _program("gpg", "gpgv", package="gnupg"),
    "qemu-nbd": _program("qemu-nbd", package="qemu-utils"),
    "qemu-block-extra": Capability(
        check=lambda: bool(glob.glob("/usr/lib/*/qemu/block-rbd.so")),
        remedy="install the Debian package qemu-block-extra",
    ),
    "tgt": _program("tgtd", "tgtadm", package="tgt"),
    "chromium": Capability(
        check=lambda: any(find_program(name) for name in CHROMIUM),
        remedy="install the Debian package chromium-headless-shell or chromium",
    ),
    "helper-image": _built(
        places.helper_directory, ("kernel", "initrd", "root.img", "manifest.json"), "helper-image"
    ),
    "fixtures": _built(
        places.fixture_directory, ("debian-bookworm-mbr.raw", "inspection.kernel", "inspection.initrd"),
        "fixtures",
    ),
    "inspection-vm": _built(
        places.fixture_directory, ("inspection.kernel", "inspection.initrd"), "fixtures"
    ),
    "snf-image": Capability(
        check=lambda: os.access(places.command("snf-image"), os.X_OK), remedy="pip install -e ."
    ),
}  # fmt: skip


class UnknownCapabilityError(Exception):
    """A test asks for something this table does not know."""


@functools.cache
def is_there(name: str) -> bool:
    """Whether this machine has a capability; checked once."""
    if name not in CAPABILITIES:
        known = ", ".join(sorted(CAPABILITIES))
        raise UnknownCapabilityError(f"requires({name!r}): no such capability; there are {known}")
    return CAPABILITIES[name].check()


def missing(names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that this machine lacks."""
    return tuple(name for name in names if not is_there(name))


def reason(names: Sequence[str]) -> str:
    """Why a test cannot run, and what would help, for capabilities that are missing."""
    return "; ".join(f"missing capability {name}: {CAPABILITIES[name].remedy}" for name in names)
