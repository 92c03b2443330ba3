"""The families of operating systems, each a table of what its tasks do.

A family is one package below ``snf_image_helper`` (``linux``, …) that fills in a :class:`Family`. A field
that is None means: this task does not apply to the family and ends quietly (R-TASK-4).
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from snf_image_contract.names import OsFamily

if TYPE_CHECKING:
    from snf_image_helper.guest import Guest
    from snf_image_helper.machine import Machine

Action = Callable[["Guest"], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What each mounted task does for one family of operating systems.

    ``default_users``: whose password is set if property USERS is empty (R-TASK-PW-1).
    """

    name: OsFamily
    default_users: tuple[str, ...]
    initialize_datasource: Action | None = None
    install_unattend: Action | None = None
    filesystem_resize_mounted: Action | None = None
    add_swap: Action | None = None
    assign_hostname: Action | None = None
    change_machine_id: Action | None = None
    change_password: Action | None = None
    configure_network: Action | None = None
    delete_ssh_keys: Action | None = None
    disable_remote_desktop_connections: Action | None = None
    selinux_autorelabel: Action | None = None
    enforce_personality: Action | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Later:
    """An action: ``function`` of a module below this package, which is imported when the task runs.

    Emulated processors import slowly. What a job does not need is not imported, and what its first task
    does not need is imported after it.
    """

    module: str
    function: str

    def __call__(self, subject: Guest | Machine) -> None:
        self.load()(subject)

    def load(self) -> Callable[..., None]:
        action: Callable[..., None] = getattr(
            importlib.import_module(f"{__package__}.{self.module}"), self.function
        )
        return action


# A family's package is imported when an image needs it: most images need one.
PACKAGES: Final = {
    OsFamily.LINUX: "snf_image_helper.linux.family",
    OsFamily.WINDOWS: "snf_image_helper.windows.family",
    OsFamily.WINDOWS_LEGACY: "snf_image_helper.windows.legacy_family",
    OsFamily.FREEBSD: "snf_image_helper.bsd.freebsd",
    OsFamily.NETBSD: "snf_image_helper.bsd.netbsd",
    OsFamily.OPENBSD: "snf_image_helper.bsd.openbsd",
}


def family_of(name: OsFamily) -> Family:
    """The table of a family."""
    family: Family = importlib.import_module(PACKAGES[name]).FAMILY
    return family
