"""Trees of Windows images with real hives, for tests of tasks; hivex is needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

from image_recipes.hive import Keys, make_hive
from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_helper.families import family_of
from snf_image_helper.guest import Guest
from trees import GuestOf, Node

CONFIG = "/Windows/System32/config"
READY = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
NAMESPACE = "{urn:schemas-microsoft-com:unattend}"
WCM = "{http://schemas.microsoft.com/WMIConfig/2002/State}"
MakeWindows = Callable[..., Guest]


def system_hive(
    *, architecture: str | None = "AMD64", deny: Any = 0, setup: Keys | None = None, control_set: int = 1
) -> bytes:
    """A SYSTEM hive; ``deny`` None: there is no fDenyTSConnections."""
    top = f"ControlSet{control_set:03d}"
    environment = {} if architecture is None else {"PROCESSOR_ARCHITECTURE": architecture}
    terminal = {"fSingleSessionPerUser": 1, "ProductVersion": "5.1", "Blob": b"\0\1\2", "List": ("a", "b")}
    keys: dict[str, Any] = {
        "Select": {"Current": control_set},
        "ControlSet009\\Control\\Terminal Server": {"fDenyTSConnections": 7},
        f"{top}\\Control\\Session Manager\\Environment": environment,
        f"{top}\\Control\\Terminal Server": terminal | ({} if deny is None else {"fDenyTSConnections": deny}),
        f"{top}\\Control\\ComputerName\\ComputerName": {"ComputerName": "OLD"},
    }
    return make_hive(keys | dict(setup or {}))


def software_hive(*, state: str | None = READY, version: Any = None) -> bytes:
    """A SOFTWARE hive of Windows 10, or with the ``version`` values given."""
    values = version or {
        "CurrentVersion": "6.3",
        "CurrentMajorVersionNumber": 10,
        "CurrentBuildNumber": "20348",
    }
    setup = {} if state is None else {"ImageState": state}
    return make_hive(
        {
            r"Microsoft\Windows NT\CurrentVersion": {"ProductName": "Windows Server", **values},
            r"Microsoft\Windows\CurrentVersion\Setup\State": setup,
        }
    )


def sam_hive(*names: str) -> bytes:
    return make_hive({rf"SAM\Domains\Account\Users\Names\{name}": {} for name in names})


def windows_tree(**files: bytes) -> dict[str, Node]:
    """The hives of an image that is ready to be deployed; keywords replace them: SYSTEM, SOFTWARE, SAM."""
    return {
        f"{CONFIG}/SYSTEM": files.get("SYSTEM") or system_hive(),
        f"{CONFIG}/SOFTWARE": files.get("SOFTWARE") or software_hive(),
        f"{CONFIG}/SAM": files.get("SAM") or sam_hive("Administrator", "Guest", "Jürgen Groß"),
    }


def legacy_tree(**files: bytes) -> dict[str, Node]:
    """The same of Windows Server 2003."""
    setup: Keys = {"Setup": {"SystemSetupInProgress": 1, "MiniSetupInProgress": 1}}
    defaults = {
        "SYSTEM": system_hive(architecture="x86", setup=setup),
        "SOFTWARE": software_hive(
            state=None, version={"CurrentVersion": "5.2", "CurrentBuildNumber": "3790"}
        ),
    }
    return windows_tree(**(defaults | files))


def make_windows(guest_of: GuestOf, tree: dict[str, Node], **fields: Any) -> Guest:
    family = family_of(fields.pop("os_family", OsFamily.WINDOWS))
    return guest_of(tree, family=family, os_family=family.name, **fields)


def secret(text: str) -> Secret:
    return Secret(text)


# -- the rules for answer files, worked out anew ----------------------------------------------------

PASSES = (
    "windowsPE",
    "offlineServicing",
    "generalize",
    "specialize",
    "auditSystem",
    "auditUser",
    "oobeSystem",
)
SETTINGS = {
    "Microsoft-Windows-Shell-Setup": {"ComputerName", "TimeZone", "ProductKey", "OOBE", "UserAccounts"},
    "Microsoft-Windows-Deployment": {"RunSynchronous"},
    "Microsoft-Windows-International-Core": {
        "InputLocale", "SystemLocale", "UILanguage", "UILanguageFallback", "UserLocale",
    },
}  # fmt: skip


def demand_valid_answer_file(data: bytes) -> None:
    """What an answer file must be like to be taken by Windows, by the rules R-TASK-UNA-6, -7 and -8."""
    top = ET.fromstring(data)  # noqa: S314 - what was just written
    assert top.tag == f"{NAMESPACE}unattend"
    passes = [settings.get("pass") for settings in top]
    assert len(passes) == len(set(passes)), "a pass stands there twice"
    for settings in top:
        assert settings.tag == f"{NAMESPACE}settings"
        assert settings.get("pass") in PASSES
        seen = set()
        for component in settings:
            assert component.tag == f"{NAMESPACE}component"
            name, architecture = component.get("name"), component.get("processorArchitecture")
            assert architecture in ("amd64", "x86", "arm64")
            assert component.get("publicKeyToken") == "31bf3856ad364e35"
            assert component.get("language") == "neutral"
            assert component.get("versionScope") == "nonSxS"
            assert (name, architecture) not in seen, f"component {name} of {architecture} stands there twice"
            seen.add((name, architecture))
            _demand_valid_component(str(name), component)


def _demand_valid_component(name: str, component: ET.Element) -> None:
    tags = [setting.tag.removeprefix(NAMESPACE) for setting in component]
    assert len(tags) == len(set(tags)), f"{name}: a setting stands there twice"
    assert set(tags) <= SETTINGS[name], f"{name}: {tags}"
    orders = []
    for command in component.iter(f"{NAMESPACE}RunSynchronousCommand"):
        assert command.get(f"{WCM}action") == "add"
        order, path = command.findtext(f"{NAMESPACE}Order"), command.findtext(f"{NAMESPACE}Path")
        assert order is not None
        assert re.fullmatch(r"[1-9][0-9]{0,2}", order)
        orders.append(int(order))
        assert path
        assert len(path) <= 255
    assert len(orders) == len(set(orders)), f"{name}: two commands have one order"
    for setting in component:
        text = (setting.text or "").strip()
        if setting.tag == f"{NAMESPACE}ComputerName":
            assert re.fullmatch(r"\*|[A-Za-z0-9_-]{1,15}", text)
        if setting.tag == f"{NAMESPACE}ProductKey":
            assert re.fullmatch(r"[A-Za-z0-9]{5}(-[A-Za-z0-9]{5}){4}", text)


def component(data: bytes, pass_name: str, name: str, architecture: str = "amd64") -> ET.Element:
    """The one component of that name; an assertion fails if there is not exactly one."""
    found = [
        element
        for settings in ET.fromstring(data)  # noqa: S314 - what was just written
        if settings.get("pass") == pass_name
        for element in settings
        if element.get("name") == name and element.get("processorArchitecture") == architecture
    ]
    assert len(found) == 1
    return found[0]


def commands(data: bytes, architecture: str = "amd64") -> list[tuple[int, str]]:
    """Order and Path of the commands of pass specialize."""
    deployment = component(data, "specialize", "Microsoft-Windows-Deployment", architecture)
    return [
        (int(run.findtext(f"{NAMESPACE}Order") or 0), run.findtext(f"{NAMESPACE}Path") or "")
        for run in deployment.iter(f"{NAMESPACE}RunSynchronousCommand")
    ]


def setting(data: bytes, name: str, architecture: str = "amd64") -> str | None:
    """A setting of Shell-Setup in pass specialize."""
    shell = component(data, "specialize", "Microsoft-Windows-Shell-Setup", architecture)
    return shell.findtext(f"{NAMESPACE}{name}")
