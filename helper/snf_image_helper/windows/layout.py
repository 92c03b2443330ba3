"""Where our files stand in a Windows, as the helper's door names them and as Windows does.

The names of the two files below SnfScripts are a contract: images refer to them in answer files of their own
(R-TASK-UNA-8).
"""

from __future__ import annotations

from typing import Final

SCRIPTS: Final = "/Windows/SnfScripts"
ACCOUNTS_COMMAND: Final = f"{SCRIPTS}/ChangeAdminPassword.cmd"
ACCOUNTS_SCRIPT: Final = f"{SCRIPTS}/ChangeAdminPassword.ps1"
EXTEND: Final = f"{SCRIPTS}/ExtendFilesystem"
SETUP_COMPLETE: Final = "/Windows/Setup/Scripts/SetupComplete.cmd"

RUN_ACCOUNTS_COMMAND: Final = r"C:\Windows\SnfScripts\ChangeAdminPassword.cmd"
RUN_EXTEND: Final = r"diskpart.exe /s C:\Windows\SnfScripts\ExtendFilesystem"

PRIVATE: Final = 0o600
"""Mode of files that hold secrets, or that Windows runs as SYSTEM: for SYSTEM and administrators alone."""
PRIVATE_DIRECTORY: Final = 0o700


def windows_path(path: str) -> str:
    r"""A path of the door as Windows writes it on its system drive: ``C:\Windows``."""
    return "C:" + path.replace("/", "\\")


def lines(*texts: str) -> bytes:
    """A script's text with the line ends of Windows (R-TASK-UNA-9)."""
    return "".join(f"{text}\r\n" for text in texts).encode("ascii")
