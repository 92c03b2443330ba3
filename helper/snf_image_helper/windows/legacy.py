"""The tasks of Windows before 6.0, which sysprep.inf configures (R-TASK-UNA-4, -11, R-TASK-WPW-3)."""

from __future__ import annotations

import base64
import importlib.resources
import posixpath
from collections.abc import Sequence
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.guest import Guest
from snf_image_helper.windows import installation, setup_complete, time_zones
from snf_image_helper.windows.hostname import computer_name
from snf_image_helper.windows.layout import (
    ACCOUNTS_COMMAND,
    PRIVATE,
    PRIVATE_DIRECTORY,
    SCRIPTS,
    SETUP_COMPLETE,
    lines,
    windows_path,
)
from snf_image_helper.windows.password import asked_password, wanted_users
from snf_image_helper.windows.sysprep_inf import IniFile

SYSPREP: Final = "/sysprep"
SYSPREP_INF: Final = f"{SYSPREP}/sysprep.inf"
DEFAULT_FILES: Final = r"C:\sysprep\i386"
MAX_PASSWORD: Final = 127
MAX_LINE: Final = 8000
_MAX_FILE: Final = 1024 * 1024
_ESCAPED: Final = frozenset('()!^"<>&|')


def install_unattend(guest: Guest) -> None:
    """See to it that there is a sysprep.inf, and that mini-setup runs our two scripts at its end."""
    root, asked = guest.root, guest.job.install_unattend
    installation.demand_family(root, OsFamily.WINDOWS_LEGACY)
    installation.demand_mini_setup(root)
    present = root.is_file(SYSPREP_INF)
    if present and not asked.ignore_existing:
        guest.warn(f"{SYSPREP_INF}: the image's own answer file is kept and extended")
        inf = _load(guest)
    else:
        inf = _provided(guest)
    files = _files_path(inf)
    if asked.product_key is not None:
        inf.set_value("UserData", "ProductKey", asked.product_key.reveal())
    root.mkdir(SYSPREP, mode=PRIVATE_DIRECTORY)
    root.write(
        SYSPREP_INF, inf.data(), mode=PRIVATE, force=asked.product_key is not None, detail="answer file"
    )
    setup_complete.install(guest, [SYSPREP_INF])
    setup_complete.install_placeholders(guest)
    _run_at_the_end(guest, f"{files}/$OEM$/CmdLines.txt")


def assign_hostname(guest: Guest) -> None:
    name = computer_name(guest.job.assign_hostname.name)
    inf = _load(guest)
    inf.set_value("UserData", "ComputerName", name)
    guest.root.write(SYSPREP_INF, inf.data(), mode=PRIVATE, detail="computer name")


def change_password(guest: Guest) -> None:
    """Have the password of every user set by a batch file at the end of mini-setup."""
    password = asked_password(guest)
    if password is None:
        return
    _check(password)
    inf = _load(guest)
    users = wanted_users(guest)
    command = script(users, password)
    if not inf.value("GuiUnattended", "AdminPassword"):
        inf.set_value("GuiUnattended", "AdminPassword", password.reveal())
        inf.set_value("GuiUnattended", "EncryptedAdminPassword", "No")
    if not setup_complete.is_installed(guest):
        setup_complete.install(guest, [SYSPREP_INF])
    detail = f"password of {', '.join(users)}"
    guest.root.write(SYSPREP_INF, inf.data(), mode=PRIVATE, force=True, detail=detail)
    guest.root.mkdir(SCRIPTS, mode=PRIVATE_DIRECTORY)
    # Forced: a file of this name that the image has may be for everybody to read.
    guest.root.write(ACCOUNTS_COMMAND, command, mode=PRIVATE, force=True, detail=detail)


def script(users: Sequence[str], password: Secret) -> bytes:
    """A batch file that sets one password for several users.

    There is no PowerShell: each word goes through two layers of quoting, that of the C run time and that of
    cmd, which never enters its quoted state, because its quotes are escaped too.
    """
    words = ("/ACTIVE:YES", "/EXPIRES:NEVER", "/PASSWORDREQ:YES", "/Y")
    commands = [
        " ".join(("net user", _quoted(name), _quoted(password.reveal()), *words, ">nul 2>&1"))
        for name in users
    ]
    if any(len(command) > MAX_LINE for command in commands):
        raise RequestError(f"user name and password make a line of more than {MAX_LINE} bytes")
    return lines("@echo off", "setlocal DisableDelayedExpansion", *commands, "exit /b 0")


def _quoted(word: str) -> str:
    """A word as cmd hands it on to a program unchanged."""
    quoted, backslashes = '"', 0
    for character in word:
        if character == "\\":
            backslashes += 1
            continue
        # Back-slashes count only before a quote.
        quoted += "\\" * (2 * backslashes + 1 if character == '"' else backslashes) + character
        backslashes = 0
    quoted += "\\" * (2 * backslashes) + '"'
    return "".join("%%" if char == "%" else f"^{char}" if char in _ESCAPED else char for char in quoted)


def _check(password: Secret) -> None:
    text = password.reveal()
    if not text.isascii():
        raise RequestError("the password has characters outside of ASCII, which this Windows cannot be given")
    if not 0 < len(text) <= MAX_PASSWORD:
        raise RequestError(f"the password is empty or longer than the {MAX_PASSWORD} characters of Windows")
    if not text.isprintable():
        raise RequestError("the password has control characters, which this Windows cannot be given")


def _load(guest: Guest) -> IniFile:
    try:
        return IniFile(guest.root.read(SYSPREP_INF, _MAX_FILE), SYSPREP_INF)
    except FileNotFoundError:
        excluded = any(entry.task == "InstallUnattend" for entry in guest.job.skipped)
        reason = ", because task InstallUnattend is excluded" if excluded else ""
        raise ImageError(f"the image has no {SYSPREP_INF}{reason}") from None


def _provided(guest: Guest) -> IniFile:
    """The answer file of the request, or the one that we bring, with its time zone set (T-130)."""
    asked = guest.job.install_unattend
    if asked.answer_file is not None:
        try:
            return IniFile(base64.b64decode(asked.answer_file.reveal(), validate=True), SYSPREP_INF)
        except ValueError:
            raise TaskError("the answer file that was given is not valid base64") from None
    shipped = importlib.resources.files(__package__).joinpath("sysprep.inf").read_bytes()
    inf = IniFile(shipped, SYSPREP_INF)
    inf.set_value("GuiUnattended", "TimeZone", time_zones.index(asked.time_zone))
    return inf


def _files_path(inf: IniFile) -> str:
    r"""The door's name of InstallFilesPath, which must lie below ``C:\sysprep``; it is set if missing."""
    value = inf.value("Unattended", "InstallFilesPath")
    if not value:
        inf.set_value("Unattended", "InstallFilesPath", DEFAULT_FILES)
        value = DEFAULT_FILES.encode("ascii")
    text = value.decode("ascii", "replace")
    drive, rest = text[:2].upper(), text[2:].replace("\\", "/")
    path = posixpath.normpath(f"/{rest.lstrip('/')}")
    if drive != "C:" or "\ufffd" in path or not path.lower().startswith(f"{SYSPREP}/"):
        raise ImageError(rf"{SYSPREP_INF}: InstallFilesPath {text[:128]!r} is not below C:\sysprep")
    return path


def _run_at_the_end(guest: Guest, path: str) -> None:
    """Have mini-setup run our two scripts (CmdLines.txt), each once."""
    commands = IniFile(guest.root.read_optional(path, _MAX_FILE) or b"", path)
    for script_path in (ACCOUNTS_COMMAND, SETUP_COMPLETE):
        commands.ensure_line("Commands", f'"{windows_path(script_path)}"'.encode("ascii"))
    guest.root.mkdir(posixpath.dirname(path))
    guest.root.write(path, commands.data(), detail="commands at the end of mini-setup")
