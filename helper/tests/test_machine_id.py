"""Task ChangeMachineId."""

from __future__ import annotations

import re

import pytest

from snf_image_contract.job import ChangeMachineId, MachineIdMode
from snf_image_helper.guest import Guest
from snf_image_helper.linux.machine_id import change_machine_id
from trees import File, GuestOf, Link, Node, Tree, changes, content, exists, mode, warnings

OLD = "0123456789abcdef0123456789abcdef\n"
UUID4 = re.compile(rb"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n")
NEW_SYSTEMD: dict[str, Node] = {"/usr/lib/systemd/libsystemd-shared-247.so": ""}
OLD_SYSTEMD: dict[str, Node] = {"/usr/lib/systemd/libsystemd-shared-246.so": ""}


def run(guest_of: GuestOf, tree: Tree, asked: MachineIdMode = "auto") -> Guest:
    guest = guest_of(tree, change_machine_id=ChangeMachineId(mode=asked))
    change_machine_id(guest)
    return guest


def test_an_id_is_replaced_by_a_random_one(guest_of: GuestOf) -> None:
    """R-TASK-MID-1, R-TASK-MID-4: bits of a UUID of version 4, no two alike, attributes kept."""
    ids = set()
    for _ in range(20):
        guest = run(guest_of, {"/etc/machine-id": File(OLD, mode=0o444)})
        new = content(guest, "/etc/machine-id")
        assert UUID4.fullmatch(new)
        assert mode(guest, "/etc/machine-id") == 0o444
        ids.add(new)
    assert len(ids) == 20


def test_the_id_is_told_to_nobody(guest_of: GuestOf) -> None:
    """R-TASK-MID-4."""
    guest = run(guest_of, {"/etc/machine-id": OLD})
    new = content(guest, "/etc/machine-id").strip().decode()
    guest.report.flush_changes()
    assert new not in repr(vars(guest.report))


@pytest.mark.parametrize("prepared", ["", "\n", "uninitialized\n", None])
@pytest.mark.parametrize("ostree", [False, True])
def test_an_image_prepared_for_its_first_boot_is_left_alone(
    guest_of: GuestOf, prepared: str | None, ostree: bool
) -> None:
    """T-93, R-TASK-MID-1, R-TASK-MID-2."""
    tree: dict[str, Node] = {"/etc": None} if prepared is None else {"/etc/machine-id": prepared}
    guest = run(guest_of, tree | ({"/ostree": None} if ostree else {}))
    assert changes(guest) == []


@pytest.mark.parametrize("old", [OLD, "", "uninitialized\n", None])
def test_random_always_makes_one(guest_of: GuestOf, old: str | None) -> None:
    """R-TASK-MID-2: also where there is none, with mode 0444."""
    guest = run(guest_of, {"/etc": None} if old is None else {"/etc/machine-id": old}, "random")
    assert UUID4.fullmatch(content(guest, "/etc/machine-id"))
    if old is None:
        assert mode(guest, "/etc/machine-id") == 0o444


def test_uninitialized_for_a_systemd_that_knows_the_word(guest_of: GuestOf) -> None:
    """R-TASK-MID-2: 247 and later."""
    guest = run(guest_of, {**NEW_SYSTEMD, "/etc/machine-id": OLD}, "uninitialized")
    assert content(guest, "/etc/machine-id") == b"uninitialized\n"


@pytest.mark.parametrize("systemd", [OLD_SYSTEMD, {}])
def test_uninitialized_for_another_is_empty(guest_of: GuestOf, systemd: dict[str, Node]) -> None:
    """R-TASK-MID-2."""
    guest = run(guest_of, {**systemd, "/etc/machine-id": OLD}, "uninitialized")
    assert content(guest, "/etc/machine-id") == b""
    assert "emptied" in warnings(guest)[0]


def test_empty_and_keep(guest_of: GuestOf) -> None:
    """R-TASK-MID-2."""
    assert content(run(guest_of, {"/etc/machine-id": OLD}, "empty"), "/etc/machine-id") == b""
    guest = run(guest_of, {"/etc/machine-id": OLD, "/var/lib/systemd/random-seed": "x"}, "keep")
    assert changes(guest) == []


def test_dbus_gets_the_same_id(guest_of: GuestOf) -> None:
    """R-TASK-MID-3."""
    guest = run(guest_of, {"/etc/machine-id": OLD, "/var/lib/dbus/machine-id": OLD})
    assert content(guest, "/var/lib/dbus/machine-id") == content(guest, "/etc/machine-id") != OLD.encode()


def test_dbus_link_stays(guest_of: GuestOf) -> None:
    """R-TASK-MID-3."""
    guest = run(guest_of, {"/etc/machine-id": OLD, "/var/lib/dbus/machine-id": Link("/etc/machine-id")})
    assert changes(guest) == [("modified", "/etc/machine-id")]


@pytest.mark.parametrize("etc", ["", "uninitialized\n", None])
def test_a_stale_id_of_dbus_does_not_survive(guest_of: GuestOf, etc: str | None) -> None:
    """T-94, R-TASK-MID-3: it would be copied back at boot."""
    tree: dict[str, Node] = {"/etc": None, "/var/lib/dbus/machine-id": OLD}
    guest = run(guest_of, tree if etc is None else tree | {"/etc/machine-id": etc})
    assert not exists(guest, "/var/lib/dbus/machine-id")
    assert not content(guest, "/etc/machine-id").startswith(b"0") if etc is not None else True


def test_a_stale_id_goes_with_an_emptied_one(guest_of: GuestOf) -> None:
    """T-94."""
    guest = run(guest_of, {"/etc/machine-id": OLD, "/var/lib/dbus/machine-id": OLD}, "empty")
    assert not exists(guest, "/var/lib/dbus/machine-id")


def test_seeds_of_random_numbers_go(guest_of: GuestOf) -> None:
    """R-TASK-MID-4: systemd's and the boot loader's."""
    seeds = ["/var/lib/systemd/random-seed", "/boot/loader/random-seed", "/boot/efi/loader/random-seed"]
    guest = run(guest_of, {"/etc/machine-id": "", **dict.fromkeys(seeds, "seed")})
    assert changes(guest) == [("removed", seed) for seed in seeds]
