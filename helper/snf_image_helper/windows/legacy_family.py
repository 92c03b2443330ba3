"""What each task does for Windows before 6.0: 2000, XP, 2003."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.families import Family
from snf_image_helper.windows.family import DEFAULT_USERS
from snf_image_helper.windows.legacy import assign_hostname, change_password, install_unattend
from snf_image_helper.windows.personality import enforce_personality
from snf_image_helper.windows.remote_desktop import disable_remote_desktop_connections

FAMILY: Final = Family(
    name=OsFamily.WINDOWS_LEGACY,
    default_users=DEFAULT_USERS,
    install_unattend=install_unattend,
    assign_hostname=assign_hostname,
    change_password=change_password,
    disable_remote_desktop_connections=disable_remote_desktop_connections,
    enforce_personality=enforce_personality,
)
