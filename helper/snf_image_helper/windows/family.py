"""What each task does for Windows 6.0 (Vista, 2008) and later."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.families import Family
from snf_image_helper.windows.hostname import assign_hostname
from snf_image_helper.windows.install_unattend import install_unattend
from snf_image_helper.windows.password import change_password
from snf_image_helper.windows.personality import enforce_personality
from snf_image_helper.windows.remote_desktop import disable_remote_desktop_connections
from snf_image_helper.windows.resize_mounted import resize_mounted

DEFAULT_USERS: Final = ("Administrator",)

FAMILY: Final = Family(
    name=OsFamily.WINDOWS,
    default_users=DEFAULT_USERS,
    install_unattend=install_unattend,
    filesystem_resize_mounted=resize_mounted,
    assign_hostname=assign_hostname,
    change_password=change_password,
    disable_remote_desktop_connections=disable_remote_desktop_connections,
    enforce_personality=enforce_personality,
)
