"""What Windows is on an image, and whether it is ready for its first start (R-TASK-UNA-1 to R-TASK-UNA-4)."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.errors import ImageError
from snf_image_helper.root import Root
from snf_image_helper.windows import registry
from snf_image_helper.windows.registry import Hive

ARCHITECTURES: Final = ("amd64", "x86", "arm64")
_VERSION: Final = r"Microsoft\Windows NT\CurrentVersion"
_STATE: Final = r"Microsoft\Windows\CurrentVersion\Setup\State"
_READY: Final = ("IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE", "IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT")
_SPECIALIZED: Final = ("IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE", "IMAGE_STATE_SPECIALIZE_RESEAL_TO_AUDIT")
_FIRST_OF_TODAY: Final = 6
"""Windows Vista: answer files in XML. Before: sysprep.inf."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """``text`` for people: 10.0.20348; ``title``: the product's name, which is the image's word."""

    major: int
    text: str
    title: str = ""

    @property
    def family(self) -> OsFamily:
        return OsFamily.WINDOWS if self.major >= _FIRST_OF_TODAY else OsFamily.WINDOWS_LEGACY


def is_windows(root: Root) -> bool:
    return root.is_dir("/Windows/System32")


def version(root: Root) -> Version:
    """The version of the Windows on an image; :class:`ImageError` if its registry does not tell."""
    with registry.opened(root, registry.SOFTWARE) as hive:
        title = (hive.text(_VERSION, "ProductName") or "").strip()
        build = hive.text(_VERSION, "CurrentBuildNumber") or hive.text(_VERSION, "CurrentBuild") or ""
        # The text says 6.3 forever in Windows 10 and later (T-110).
        major = hive.number(_VERSION, "CurrentMajorVersionNumber")
        if major is not None:
            minor = hive.number(_VERSION, "CurrentMinorVersionNumber") or 0
            text = f"{major}.{minor}"
        else:
            text = hive.text(_VERSION, "CurrentVersion") or ""
            found = re.match(r"(\d{1,4})(\.\d{1,4})?", text, re.ASCII)
            if found is None:
                raise ImageError(f"{registry.SOFTWARE}: {_VERSION} does not tell the version of Windows")
            text, major = found[0], int(found[1])
    return Version(major=major, text=".".join(filter(None, (text, build[:16]))), title=title[:256])


def control_set(hive: Hive) -> str:
    """The key of the current control set in an open SYSTEM hive."""
    current = hive.number("Select", "Current")
    if current is None or not 0 < current < 1000:
        raise ImageError(f"{hive.path}: the value Current of the key Select is missing or wrong")
    name = f"ControlSet{current:03d}"
    if not hive.has_key(name):
        raise ImageError(f"{hive.path}: the current control set {name} is missing")
    return name


def architecture(root: Root) -> str:
    """``amd64``, ``x86`` or ``arm64``; :class:`ImageError` if it is another or the registry does not tell."""
    with registry.opened(root, registry.SYSTEM) as hive:
        key = rf"{control_set(hive)}\Control\Session Manager\Environment"
        name = hive.text(key, "PROCESSOR_ARCHITECTURE")
    if name is None:
        raise ImageError(f"{registry.SYSTEM}: {key} does not tell PROCESSOR_ARCHITECTURE")
    if name.lower() not in ARCHITECTURES:
        raise ImageError(f"{registry.SYSTEM}: processor architecture {name[:64]!r} is not supported")
    return name.lower()


def demand_family(root: Root, family: OsFamily) -> None:
    """:class:`ImageError` if the image holds the other family of Windows; it names the right one."""
    found = version(root)
    if found.family is not family:
        raise ImageError(
            f"the image holds Windows {found.text}, which OSFAMILY={family} is not for; "
            f"set OSFAMILY={found.family}"
        )


def demand_generalized(root: Root) -> None:
    """:class:`ImageError` unless sysprep has generalised the image (R-TASK-UNA-3)."""
    with registry.opened(root, registry.SOFTWARE) as hive:
        state = hive.text(_STATE, "ImageState")
    if state in _READY:
        return
    advice = "run sysprep /generalize /oobe /shutdown in it and publish it again"
    if state is None:
        raise ImageError(f"{registry.SOFTWARE}: there is no ImageState; nobody can tell if sysprep has run")
    if state == "IMAGE_STATE_COMPLETE":
        raise ImageError(f"the Windows on the image has not been sysprepped ({state}); {advice}")
    if state == "IMAGE_STATE_UNDEPLOYABLE":
        raise ImageError(f"sysprep has not finished on the image, it cannot be deployed ({state}); {advice}")
    if state in _SPECIALIZED:
        raise ImageError(f"the Windows on the image has been sysprepped without /generalize ({state})")
    raise ImageError(f"the Windows on the image is in an unknown state ({state[:64]!r}); {advice}")


def demand_mini_setup(root: Root) -> None:
    """The same for Windows before 6.0 (R-TASK-UNA-4)."""
    with registry.opened(root, registry.SYSTEM) as hive:
        setup = hive.number("Setup", "SystemSetupInProgress")
        mini = hive.number("Setup", "MiniSetupInProgress")
    if setup != 1:
        raise ImageError("the Windows on the image has not been sysprepped (SystemSetupInProgress is not 1)")
    if mini != 1:
        raise ImageError(
            "mini-setup is not enabled on the image (MiniSetupInProgress is not 1); run sysprep -mini"
        )


def users(root: Root) -> list[str]:
    """The accounts in the SAM hive; :class:`ImageError` if there is no such hive."""
    with registry.opened(root, registry.SAM) as hive:
        return hive.subkeys(r"SAM\Domains\Account\Users\Names")


def computer_name(root: Root) -> str:
    """What the computer is called now; empty if the registry does not tell."""
    with registry.opened(root, registry.SYSTEM) as hive:
        key = rf"{control_set(hive)}\Control\ComputerName\ComputerName"
        return hive.text(key, "ComputerName") or ""
