"""Keys with which users may log in (R-TASK-KEY-1 to R-TASK-KEY-3)."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Sequence
from typing import Final

from snf_image_helper import edit
from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.unix import sshd_config
from snf_image_helper.unix.accounts import Account

DEFAULT_FILE: Final = ".ssh/authorized_keys"
_TYPE: Final = re.compile(rb"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]++")
_OPTIONS: Final = re.compile(rb"""(?:[^ \t"\\]|\\.|"(?:[^"\\]|\\.)*+")++""", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """Where the keys of an account belong, as a path of the guest."""

    account: Account
    path: str

    @property
    def in_home(self) -> bool:
        home = self.account.home.rstrip("/")
        return self.path.startswith(f"{home}/")


def key_files(guest: Guest, accounts: Sequence[Account]) -> tuple[KeyFile, ...]:
    """The file of each account, as the guest's sshd would look for it. Nothing is written.

    An account whose keys sshd reads from no file is left out, with a warning. :class:`ImageError` for a
    file that cannot be used.
    """
    pattern = _pattern(guest)
    if pattern is None:
        for account in accounts:
            guest.warn(f"user {account.name!r}: sshd_config says AuthorizedKeysFile none; no key is added")
        return ()
    files = tuple(KeyFile(account=account, path=_path(pattern, account)) for account in accounts)
    for file in files:
        _demand_own_links(guest, file)
        _demand_directories(guest, file)
        guest.root.read_optional(file.path)
    return files


def _pattern(guest: Guest) -> str | None:
    """AuthorizedKeysFile's first file; None for ``none``."""
    found = sshd_config.directives(guest.root, guest.warn)
    if found is None:
        guest.warn(f"{sshd_config.CONFIG}: missing; keys go to {DEFAULT_FILE} in the home directory")
        return DEFAULT_FILE
    arguments = sshd_config.first_value(found, "AuthorizedKeysFile") or (DEFAULT_FILE,)
    return None if arguments[0].lower() == "none" else arguments[0]


def _path(pattern: str, account: Account) -> str:
    if not account.home.startswith("/"):
        raise ImageError(f"user {account.name!r}: the home directory {account.home!r} is no absolute path")
    values = {"%": "%", "h": account.home, "u": account.name, "U": str(account.uid)}
    path = ""
    rest = pattern
    while rest:
        text, mark, rest = rest.partition("%")
        path += text
        if mark:
            if rest[:1] not in values or not rest:
                raise ImageError(f"AuthorizedKeysFile {pattern!r}: unknown token %{rest[:1]}")
            path += values[rest[0]]
            rest = rest[1:]
    return posixpath.join(account.home, path)


def _demand_own_links(guest: Guest, file: KeyFile) -> None:
    """sshd would not trust, and we would not follow, a link that another user can turn (R-TASK-KEY-3)."""
    for link in guest.root.links(file.path):
        if link.uid not in (0, file.account.uid):
            raise ImageError(
                f"{file.path}: {link.path} is a link of uid {link.uid}, "
                f"not of user {file.account.name!r} or root"
            )


def _demand_directories(guest: Guest, file: KeyFile) -> None:
    """Whatever stands on the way is a directory: told before anything is written."""
    directory = file.path
    while (directory := posixpath.dirname(directory)).strip("/"):  # "//" is its own parent
        if guest.root.exists(directory) and not guest.root.is_dir(directory):
            raise ImageError(f"{directory}: is not a directory")


def add_keys(guest: Guest, file: KeyFile, keys: Sequence[str]) -> None:
    """Append the keys that are not there yet; the file and its directories are made as they should be."""
    account = file.account
    _make_directories(guest, file)
    existed = guest.root.exists(file.path)
    old = guest.root.read_optional(file.path) or b""
    new = with_keys(old, [key.encode("utf-8", "surrogateescape") for key in keys])
    guest.root.write(file.path, new, mode=0o600, uid=account.uid, gid=account.gid)
    if existed and file.in_home:
        _own(guest, file)


def _own(guest: Guest, file: KeyFile) -> None:
    """sshd ignores a file that others may write; it reads it as the user."""
    account = file.account
    status = guest.root.stat(file.path)
    if status is None or (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (
        account.uid, account.gid, 0o600,
    ):  # fmt: skip
        return
    guest.root.set_attributes(file.path, mode=0o600, uid=account.uid, gid=account.gid)


def _make_directories(guest: Guest, file: KeyFile) -> None:
    account = file.account
    if file.in_home and not guest.root.exists(account.home):
        guest.warn(f"user {account.name!r}: home directory {account.home} is missing, made")
        guest.root.mkdir(posixpath.dirname(account.home.rstrip("/")) or "/")
        guest.root.mkdir(account.home, mode=0o700, uid=account.uid, gid=account.gid)
    directory = posixpath.dirname(file.path)
    if file.in_home:
        guest.root.mkdir(directory, mode=0o700, uid=account.uid, gid=account.gid)
    else:
        guest.root.mkdir(directory)


def with_keys(data: bytes, keys: Sequence[bytes]) -> bytes:
    """``data`` with the keys appended whose type and blob no line of it has."""
    lines = edit.Lines(data)
    known = {identity for identity in map(_identity, lines) if identity is not None}
    for key in keys:
        identity = _identity(key)
        if identity is None or identity not in known:
            lines.append(key.strip())
            known |= {identity} if identity is not None else set()
    return lines.data()


def _identity(line: bytes) -> tuple[bytes, bytes] | None:
    """Type and blob of a line of authorized_keys; None if it holds no key."""
    line = line.strip()
    if line.startswith(b"#"):
        return None
    words = line.split(None, 2)
    if words and not _TYPE.fullmatch(words[0]):
        options = _OPTIONS.match(line)
        words = line[options.end() :].split(None, 2) if options else []
    return (words[0], words[1]) if len(words) > 1 and _TYPE.fullmatch(words[0]) else None
