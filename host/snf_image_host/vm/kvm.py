"""Whether the kernel lets the helper VM's account use /dev/kvm, and through which group (D-1)."""

from __future__ import annotations

import dataclasses
import grp
import os
import stat
from typing import Final

from snf_image_host.vm.account import Account

KVM_DEVICE: Final = "/dev/kvm"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KvmAccess:
    """``reason``: why not, empty if ``allowed``. ``groups``: what the process must keep for it."""

    allowed: bool
    reason: str = ""
    groups: tuple[int, ...] = ()


def kvm_access(account: Account, device: str = KVM_DEVICE) -> KvmAccess:
    """What ``account`` may do, told from the device's owner, group and mode."""
    try:
        state = os.stat(device)
    except FileNotFoundError:
        return KvmAccess(allowed=False, reason=f"there is no {device}")
    except OSError as error:
        return KvmAccess(allowed=False, reason=f"{device}: {error.strerror}")
    if not stat.S_ISCHR(state.st_mode):
        return KvmAccess(allowed=False, reason=f"{device} is not a device")
    if not account.switch:
        allowed = os.access(device, os.R_OK | os.W_OK)
        return KvmAccess(allowed=True) if allowed else _denied(device, state)
    if state.st_mode & 0o006 == 0o006 or (state.st_uid == account.uid and state.st_mode & 0o600 == 0o600):
        return KvmAccess(allowed=True)
    # Root's own group is never handed to a program that runs untrusted guests.
    if state.st_mode & 0o060 == 0o060 and state.st_gid != 0:
        return KvmAccess(allowed=True, groups=(state.st_gid,))
    return _denied(device, state)


def _denied(device: str, state: os.stat_result) -> KvmAccess:
    try:
        group = grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        group = str(state.st_gid)
    mode = f"group {group} and mode {stat.S_IMODE(state.st_mode):04o}"
    return KvmAccess(
        allowed=False, reason=f"permission denied: {device} has {mode}, usual are group kvm and 0660"
    )
