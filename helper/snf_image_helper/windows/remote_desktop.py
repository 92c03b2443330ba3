"""Task DisableRemoteDesktopConnections: nobody logs in from afar before setup is done (R-TASK-RDP-1, -2)."""

from __future__ import annotations

from typing import Final

from snf_image_helper.errors import ImageError
from snf_image_helper.guest import Guest
from snf_image_helper.windows import installation, registry, setup_complete
from snf_image_helper.windows.registry import Hive

VALUE: Final = "fDenyTSConnections"
_KEY: Final = r"HKLM\SYSTEM\CurrentControlSet\Control\Terminal Server"


def disable_remote_desktop_connections(guest: Guest) -> None:
    """Deny connections, and have the script that ends setup restore what was there (T-104, T-105)."""
    root = guest.root
    with registry.opened(root, registry.SYSTEM) as hive:
        key = rf"{installation.control_set(hive)}\Control\Terminal Server"
        if not hive.has_key(key):
            raise ImageError(f"{registry.SYSTEM}: the key {key} is missing")
        original = hive.number(key, VALUE)
        if original is None and hive.has_value(key, VALUE):
            raise ImageError(f"{registry.SYSTEM}: {key}: {VALUE} is not a DWORD")
    if registry.has_pending_log(root, registry.SYSTEM):
        guest.warn(
            f"{registry.SYSTEM}: Windows has not written all of its changes into this hive; those that "
            "wait in its log are lost"
        )
    # Before the hive: what denies must never be without what restores.
    # Where connections are not denied, nobody waits to have them restored: what the script says is old.
    setup_complete.set_restoring_lines(guest, _restoring(original), anew=original != 1)
    if original != 1:
        registry.change(root, registry.SYSTEM, lambda hive: _deny(hive, key), detail=VALUE)


def _deny(hive: Hive, key: str) -> None:
    hive.set_number(key, VALUE, 1)


def _restoring(original: int | None) -> str:
    if original is None:
        return f'@reg delete "{_KEY}" /v {VALUE} /f >nul 2>&1'
    return f'@reg add "{_KEY}" /v {VALUE} /t REG_DWORD /d {original} /f >nul 2>&1'
