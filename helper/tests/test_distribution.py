"""Which distribution an image holds."""

from __future__ import annotations

import struct

import pytest

from snf_image_helper.errors import ImageError
from snf_image_helper.linux.distribution import LinuxFamily, identify
from trees import Fifo, GuestOf, Link, Node


def os_release(guest_of: GuestOf, contents: str) -> LinuxFamily:
    return identify(guest_of({"/etc/os-release": contents}).root).family


@pytest.mark.parametrize(
    ("family", "name", "like"),
    [
        ("coreos", "flatcar", "coreos"),
        ("coreos", "coreos", ""),
        ("debian", "debian", ""),
        ("debian", "ubuntu", "debian"),
        ("debian", "devuan", "debian"),
        ("debian", "raspbian", "debian"),
        ("debian", "pop", "ubuntu debian"),
        ("redhat", "fedora", ""),
        ("redhat", "rhel", "fedora"),
        ("redhat", "centos", "rhel fedora"),
        ("redhat", "rocky", "rhel centos fedora"),
        ("redhat", "almalinux", "rhel centos fedora"),
        ("redhat", "ol", "fedora"),
        ("redhat", "amzn", "centos rhel fedora"),
        ("redhat", "openEuler", ""),
        ("redhat", "rhcos", "rhel fedora"),
        ("suse", "opensuse-leap", "suse opensuse"),
        ("suse", "opensuse-tumbleweed", "opensuse suse"),
        ("suse", "sles", "suse"),
        ("suse", "sl-micro", "suse"),
        ("slackware", "slackware", ""),
        ("gentoo", "gentoo", ""),
        ("arch", "arch", ""),
        ("arch", "endeavouros", "arch"),
        ("alpine", "alpine", ""),
        ("unknown", "nixos", ""),
        ("unknown", "debianish", "like-debian-but-not"),
    ],
)
def test_the_family_by_id_or_a_word_of_id_like(guest_of: GuestOf, family: str, name: str, like: str) -> None:
    """R-DISTRO-1: whole words only."""
    assert os_release(guest_of, f'NAME="x"\nID={name}\nID_LIKE="{like}"\n') == family


@pytest.mark.parametrize("version", ["15.6", "16.0"])
@pytest.mark.parametrize("name", ["opensuse-leap", "sles"])
def test_suse_needs_no_file_of_its_past(guest_of: GuestOf, name: str, version: str) -> None:
    """T-99: Leap and SLES 15 and 16 have no /etc/SuSE-release."""
    found = identify(guest_of({"/etc/os-release": f'ID="{name}"\nVERSION_ID="{version}"\n'}).root)
    assert (found.family, found.version) == (LinuxFamily.SUSE, version)


@pytest.mark.parametrize(
    ("family", "path", "contents", "version"),
    [
        ("debian", "/etc/debian_version", "7.11\n", "7.11"),
        ("redhat", "/etc/redhat-release", "CentOS release 6.10 (Final)\n", "6.10"),
        ("suse", "/etc/SuSE-release", "SUSE Linux Enterprise Server 11 (x86_64)\n", "11"),
        ("slackware", "/etc/slackware-version", "Slackware 14.2\n", "14.2"),
        ("gentoo", "/etc/gentoo-release", "Gentoo Base System release 2.2\n", "2.2"),
        ("arch", "/etc/arch-release", "", ""),
        ("alpine", "/etc/alpine-release", "3.1.4\n", "3.1.4"),
    ],
)
def test_the_family_by_its_marker(
    guest_of: GuestOf, family: str, path: str, contents: str, version: str
) -> None:
    """R-DISTRO-1: old images have no os-release."""
    found = identify(guest_of({path: contents}).root)
    assert (found.family, found.version, found.id) == (family, version, "")


def test_the_marker_of_coreos_is_a_directory(guest_of: GuestOf) -> None:
    """R-DISTRO-1."""
    assert identify(guest_of({"/etc/coreos": None}).root).family is LinuxFamily.COREOS


def test_os_release_comes_before_markers_and_etc_before_usr(guest_of: GuestOf) -> None:
    """R-DISTRO-1: the order of sources; an os-release without ID does not count."""
    tree: dict[str, Node] = {
        "/etc/os-release": "ID=alpine\n",
        "/usr/lib/os-release": "ID=fedora\n",
        "/etc/debian_version": "12\n",
    }
    assert identify(guest_of(tree).root).family is LinuxFamily.ALPINE
    tree["/etc/os-release"] = "NAME=odd\n"
    assert identify(guest_of(tree).root).family is LinuxFamily.REDHAT
    tree["/usr/lib/os-release"] = "NAME=odd\n"
    assert identify(guest_of(tree).root).family is LinuxFamily.DEBIAN


def test_os_release_may_be_an_absolute_link(guest_of: GuestOf) -> None:
    """R-TASK-5: the link is relative to the guest's root."""
    tree: dict[str, Node] = {
        "/etc/os-release": Link("/usr/lib/os-release"),
        "/usr/lib/os-release": "ID=arch\n",
    }
    assert identify(guest_of(tree).root).family is LinuxFamily.ARCH


def test_os_release_is_parsed_and_not_evaluated(guest_of: GuestOf) -> None:
    """R-TASK-10: quotes are taken off, substitutions stay text."""
    found = identify(
        guest_of(
            {"/etc/os-release": "ID='debian'\nPRETTY_NAME=\"$(id) `id` \\$5\"\nVARIANT_ID=server\n"}
        ).root
    )
    assert (found.id, found.title, found.variant) == ("debian", "$(id) `id` $5", "server")


def test_names_and_versions_are_bounded(guest_of: GuestOf) -> None:
    """R-MON-10: what an image calls itself must fit into one event."""
    long = "1" * 100_000
    text = f"ID=debian-{long}\nID_LIKE=debian\nVERSION_ID={long}\nPRETTY_NAME={long}\n"
    found = identify(guest_of({"/etc/os-release": text}).root)
    assert found.family is LinuxFamily.DEBIAN
    assert max(map(len, (found.id, found.version, found.title))) <= 256


def test_nothing_known_is_a_family_of_its_own(guest_of: GuestOf) -> None:
    """R-DISTRO-4: unknown is no error."""
    found = identify(guest_of({"/etc": None}).root)
    assert (found.family, found.title, found.systemd) == (LinuxFamily.UNKNOWN, "unknown", False)


def test_a_fifo_as_os_release_is_an_error(guest_of: GuestOf) -> None:
    """R-TASK-6."""
    with pytest.raises(ImageError, match=r"^/etc/os-release: not a regular file but a FIFO"):
        identify(guest_of({"/etc/os-release": Fifo()}).root)


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/usr/lib/systemd/libsystemd-shared-252.so", 252),
        ("/lib/systemd/libsystemd-shared-239.so", 239),
        ("/usr/lib64/systemd/libsystemd-shared-256.4-1.fc41.so", 256),
        ("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-255.so", 255),
        ("/usr/lib/systemd/libsystemd-shared-257~rc1.so", 257),
        ("/usr/lib/systemd/libsystemd-shared-x.so", None),
    ],
)
def test_the_version_of_systemd(guest_of: GuestOf, path: str, version: int | None) -> None:
    """R-DISTRO-2: from the name of its private library."""
    found = identify(guest_of({path: "", "/usr/lib/systemd/systemd": ""}).root)
    assert (found.systemd, found.systemd_version) == (True, version)


def test_ostree_and_merged_usr(guest_of: GuestOf) -> None:
    """R-DISTRO-2."""
    found = identify(guest_of({"/ostree": Link("sysroot/ostree"), "/bin": Link("usr/bin")}).root)
    assert (found.ostree, found.merged_usr) == (True, True)
    found = identify(guest_of({"/bin": None, "/etc": None}).root)
    assert (found.ostree, found.merged_usr) == (False, False)


@pytest.mark.parametrize(
    ("tree", "read_only"),
    [
        ({"/etc/fstab": "UUID=1 / ext4 defaults,ro 0 1\n"}, True),
        ({"/etc/fstab": "UUID=1 / ext4 errors=remount-ro 0 1\nUUID=2 /usr ext4 ro 0 2\n"}, False),
        ({"/etc/fstab": "#UUID=1 / ext4 ro 0 1\n"}, False),
        ({"/etc/veritytab": "usr /dev/a /dev/b - auto\n"}, True),
        ({"/etc/veritytab": "data /dev/a /dev/b - auto\n"}, False),
        ({"/boot/loader/entries/a.conf": "options usrhash=12ab\n"}, True),
        ({"/boot/grub/grub.cfg": "linux /vmlinuz root=UUID=1 ro\n"}, False),
    ],
)
def test_a_read_only_root(guest_of: GuestOf, tree: dict[str, Node], read_only: bool) -> None:
    """R-DISTRO-2: by fstab's options, or by marks of dm-verity."""
    assert identify(guest_of(tree).root).read_only_root is read_only


def elf(machine: int, *, little: bool = True) -> bytes:
    """The first 20 bytes of an ELF program."""
    layout = "<HH" if little else ">HH"
    return b"\x7fELF\x02" + (b"\x01" if little else b"\x02") + bytes(10) + struct.pack(layout, 2, machine)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (elf(62), "x86_64"),
        (elf(183), "aarch64"),
        (elf(21), "ppc64le"),
        (elf(22, little=False), "s390x"),
        (elf(9999), ""),
        (b"#!/bin/sh\n" * 5, ""),
        (b"", ""),
    ],
)
def test_the_architecture(guest_of: GuestOf, header: bytes, name: str) -> None:
    """R-DISTRO-2: from the header of a program, which is not run."""
    assert identify(guest_of({"/bin/sh": header}).root).architecture == name
