"""Task DeleteSSHKeys for Linux (R-TASK-SSH-1 to R-TASK-SSH-5)."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import TaskName
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init
from snf_image_helper.linux.distribution import LinuxFamily, identify
from snf_image_helper.linux.hostname import short_name
from snf_image_helper.root import Root
from snf_image_helper.unix.ssh_host_keys import make_host_keys, remove_host_keys

_SSHD: Final = ("/usr/sbin/sshd", "/sbin/sshd")
_DPKG_STATUS: Final = "/var/lib/dpkg/status"
_MAX_DPKG_STATUS: Final = 64 * 1024 * 1024


def delete_ssh_keys(guest: Guest) -> None:
    """No two instances of one image share a host key.

    Debian and its relatives make host keys when the package is installed and never again, so that theirs
    are made here; the others make missing ones at boot.
    """
    if guest.job.cloud_init:
        cloud_init.write_config(guest, TaskName.DELETE_SSH_KEYS, {"ssh_deletekeys": True})
        return
    old = remove_host_keys(guest)
    if identify(guest.root).family is LinuxFamily.DEBIAN and _has_server(guest.root):
        make_host_keys(guest, old, f"root@{short_name(guest.job.assign_hostname.name)}")


def _has_server(root: Root) -> bool:
    if any(root.is_file(path) for path in _SSHD):
        return True
    status = root.read_optional(_DPKG_STATUS, _MAX_DPKG_STATUS) or b""
    for paragraph in status.split(b"\n\n"):
        if paragraph.lstrip(b"\n").startswith(b"Package: openssh-server\n"):
            return b"\nStatus: install ok installed\n" in paragraph
    return False
