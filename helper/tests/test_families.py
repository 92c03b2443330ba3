"""The tables of families."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper.families import Later, family_of
from snf_image_helper.tasks import ORDER, DiskStep, GuestStep


def test_linux_does_every_task_that_is_not_of_windows() -> None:
    """R-TASK-4: what is None does not apply, and ends quietly."""
    family = family_of(OsFamily.LINUX)
    absent = {field.name for field in dataclasses.fields(family) if getattr(family, field.name) is None}
    assert absent == {"install_unattend", "disable_remote_desktop_connections"}
    assert family.default_users == ("root",)


def test_windows_has_no_swap_and_no_network_of_its_own() -> None:
    """R-TASK-4: nor machine ids, host keys, labels and cloud-init."""
    for name in (OsFamily.WINDOWS, OsFamily.WINDOWS_LEGACY):
        family = family_of(name)
        absent = {field.name for field in dataclasses.fields(family) if getattr(family, field.name) is None}
        assert absent - {"filesystem_resize_mounted"} == {
            "initialize_datasource",
            "add_swap",
            "change_machine_id",
            "configure_network",
            "delete_ssh_keys",
            "selinux_autorelabel",
        }
        assert family.default_users == ("Administrator",)


def test_what_is_imported_later_can_be_imported() -> None:
    """A table names modules and functions as text: each of them exists and takes the tree."""
    family = family_of(OsFamily.LINUX)
    actions = [getattr(family, field.name) for field in dataclasses.fields(family)]
    later = [action for action in actions if isinstance(action, Later)]
    assert len(later) == 10
    for action in later:
        assert list(inspect.signature(action.load()).parameters) == ["guest"], action


def test_what_the_order_imports_later_can_be_imported() -> None:
    """The same for the tasks that are no family's: those on disks take the machine."""
    family = family_of(OsFamily.LINUX)
    actions: list[tuple[object, str]] = [
        (step.run, "machine") for step in ORDER if isinstance(step, DiskStep)
    ]
    own = next(step for step in ORDER if step.name is TaskName.RUN_CUSTOM_TASK)
    assert isinstance(own, GuestStep)
    actions.append((own.action(family), "guest"))
    later = [(action, subject) for action, subject in actions if isinstance(action, Later)]
    assert len(later) == 3
    for action, subject in later:
        assert list(inspect.signature(action.load()).parameters) == [subject], action


def test_the_bsds_make_no_swap_and_grow_nothing_that_is_mounted() -> None:
    """R-TASK-4: nor machine ids, labels, and what is of Windows."""
    for name in (OsFamily.FREEBSD, OsFamily.NETBSD, OsFamily.OPENBSD):
        family = family_of(name)
        absent = {field.name for field in dataclasses.fields(family) if getattr(family, field.name) is None}
        assert absent == {
            "install_unattend",
            "filesystem_resize_mounted",
            "add_swap",
            "change_machine_id",
            "disable_remote_desktop_connections",
            "selinux_autorelabel",
        }
        assert family.default_users == ("root",)


@pytest.mark.parametrize("name", list(OsFamily))
def test_every_family_has_its_table(name: OsFamily) -> None:
    assert family_of(name).name is name
