"""Task ChangePassword for the BSDs: master.passwd and its databases (R-TASK-PW-4, R-TASK-PW-5)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.unix import accounts, authorized_keys, hashing

MASTER: Final = "/etc/master.passwd"
RC_LOCAL: Final = "/etc/rc.local"
KEPT_RC_LOCAL: Final = "/etc/rc.local.snf-image"
_FIELDS: Final = 10
_CHANGE, _EXPIRE = 5, 6
_MADE_BY: Final = b"#!/bin/sh\n# Made by snf-image:"
FIRST_BOOT: Final = (
    _MADE_BY
    + f""" makes the password databases at the first boot, then gives way to what was here.
PATH=/sbin:/bin:/usr/sbin:/usr/bin
export PATH
pwd_mkdb -p {MASTER}
if [ -f {KEPT_RC_LOCAL} ]; then
    mv -f {KEPT_RC_LOCAL} {RC_LOCAL}
    . {RC_LOCAL}
else
    rm -f {RC_LOCAL}
fi
""".encode("ascii")
)
_METHODS: Final[dict[OsFamily, hashing.Method]] = {
    OsFamily.FREEBSD: "sha512",
    OsFamily.OPENBSD: "blowfish",
    OsFamily.NETBSD: "sha1",
}
_VERIFIABLE: Final[dict[OsFamily, frozenset[str]]] = {
    OsFamily.FREEBSD: frozenset(("md5", "blowfish", "sha256", "sha512")),
    OsFamily.OPENBSD: frozenset(("blowfish",)),
    OsFamily.NETBSD: frozenset(("md5", "blowfish", "sha1")),
}
"""What each system's crypt(3) knows."""


def change_password(guest: Guest) -> None:
    """Set what was asked for every user, or, if one of them is missing, nothing at all (R-TASK-PW-2)."""
    asked = guest.job.change_password
    if asked.password is None and asked.password_hash is None and not asked.keys:
        guest.warn("no password and no key given: passwords stay as they are")
        return
    accounts.check_hash(asked.password_hash)
    users = accounts.asked_users(guest)
    master: bytes | None = None
    if asked.password is not None or asked.password_hash is not None:
        old = _read_master(guest)
        today = guest.job.clock
        with_hashes(old, dict.fromkeys(users, Secret("*")), today)  # a missing user is told before hashing
        master = with_hashes(old, _hashes(guest, users), today)
    files: tuple[authorized_keys.KeyFile, ...] = ()
    if asked.keys:
        found = accounts.find_accounts(guest.root, users)
        files = authorized_keys.key_files(guest, [found[name] for name in users])
    if master is not None:
        guest.root.write(MASTER, master, mode=0o600, detail=f"password of {', '.join(users)}")
        _drop_databases(guest)
        _make_them_at_boot(guest)
    for file in files:
        authorized_keys.add_keys(guest, file, asked.keys)


def _read_master(guest: Guest) -> bytes:
    data = guest.root.read_optional(MASTER)
    if data is None:
        raise ImageError(f"{MASTER}: missing in the image, so no password can be set")
    return data


def with_hashes(data: bytes, hashes: Mapping[str, Secret], now: float) -> bytes:
    """``data`` of master.passwd so that each user has the given hash; nothing is written.

    Dates of change and expiry (seconds since the epoch) that have passed become 0, or the new password
    would not let anybody in. :class:`RequestError` names each user that is missing.
    """
    wanted = {name.encode("utf-8", "surrogateescape"): (name, secret) for name, secret in hashes.items()}
    lines: list[bytes] = []
    changed: set[str] = set()
    for line in io.BytesIO(data):
        name, secret = wanted.get(line.partition(b":")[0], ("", None))
        if secret is None or name in changed:
            lines.append(line)
            continue
        changed.add(name)
        body = line.rstrip(b"\r\n")
        fields = body.split(b":")
        if len(fields) != _FIELDS:
            raise ImageError(f"{MASTER}: the line of user {name!r} has {len(fields)} fields, not {_FIELDS}")
        fields[1] = secret.reveal().encode("ascii")
        for index in (_CHANGE, _EXPIRE):
            if fields[index].isdigit() and 0 < int(fields[index][:19]) <= now:
                fields[index] = b"0"
        lines.append(b":".join(fields) + line[len(body) :])
    missing = [name for name in hashes if name not in changed]
    if missing:
        raise RequestError(*(f"user {name!r}: not in {MASTER} of the image" for name in missing))
    return b"".join(lines)


def _hashes(guest: Guest, users: Sequence[str]) -> dict[str, Secret]:
    asked, family = guest.job.change_password, guest.family.name
    if asked.password_hash is not None:
        _warn_if_unverifiable(guest, hashing.method_of(asked.password_hash))
        return dict.fromkeys(users, asked.password_hash)
    if asked.password is None:
        return {}
    method = _METHODS[family] if asked.method is None or asked.method == "auto" else asked.method
    _warn_if_unverifiable(guest, method)
    hashes = hashing.Hashes(asked.password, asked.made_hashes, family=family)
    return {name: hashes.next(method) for name in users}


def _warn_if_unverifiable(guest: Guest, method: hashing.Method | None) -> None:
    if method is not None and method not in _VERIFIABLE[guest.family.name]:
        guest.warn(f"{guest.family.name} does not know {method}: login with this password will fail")


def _drop_databases(guest: Guest) -> None:
    """The system looks into the databases and not into the text: the old secret one must not remain."""
    guest.root.remove("/etc/spwd.db")
    if guest.family.name is OsFamily.NETBSD:
        guest.root.remove("/etc/pwd.db.tmp")
        guest.root.remove("/etc/spwd.db.tmp")
        guest.root.write("/etc/spwd.db", b"", mode=0o600)


def _make_them_at_boot(guest: Guest) -> None:
    old = guest.root.read_optional(RC_LOCAL)
    if old is not None and not old.startswith(_MADE_BY):
        if guest.root.lstat(KEPT_RC_LOCAL) is not None:
            guest.root.remove(KEPT_RC_LOCAL)
        guest.root.rename(RC_LOCAL, KEPT_RC_LOCAL)
    guest.root.write(RC_LOCAL, FIRST_BOOT, mode=0o755)
