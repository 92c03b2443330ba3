"""Who qemu runs as."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.locks import try_lock
from snf_image_host.reporter import Reporter
from snf_image_host.vm import account as account_module
from snf_image_host.vm import account_for

if TYPE_CHECKING:
    from tests.vm.conftest import Recorder


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch, settings: HelperSettings) -> HelperSettings:
    """As if we were root; the lock directory is ours and counts as root's."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    real_stat = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        state = real_stat(path, **how)
        fields = list(state)
        fields[4] = 0 if path == settings.runtime_dir else fields[4]
        return os.stat_result(fields)

    monkeypatch.setattr(os, "stat", stat)
    return dataclasses.replace(settings, uid_range=(2100000000, 2100000002))


def test_every_deployment_gets_a_user_of_its_own(as_root: HelperSettings, reporter: Reporter) -> None:
    """D-7, R-HLP-14: as long as it lasts, and no longer."""
    with (
        account_for(as_root, reporter) as one,
        account_for(as_root, reporter) as two,
        account_for(as_root, reporter) as three,
    ):
        assert {one.uid, two.uid, three.uid} == {2100000000, 2100000001, 2100000002}
        assert all(account.switch and account.gid == account.uid for account in (one, two, three))
        with pytest.raises(NodeError, match="no unused user id"), account_for(as_root, reporter):
            pass
    assert os.listdir(as_root.runtime_dir) == []
    with account_for(as_root, reporter) as again:
        assert again.uid in range(2100000000, 2100000003)


def test_a_uid_that_has_a_process_or_an_account_is_not_used(
    as_root: HelperSettings, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-7: what a killed deployment left behind must not meet the next one."""
    monkeypatch.setattr(account_module, "_uids_of_processes", lambda: frozenset({2100000000}))
    monkeypatch.setattr(account_module, "_name", lambda uid: "somebody" if uid == 2100000002 else None)
    for _ in range(5):
        with account_for(as_root, reporter) as account:
            assert account.uid == 2100000001


def test_uids_of_processes_are_seen() -> None:
    """D-7: our own is among them."""
    assert os.getuid() in account_module._uids_of_processes()


@pytest.mark.parametrize("uid_range", [(0, 10), (10, 5), (5, 2**32 - 1)])
def test_a_range_with_root_or_without_anything_is_refused(
    uid_range: tuple[int, int], as_root: HelperSettings, reporter: Reporter
) -> None:
    """D-7: HELPER_UID_RANGE never yields 0 nor the kernel's "no change"."""
    changed = dataclasses.replace(as_root, uid_range=uid_range)
    with pytest.raises(NodeError, match="HELPER_UID_RANGE"), account_for(changed, reporter):
        pass


def test_root_is_no_helper_user(as_root: HelperSettings, reporter: Reporter) -> None:
    """R-HLP-2: HELPER_USER=root is an error; so is one that does not exist."""
    for user, text in (("root", "never runs as root"), ("no-such-user", "no such account")):
        changed = dataclasses.replace(as_root, user=user)
        with pytest.raises(NodeError, match=text), account_for(changed, reporter):
            pass


def test_the_operators_user_is_used_with_a_warning_in_parallel(
    as_root: HelperSettings, reporter: Reporter, recorder: Recorder
) -> None:
    """D-7: HELPER_USER is obeyed; two at a time can reach each other, which is said."""
    changed = dataclasses.replace(as_root, user="nobody")
    with account_for(changed, reporter) as first:
        assert (first.uid, first.switch) == (65534, True)
        assert recorder.warnings == []
        with account_for(changed, reporter) as second:
            assert second.uid == 65534
    assert recorder.warnings == ["1 or more other deployments run as nobody at the same time"]


def test_without_root_there_is_only_the_caller(
    settings: HelperSettings, reporter: Reporter, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-7: no change of user; a HELPER_USER that cannot be obeyed is said."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with account_for(dataclasses.replace(settings, user="nobody"), reporter) as account:
        assert (account.uid, account.switch) == (4711, False)
    assert recorder.warnings == ["HELPER_USER=nobody needs root; the helper VM runs as the caller"]
    assert not os.path.exists(settings.runtime_dir)


def test_a_lock_directory_that_others_can_write_is_refused(
    as_root: HelperSettings, reporter: Reporter
) -> None:
    """R-HLP-14: whoever could remove a lock could make two deployments share a user."""
    os.makedirs(as_root.runtime_dir)
    os.chmod(as_root.runtime_dir, 0o777)
    with pytest.raises(NodeError, match="writable by nobody else"), account_for(as_root, reporter):
        pass


def test_a_lock_that_was_removed_meanwhile_does_not_count(tmp_path: Path) -> None:
    """R-HLP-14: the releaser removes its file; who waited on it must not think that he has the lock."""
    path = str(tmp_path / "x.lock")
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    os.unlink(path)
    second = try_lock(path)
    assert second is not None
    first.release()
    second.release()
