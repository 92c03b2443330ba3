"""Accounts of the guest: passwd and shadow, read and edited as bytes (R-TASK-PW-1 to R-TASK-PW-3).

Names are compared as whole fields and never as patterns. A file of 100,000 accounts is gone through once.
"""

from __future__ import annotations

import dataclasses
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.root import Root

PASSWD: Final = "/etc/passwd"  # noqa: S105 - a file
SHADOW: Final = "/etc/shadow"
_MAX_ID: Final = 2**32 - 2
_SHADOW_FIELDS: Final = 9
_PRINTABLE: Final = re.compile(r"[!-9;-~]{1,1024}\Z")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One line of passwd. ``shadowed``: its password stands in shadow."""

    name: str
    uid: int
    gid: int
    home: str
    shadowed: bool


def check_user_names(names: Iterable[str]) -> None:
    """:class:`RequestError` unless every name can stand in passwd (R-TASK-PW-1)."""
    for name in names:
        odd = any(mark in ":/" or mark.isspace() or unicodedata.category(mark) == "Cc" for mark in name)
        if not name or odd:
            raise RequestError(
                f"user name {name[:100]!r}: must not be empty nor hold a colon, a slash, white space "
                "or control characters"
            )


def asked_users(guest: Guest) -> tuple[str, ...]:
    """Whose password or keys are to be set; the family's default, with a warning, if nobody is named."""
    users = guest.job.change_password.users
    if not users:
        users = guest.family.default_users
        guest.warn(f"property USERS is not set: {', '.join(users)} it is")
    check_user_names(users)
    return tuple(dict.fromkeys(users))


def check_hash(password_hash: Secret | None) -> None:
    """:class:`RequestError` for a hash that cannot stand in a password file."""
    if password_hash is not None and not _PRINTABLE.match(password_hash.reveal()):
        raise RequestError(
            "the password hash is empty, too long, or holds a colon, white space or control characters"
        )


def find_accounts(root: Root, names: Iterable[str]) -> dict[str, Account]:
    """The accounts of ``names``; :class:`RequestError` names each that is missing (R-TASK-PW-2).

    Of several lines of one name the first counts, as it does for the C library.
    """
    wanted = {_bytes(name): name for name in names}
    found: dict[str, Account] = {}
    for line in io.BytesIO(_read(root, PASSWD)):
        name = wanted.get(line.partition(b":")[0])
        if name is not None and name not in found:
            found[name] = _account(name, line)
    _demand_all(PASSWD, wanted.values(), found)
    return found


def change_shadow(root: Root, hashes: Mapping[str, Secret], today: int) -> tuple[bytes, tuple[str, ...]]:
    """What ``/etc/shadow`` is to hold so that each user has the given hash, and the expired among them.

    ``today`` in days since the epoch. Only the hash and the day of the last change are replaced; the lock
    mark goes with the old hash. Nothing is written here. :class:`RequestError` for a missing user.
    """
    wanted = {_bytes(name): (name, secret) for name, secret in hashes.items()}
    lines: list[bytes] = []
    changed: set[str] = set()
    expired: list[str] = []
    for line in io.BytesIO(_read(root, SHADOW)):
        name, secret = wanted.get(line.partition(b":")[0], ("", None))
        if secret is None or name in changed:
            lines.append(line)
            continue
        changed.add(name)
        body = line.rstrip(b"\r\n")
        fields = body.split(b":")
        fields += [b""] * (_SHADOW_FIELDS - len(fields))
        fields[1] = secret.reveal().encode("ascii")
        fields[2] = b"%d" % today
        if fields[7].isdigit() and int(fields[7][:10]) <= today:
            expired.append(name)
        lines.append(b":".join(fields) + line[len(body) :])
    _demand_all(SHADOW, hashes, changed)
    return b"".join(lines), tuple(expired)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _read(root: Root, path: str) -> bytes:
    data = root.read_optional(path)
    if data is None:
        raise ImageError(f"{path}: missing in the image, so no password or key can be set")
    return data


def _demand_all(path: str, names: Iterable[str], found: Iterable[str]) -> None:
    missing = [name for name in names if name not in set(found)]
    if missing:
        raise RequestError(*(f"user {name!r}: not in {path} of the image" for name in missing))


def _account(name: str, line: bytes) -> Account:
    fields = line.rstrip(b"\r\n").split(b":")
    if len(fields) < 6 or not (_is_id(fields[2]) and _is_id(fields[3])):
        raise ImageError(f"{PASSWD}: the line of user {name!r} is malformed")
    return Account(
        name=name,
        uid=int(fields[2]),
        gid=int(fields[3]),
        home=fields[5].decode("utf-8", "surrogateescape"),
        shadowed=fields[1] == b"x",
    )


def _is_id(field: bytes) -> bool:
    return field.isdigit() and len(field) <= 10 and int(field) <= _MAX_ID
