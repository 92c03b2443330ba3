"""Task ChangePassword for Windows: a script that the first start runs once (R-TASK-WPW-1, R-TASK-WPW-2).

Nothing of a password meets a command interpreter or a command line: names and passwords stand in a PowerShell
script as base64 of UTF-16, which has no character that any quoting could change.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Final

from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.windows import installation, registry, setup_complete
from snf_image_helper.windows.install_unattend import answer_files
from snf_image_helper.windows.layout import (
    ACCOUNTS_COMMAND,
    ACCOUNTS_SCRIPT,
    PRIVATE,
    PRIVATE_DIRECTORY,
    SCRIPTS,
    lines,
)

MAX_PASSWORD: Final = 256
"""UTF-16 units that Windows takes for a password."""
_MAX_USER: Final = 256
# What no account of Windows can have in its name, control characters aside.
_NOT_IN_NAMES: Final = re.compile(r'["/\\\[\]:;|=,+*?<>\x00-\x1f\x7f]')

_COMMAND: Final = lines(
    "@rem Sets the passwords of this deployment; wiped with the script that it starts.",
    # One line: it is read as a whole, so that the file may go while it runs. Setup shall not fail by it.
    r'@"%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe" -NoLogo -NoProfile -NonInteractive '
    r'-ExecutionPolicy Bypass -File "%~dpn0.ps1" & exit /b 0',
)
_SCRIPT_HEAD: Final = """\
# Sets the passwords of this deployment, then wipes itself; written for PowerShell 2.0 and later.
$ErrorActionPreference = 'Stop'
$log = Join-Path $env:SystemRoot 'Temp\\snf-image-password.log'
$failures = 0

function Get-Text([string] $encoded) {
    [Text.Encoding]::Unicode.GetString([Convert]::FromBase64String($encoded))
}

function Set-Account([string] $name, [string] $password) {
    $account = [ADSI] ('WinNT://./' + $name + ',user')
    $account.SetPassword($password)
    $account.PasswordExpired = 0
    $account.SetInfo()
    $net = Join-Path $env:SystemRoot 'System32\\net.exe'
    & $net user $name /active:yes /expires:never | Out-Null
    if ($LASTEXITCODE -ne 0) { throw 'the account cannot be enabled' }
}

function Remove-Wiped([string] $path) {
    if (Test-Path -LiteralPath $path) {
        $zeros = New-Object byte[] (Get-Item -LiteralPath $path).Length
        $stream = [IO.File]::Open($path, 'Open', 'Write')
        $stream.Write($zeros, 0, $zeros.Length)
        $stream.Close()
        Remove-Item -LiteralPath $path -Force
    }
}

$accounts = @(
"""
_SCRIPT_TAIL: Final = """\
)
foreach ($account in $accounts) {
    try {
        Set-Account (Get-Text $account.Name) (Get-Text $account.Password)
    } catch {
        $failures++
        Add-Content -LiteralPath $log -Value ((Get-Text $account.Name) + ': ' + $_.Exception.Message)
    }
}
# What failed is tried again at the end of setup, where accounts of the answer file exist; then all is wiped.
if ($failures -eq 0) {
    $script = $MyInvocation.MyCommand.Path
    Remove-Wiped $script
    Remove-Wiped ([IO.Path]::ChangeExtension($script, '.cmd'))
}
exit $failures
"""


def change_password(guest: Guest) -> None:
    """Have the password of every user set at the first start; nothing is written if one does not exist."""
    password = asked_password(guest)
    if password is None:
        return
    check_password(password)
    files = answer_files(guest)
    local = [name for file in files for name in file.local_accounts()]
    users = wanted_users(guest, local)
    command = ACCOUNTS_COMMAND.rpartition("/")[2]
    for file in files:
        if not file.has_command(command):
            raise ImageError(
                f"{file.path}: runs no {command} in pass specialize, so that no password would be set; "
                "task InstallUnattend, which adds it, is excluded"
            )
    if not setup_complete.is_installed(guest):
        setup_complete.install(guest, [file.path for file in files])
    guest.root.mkdir(SCRIPTS, mode=PRIVATE_DIRECTORY)
    detail = f"password of {', '.join(users)}"
    # Forced: files of these names that the image has may be for everybody to read, or to write.
    guest.root.write(ACCOUNTS_SCRIPT, script(users, password), mode=PRIVATE, force=True, detail=detail)
    guest.root.write(ACCOUNTS_COMMAND, _COMMAND, mode=PRIVATE, force=True, detail=detail)


def asked_password(guest: Guest) -> Secret | None:
    """The password to set; None, with a warning, if there is none. Hashes and keys are not for Windows."""
    asked = guest.job.change_password
    if asked.password_hash is not None:
        raise RequestError("a password hash was given: Windows takes a password only")
    if asked.keys:
        guest.warn("authorized keys are not for Windows and are ignored")
    if asked.password is None:
        guest.warn("no password given: passwords stay as they are")
    return asked.password


def check_password(password: Secret) -> None:
    units = len(password.reveal().encode("utf-16-le")) // 2
    if units == 0 or units > MAX_PASSWORD:
        raise RequestError(f"the password is empty or longer than the {MAX_PASSWORD} characters of Windows")


def wanted_users(guest: Guest, local: Iterable[str] = ()) -> tuple[str, ...]:
    """Whose password is set, each once; :class:`RequestError` if one is no account (T-103).

    ``local``: accounts that the answer file makes.
    """
    users = guest.job.change_password.users
    if not users:
        users = guest.family.default_users
        guest.warn(f"property USERS is not set: {', '.join(users)} it is")
    for name in users:
        if _NOT_IN_NAMES.search(name) or not name.strip(" .") or len(name) > _MAX_USER:
            raise RequestError(f"property USERS: {name!r} cannot be the name of a Windows account")
    known = {name.casefold() for name in (*installation.users(guest.root), *local)}
    missing = [name for name in users if name.casefold() not in known]
    if missing:
        raise RequestError(
            f"user {', '.join(map(repr, missing))} does not exist in {registry.SAM}, nor does "
            "the answer file make it"
        )
    return tuple({name.casefold(): name for name in reversed(users)}.values())[::-1]


def script(users: Sequence[str], password: Secret) -> bytes:
    """The PowerShell script that sets one password for several users."""
    secret = _encoded(password.reveal())
    entries = [f"    @{{ Name = '{_encoded(name)}'; Password = '{secret}' }}" for name in users]
    text = _SCRIPT_HEAD + ",\n".join(entries) + "\n" + _SCRIPT_TAIL
    return lines(*text.splitlines())


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-16-le")).decode("ascii")
