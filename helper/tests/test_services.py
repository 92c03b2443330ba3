"""What starts at boot, read and changed by links."""

from __future__ import annotations

import os

import pytest

from network_images import unit
from snf_image_helper import services
from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from trees import Directory, Fifo, GuestOf, Link, Tree, changes, exists

UNITS = "/usr/lib/systemd/system"
ETC = "/etc/systemd/system"


def links(guest: Guest) -> dict[str, str]:
    return {path: os.readlink(guest.target + path) for change, path in changes(guest) if change == "link"}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({f"{UNITS}/a.service": unit(), f"{ETC}/x.wants/a.service": Link(f"{UNITS}/a.service")}, True),
        ({f"{UNITS}/a.service": unit(), f"{ETC}/x.requires/a.service": Link("/dangling")}, True),
        ({f"{UNITS}/a.service": unit(), f"{UNITS}/x.wants/a.service": Link("../a.service")}, True),
        ({f"{UNITS}/a.service": unit()}, False),
        ({f"{ETC}/x.wants/a.service": Link(f"{UNITS}/a.service")}, False),
        (
            {
                f"{UNITS}/a.service": unit(),
                f"{ETC}/x.wants/a.service": Link("x"),
                f"{ETC}/a.service": Link("/dev/null"),
            },
            False,
        ),
        ({f"{UNITS}/a.service": unit(), f"{ETC}/x.wants/ba.service": Link("x")}, False),
        ({f"{UNITS}/a.service": unit(), f"{ETC}/a.service.wants/b.service": Link("x")}, False),
        ({f"{UNITS}/a.service": Directory(), f"{ETC}/x.wants/a.service": Link("x")}, False),
        ({f"{UNITS}/a.service": Fifo(), f"{ETC}/x.wants/a.service": Link("x")}, False),
        ({"/lib/systemd/system/a.service": unit(), f"{ETC}/x.wants/a.service": Link("x")}, True),
    ],
)
def test_units_that_start_at_boot(tree: Tree, expected: bool, guest_of: GuestOf) -> None:
    """R-NET-11: enabled is the unit that is installed, wanted and not masked."""
    assert services.is_enabled(guest_of(tree).root, "a.service") is expected


def test_a_unit_is_enabled_as_its_install_section_says(guest_of: GuestOf) -> None:
    """R-NET-15."""
    install = (
        "WantedBy=multi-user.target graphical.target\nRequiredBy=x.target\nAlias=b.service\n"
        "Also=c.socket missing.service\nWantedBy=../../evil.target\n"
    )
    tree = {f"{UNITS}/a.service": unit(install), f"{UNITS}/c.socket": unit("WantedBy=sockets.target\n")}
    guest = guest_of(tree)
    assert services.enable(guest.root, "a.service")
    assert links(guest) == {
        f"{ETC}/multi-user.target.wants/a.service": f"{UNITS}/a.service",
        f"{ETC}/graphical.target.wants/a.service": f"{UNITS}/a.service",
        f"{ETC}/x.target.requires/a.service": f"{UNITS}/a.service",
        f"{ETC}/b.service": f"{UNITS}/a.service",
        f"{ETC}/sockets.target.wants/c.socket": f"{UNITS}/c.socket",
    }
    assert services.is_enabled(guest.root, "a.service")
    assert not services.enable(guest.root, "a.service")


def test_a_masked_unit_is_unmasked(guest_of: GuestOf) -> None:
    """R-NET-15."""
    guest = guest_of({f"{UNITS}/a.service": unit(), f"{ETC}/a.service": Link("/dev/null")})
    assert services.is_masked(guest.root, "a.service")
    assert services.enable(guest.root, "a.service")
    assert services.is_enabled(guest.root, "a.service")


def test_a_unit_that_is_not_there_is_not_enabled(guest_of: GuestOf) -> None:
    guest = guest_of({})
    assert not services.enable(guest.root, "a.service")
    assert changes(guest) == []


def test_units_that_name_each_other_end(guest_of: GuestOf) -> None:
    tree = {f"{UNITS}/a.service": unit("Also=b.service\n"), f"{UNITS}/b.service": unit("Also=a.service\n")}
    assert not services.enable(guest_of(tree).root, "a.service")


def test_a_directory_of_links_that_is_none_is_an_error(guest_of: GuestOf) -> None:
    """R-TASK-6."""
    guest = guest_of({f"{UNITS}/a.service": unit(), f"{ETC}/multi-user.target.wants": Fifo()})
    with pytest.raises(ImageError, match=r"multi-user\.target\.wants"):
        services.enable(guest.root, "a.service")


def test_openrc(guest_of: GuestOf) -> None:
    """R-NET-11, R-NET-15."""
    guest = guest_of({"/etc/init.d/a": "#!/sbin/openrc-run\n", "/etc/runlevels/boot": Directory()})
    assert services.openrc_installed(guest.root, "a")
    assert not services.openrc_enabled(guest.root, "a")
    assert services.openrc_enable(guest.root, "a", "boot")
    assert links(guest) == {"/etc/runlevels/boot/a": "/etc/init.d/a"}
    assert services.openrc_enabled(guest.root, "a")
    assert not services.openrc_enable(guest.root, "a", "default")
    assert not services.openrc_enable(guest.root, "missing", "boot")
    assert not services.openrc_installed(guest_of({"/etc/init.d/a": ""}).root, "a")


@pytest.mark.parametrize(
    ("link", "expected"),
    [("/etc/rc3.d/S10a", True), ("/etc/rcS.d/S01a", True), ("/etc/rc.d/rc5.d/S99a", True),
     ("/etc/rc3.d/K10a", False), ("/etc/rc3.d/S10ab", False), ("/etc/rc0.d/S10a", False)],
)  # fmt: skip
def test_system_v_links(link: str, expected: bool, guest_of: GuestOf) -> None:
    """R-NET-11."""
    guest = guest_of({"/etc/init.d/a": "#!/bin/sh\n", link: Link("../init.d/a")})
    assert services.sysv_enabled(guest.root, "a") is expected


def test_a_system_v_service_is_enabled(guest_of: GuestOf) -> None:
    """R-NET-15: in the multi-user levels of Red Hat, in Debian's level S."""
    guest = guest_of({"/etc/rc.d/init.d/a": "#!/bin/sh\n", "/etc/rc.d/rc3.d": Directory()})
    assert services.sysv_enable(guest.root, "a", "10")
    assert sorted(links(guest)) == [f"/etc/rc.d/rc{level}.d/S10a" for level in (2, 3, 4, 5)]
    guest = guest_of({"/etc/init.d/a": "#!/bin/sh\n"})
    assert services.sysv_enable(guest.root, "a", "13")
    assert links(guest) == {"/etc/rcS.d/S13a": "../init.d/a"}
    assert not services.sysv_enable(guest.root, "a", "13")
    assert not services.sysv_enable(guest.root, "missing", "13")
    assert exists(guest, "/etc/rcS.d/S13a")
