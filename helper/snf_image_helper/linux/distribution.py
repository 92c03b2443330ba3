"""Which distribution a Linux image holds, and what of it decides how it is configured (R-DISTRO-1, -2)."""

from __future__ import annotations

import dataclasses
import enum
import re
import stat
from typing import Final

from snf_image_helper import edit
from snf_image_helper.root import Root


class LinuxFamily(enum.StrEnum):
    """Families of distributions that are configured alike."""

    COREOS = "coreos"
    DEBIAN = "debian"
    REDHAT = "redhat"
    SUSE = "suse"
    SLACKWARE = "slackware"
    GENTOO = "gentoo"
    ARCH = "arch"
    ALPINE = "alpine"
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What an image says of itself, and, looked up when somebody asks, what lies in it.

    ``id``, ``id_like``, ``version``, ``variant`` are os-release's ID, ID_LIKE, VERSION_ID, VARIANT_ID;
    ``title`` is for people. Most tasks ask for the family only, and looking through the libraries takes a
    tenth of a second under emulation.
    """

    root: Root
    family: LinuxFamily
    id: str = ""
    id_like: tuple[str, ...] = ()
    version: str = ""
    variant: str = ""
    title: str = ""

    @property
    def systemd(self) -> bool:
        """Its binary is there."""
        return any(self.root.is_file(path) for path in _SYSTEMD)

    @property
    def systemd_version(self) -> int | None:
        """None if it cannot be told."""
        return _systemd_version(self.root)

    @property
    def ostree(self) -> bool:
        return self.root.lstat("/ostree") is not None or self.root.is_dir("/sysroot/ostree")

    @property
    def merged_usr(self) -> bool:
        """``/bin`` is a link into ``/usr``."""
        return _has_merged_usr(self.root)

    @property
    def read_only_root(self) -> bool:
        """fstab says so, or the boot loader names a verified image."""
        return _fstab_says_read_only(self.root) or _is_verified(self.root)

    @property
    def architecture(self) -> str:
        """As ``uname -m`` says it, empty if it cannot be told."""
        return architecture(self.root)


_IDS: Final[dict[LinuxFamily, frozenset[str]]] = {
    family: frozenset(words.casefold().split())
    for family, words in (
        (LinuxFamily.COREOS, "coreos flatcar"),
        (LinuxFamily.DEBIAN, "debian ubuntu devuan linuxmint kali raspbian"),
        (LinuxFamily.REDHAT, "rhel fedora centos rocky almalinux ol amzn scientific openEuler rhcos"),
        (LinuxFamily.SUSE, "sles sled suse opensuse opensuse-leap opensuse-tumbleweed sl-micro"),
        (LinuxFamily.SLACKWARE, "slackware"),
        (LinuxFamily.GENTOO, "gentoo"),
        (LinuxFamily.ARCH, "arch archarm manjaro"),
        (LinuxFamily.ALPINE, "alpine"),
    )
}
_MARKERS: Final = (
    (LinuxFamily.COREOS, "/etc/coreos"),
    (LinuxFamily.DEBIAN, "/etc/debian_version"),
    (LinuxFamily.REDHAT, "/etc/redhat-release"),
    (LinuxFamily.SUSE, "/etc/SuSE-release"),
    (LinuxFamily.SLACKWARE, "/etc/slackware-version"),
    (LinuxFamily.GENTOO, "/etc/gentoo-release"),
    (LinuxFamily.ARCH, "/etc/arch-release"),
    (LinuxFamily.ALPINE, "/etc/alpine-release"),
)
_OS_RELEASE: Final = ("/etc/os-release", "/usr/lib/os-release")
_SYSTEMD: Final = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
_SYSTEMD_LIBRARIES: Final = (
    "/usr/lib/systemd",
    "/lib/systemd",
    "/usr/lib64/systemd",
    "/usr/lib64",
    "/usr/lib",
)
_SHARED_LIBRARY: Final = re.compile(r"libsystemd-shared-([0-9]{1,6})(?:[^0-9].*)?\.so")
_MAX_TEXT: Final = 256
_NUMBERS: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}")
_PROGRAMS: Final = (*_SYSTEMD, "/usr/bin/env", "/bin/sh", "/sbin/init", "/bin/busybox")
_MACHINES: Final = {
    3: "i686",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_BOOT_ENTRIES: Final = (
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/flatcar/grub/grub.cfg",
    "/boot/coreos/grub/grub.cfg",
)
_BOOT_ENTRY_DIRECTORIES: Final = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")
_VERITY_WORDS: Final = (b"usrhash=", b"roothash=", b"verity.usrhash=", b"verity.usr=")


def identify(root: Root) -> Distribution:
    """What Linux the tree holds. Family ``unknown`` if neither os-release nor a marker file tells."""
    release = _os_release(root)
    name = release.get("ID", "")
    like = tuple(release.get("ID_LIKE", "").split())
    family = _family_of(name, like)
    version = release.get("VERSION_ID", "")
    title = release.get("PRETTY_NAME") or " ".join(filter(None, (release.get("NAME") or name, version)))
    if family is LinuxFamily.UNKNOWN:
        family, marker_text = _by_marker(root)
        title = title or marker_text
    return Distribution(
        root=root,
        family=family,
        id=name,
        id_like=like,
        version=version or _version_by_marker(root, family),
        variant=release.get("VARIANT_ID", ""),
        title=title or family.value,
    )


def _os_release(root: Root) -> dict[str, str]:
    for path in _OS_RELEASE:
        data = root.read_optional(path)
        if data is None:
            continue
        found = {_text(key): _text(value) for key, value in edit.assignments(data).items()}
        if found.get("ID"):
            return found
    return {}


def _text(data: bytes) -> str:
    """For people and for comparisons with short words: bounded, whatever the image says."""
    return data[:_MAX_TEXT].decode("utf-8", "replace").strip()


def _family_of(name: str, like: tuple[str, ...]) -> LinuxFamily:
    words = {name.casefold(), *(word.casefold() for word in like)}
    for family, ids in _IDS.items():
        if words & ids:
            return family
    return LinuxFamily.UNKNOWN


def _by_marker(root: Root) -> tuple[LinuxFamily, str]:
    for family, path in _MARKERS:
        if root.exists(path):
            return family, _marker_text(root, path)
    return LinuxFamily.UNKNOWN, ""


def _marker_text(root: Root, path: str) -> str:
    if not root.is_file(path):
        return ""
    return _text(root.read_head(path, 1024).partition(b"\n")[0])


def _version_by_marker(root: Root, family: LinuxFamily) -> str:
    for marked, path in _MARKERS:
        if marked is family and (found := _NUMBERS.search(_marker_text(root, path))):
            return found[0]
    return ""


def _systemd_version(root: Root) -> int | None:
    """From the name of systemd's private library; several after a half-done update: the newest."""
    versions = []
    for directory in _SYSTEMD_LIBRARIES:
        for name in _names(root, directory):
            if found := _SHARED_LIBRARY.fullmatch(name):
                versions.append(int(found[1]))
            elif "-linux-" in name:
                inner = _names(root, f"{directory}/{name}/systemd")
                versions += [int(m[1]) for m in map(_SHARED_LIBRARY.fullmatch, inner) if m]
    return max(versions, default=None)


def _names(root: Root, directory: str) -> list[str]:
    return root.list(directory) if root.is_dir(directory) else []


def _has_merged_usr(root: Root) -> bool:
    status = root.lstat("/bin")
    if status is None or not stat.S_ISLNK(status.st_mode):
        return False
    return root.readlink("/bin").rstrip("/") in ("usr/bin", "/usr/bin")


def _fstab_says_read_only(root: Root) -> bool:
    for line in edit.Lines(root.read_optional("/etc/fstab") or b"", "/etc/fstab"):
        words = edit.fields(line)
        if len(words) >= 4 and words[1] == b"/" and b"ro" in words[3].split(b","):
            return True
    return False


def _is_verified(root: Root) -> bool:
    """Whether dm-verity guards ``/usr`` or the root, so that it is never written to."""
    for line in edit.Lines(root.read_optional("/etc/veritytab") or b"", "/etc/veritytab"):
        if edit.fields(line)[:1] in ([b"usr"], [b"root"]):
            return True
    entries = [*_BOOT_ENTRIES]
    for directory in _BOOT_ENTRY_DIRECTORIES:
        entries += [f"{directory}/{name}" for name in _names(root, directory) if name.endswith(".conf")]
    return any(word in _boot_entry(root, path) for path in entries for word in _VERITY_WORDS)


def _boot_entry(root: Root, path: str) -> bytes:
    return root.read_head(path, 1 << 20) if root.is_file(path) else b""


def architecture(root: Root) -> str:
    """As Linux calls it, from the header of an ELF program that every system has; empty without one."""
    for path in _PROGRAMS:
        header = root.read_head(path, 20) if root.is_file(path) else b""
        if len(header) == 20 and header.startswith(b"\x7fELF"):
            little = header[5] == 1
            name = _MACHINES.get(int.from_bytes(header[18:20], "little" if little else "big"), "")
            return "ppc64le" if name == "ppc64" and little else name
    return ""
