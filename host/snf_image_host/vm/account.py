"""Who qemu, and every other program that handles what is untrusted, runs as (D-7).

Processes of one user can write each other's memory. As root, each deployment therefore gets a user of its
own, a number that no account has, for as long as it runs; without root there is only the caller.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import random
from collections.abc import Iterator
from typing import Final

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.locks import lock_directory, try_lock
from snf_image_host.moments import uninterrupted
from snf_image_host.reporter import Reporter

_ATTEMPTS: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user to run programs as. ``switch``: it is another than ours, the launcher changes to it."""

    uid: int
    gid: int
    switch: bool

    @staticmethod
    def of_caller() -> Account:
        """Ourselves: programs cannot gain anything, but they lose nothing either."""
        return Account(uid=os.geteuid(), gid=os.getegid(), switch=False)


@contextlib.contextmanager
def account_for(settings: HelperSettings, reporter: Reporter) -> Iterator[Account]:
    """The account of one deployment, or of one fetch, while the context lasts.

    As root: ``settings.user`` if the operator set one, else an unused uid of ``settings.uid_range``.
    Otherwise the caller. :class:`NodeError` if there is none to be had.
    """
    if os.geteuid() != 0:
        if settings.user is not None and settings.user != _name(os.geteuid()):
            reporter.warn(f"HELPER_USER={settings.user} needs root; the helper VM runs as the caller")
        yield Account.of_caller()
    elif settings.user is not None:
        with _operators_account(settings.user, settings.runtime_dir, reporter) as account:
            yield account
    else:
        with _own_uid(settings.uid_range, settings.runtime_dir) as uid:
            yield Account(uid=uid, gid=uid, switch=True)


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


@contextlib.contextmanager
def _operators_account(user: str, runtime_dir: str, reporter: Reporter) -> Iterator[Account]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise NodeError(f"HELPER_USER={user}: there is no such account on this node") from None
    if entry.pw_uid == 0:
        raise NodeError(
            f"HELPER_USER={user}: the helper VM never runs as root",
            hint="leave HELPER_USER unset: each deployment then runs under a user of its own",
        )
    directory = lock_directory(runtime_dir)
    with contextlib.ExitStack() as locks:
        for slot in range(_ATTEMPTS):
            with uninterrupted():
                lock = try_lock(os.path.join(directory, f"user-{entry.pw_uid}-{slot}.lock"))
                if lock is not None:
                    locks.callback(lock.release)
            if lock is not None:
                break
        if slot > 0:
            reporter.warn(
                f"{slot} or more other deployments run as {user} at the same time",
                details="leave HELPER_USER unset: one escaped helper could reach the others' disks",
            )
        yield Account(uid=entry.pw_uid, gid=entry.pw_gid, switch=True)


@contextlib.contextmanager
def _own_uid(uid_range: tuple[int, int], runtime_dir: str) -> Iterator[int]:
    first, last = uid_range
    if not 0 < first <= last < 2**32 - 1:
        raise NodeError(f"HELPER_UID_RANGE: {first}-{last} is not a range of user ids above 0")
    directory = lock_directory(runtime_dir)
    in_use = _uids_of_processes()
    count = last - first + 1
    # Any start will do; a random one spares parallel deployments each other's locks.
    start = random.randrange(count)  # noqa: S311 - not a secret
    for step in range(min(count, _ATTEMPTS)):
        uid = first + (start + step) % count
        if uid in in_use or _name(uid) is not None:
            continue
        with contextlib.ExitStack() as undo:
            with uninterrupted():
                lock = try_lock(os.path.join(directory, f"uid-{uid}.lock"))
                if lock is not None:
                    undo.callback(lock.release)
            if lock is not None:
                yield uid
                return
    raise NodeError(
        f"no unused user id in HELPER_UID_RANGE {first}-{last}",
        hint="every one is in use by a process or an account; widen HELPER_UID_RANGE",
    )


def _uids_of_processes() -> frozenset[int]:
    """Users that have a process: one that a killed deployment left behind keeps its uid from reuse."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                found.add(os.stat(f"/proc/{name}").st_uid)
    return frozenset(found)
