"""Ganeti's environment, read: variables become an instance, its disks, its interfaces, its parameters.

What is wrong with a variable is collected and told together; nothing here touches a disk.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Mapping
from typing import Final

from snf_image_contract.secret import Secret
from snf_image_host.deployment import TargetDisk
from snf_image_host.parameters.disk_uris import parse_disk_uri, shown_disk_uri
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.parameters.values import integer, parse_hostname
from snf_image_host.planning.network import NIC_VARIABLES
from snf_image_host.planning.request import AskedNic

Environment = Mapping[str, str]
API_VERSION: Final = "20"
MAX_DISKS: Final = 64
MAX_NICS: Final = 64
_PREFIX: Final = "OSP_"
_FIRMWARE: Final = "firmware"
_VARIANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The instance a script is called for. ``reinstall``: its disks hold an earlier deployment."""

    name: str
    disks: tuple[TargetDisk, ...]
    nics: tuple[AskedNic, ...]
    reinstall: bool


def check_api_version(environment: Environment, problems: Problems) -> None:
    """Only version 20 of the interface is spoken (R-SCR-2)."""
    version = environment.get("OS_API_VERSION")
    if version is None:
        problems.error("OS_API_VERSION is missing: this script is started by Ganeti")
    elif version != API_VERSION:
        problems.error(f"OS_API_VERSION is {shown(version)}, only {API_VERSION} is supported")


def read_parameters(environment: Environment) -> dict[str, Secret]:
    """Texts of OS parameters by their names in lower case; absent is "not set" (R-OSP-2)."""
    return {
        name.removeprefix(_PREFIX).lower(): Secret(value)
        for name, value in environment.items()
        if name.startswith(_PREFIX)
    }


def read_variant(environment: Environment, problems: Problems) -> str | None:
    """The variant of the OS, None if there is none (R-SCR-3)."""
    variant = environment.get("OS_VARIANT", "")
    if not variant:
        return None
    if not _VARIANT.fullmatch(variant):
        problems.error(f"OS_VARIANT: must be letters, digits, '_', '.' and '-', not {shown(variant)}")
        return None
    return variant


def read_name(environment: Environment, variable: str, problems: Problems) -> str | None:
    """The name of an instance; it becomes a directory, an argument and a hostname, so it must be one."""
    name = environment.get(variable, "")
    if not name:
        problems.error(f"{variable} is missing")
        return None
    return problems.parse(variable, parse_hostname, name)


def read_instance(environment: Environment, problems: Problems) -> Instance:
    """The instance; each missing variable is named (R-SCR-2). Valid if ``problems`` got no error."""
    name = read_name(environment, "INSTANCE_NAME", problems)
    if not environment.get("HYPERVISOR"):
        problems.error("HYPERVISOR is missing")
    return Instance(
        name=name or "",
        disks=_read_disks(environment, problems),
        nics=_read_nics(environment, problems),
        reinstall=environment.get("INSTANCE_REINSTALL") == "1",
    )


def public_disk_names(environment: Environment) -> dict[str, str]:
    """What users are told instead of the paths of disks, before anything of them was checked (R-MON-7)."""
    found = {}
    for variable, value in environment.items():
        match = re.fullmatch(r"DISK_([0-9]{1,3})_PATH", variable)
        if match and value.startswith("/") and len(value) > 1:
            found[value] = f"disk {match[1]}"
        match = re.fullmatch(r"DISK_([0-9]{1,3})_URI", variable)
        if match and value:
            found[shown_disk_uri(value)] = f"disk {match[1]}"
    return found


def _count(environment: Environment, variable: str, most: int, problems: Problems) -> int | None:
    text = environment.get(variable, "")
    if not text:
        problems.error(f"{variable} is missing")
        return None
    return problems.parse(variable, integer(0, most), text)


def _read_disks(environment: Environment, problems: Problems) -> tuple[TargetDisk, ...]:
    """Disks in order, without those at the end that hold firmware (R-HLP-4)."""
    count = _count(environment, "DISK_COUNT", MAX_DISKS, problems)
    if count is None:
        return ()
    firmware = {index for index in range(count) if _holds_firmware(environment, index)}
    kept = count
    while kept - 1 in firmware:
        kept -= 1
    if firmware - set(range(kept, count)):
        problems.error("a firmware disk must come behind all other disks of the instance")
    return tuple(
        disk for index in range(kept) if (disk := _read_disk(environment, index, problems)) is not None
    )


def _holds_firmware(environment: Environment, index: int) -> bool:
    """A disk that is named so (``--disk N:name=firmware``) belongs to the hypervisor."""
    return environment.get(f"DISK_{index}_NAME", "").lower() == _FIRMWARE


def _read_disk(environment: Environment, index: int, problems: Problems) -> TargetDisk | None:
    access = environment.get(f"DISK_{index}_ACCESS", "rw")
    if access not in ("rw", "ro"):
        problems.error(f"DISK_{index}_ACCESS: must be rw or ro, not {shown(access)}")
        return None
    path = environment.get(f"DISK_{index}_PATH", "")
    why = find_fault(path) if path else "is missing"
    disk = TargetDisk(index=index, path=path, read_only=access == "ro") if path else None
    if why is None:
        return disk
    uri = environment.get(f"DISK_{index}_URI")
    if uri:
        return _read_uri(f"DISK_{index}_URI", index, uri, problems, read_only=access == "ro")
    problems.error(f"DISK_{index}_PATH {why}")
    return disk


def _read_uri(
    variable: str, index: int, uri: str, problems: Problems, *, read_only: bool
) -> TargetDisk | None:
    """A disk that only qemu can reach (R-DST-URI-1); what is wrong with its URI never shows it."""
    if problems.parse(variable, parse_disk_uri, uri, secret=True) is None:
        return None
    return TargetDisk(index=index, path=shown_disk_uri(uri), uri=uri, read_only=read_only)


def find_fault(path: str) -> str | None:
    """Why ``path`` is no disk, None if it is one (R-DST-1)."""
    if not path.startswith("/"):
        return f"must be an absolute path, not {shown(path)}"
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{shown(path)}: {reason}"
    if stat.S_ISBLK(mode) or stat.S_ISREG(mode):
        return None
    return f"{shown(path)} is neither a block device nor a regular file"


def _read_nics(environment: Environment, problems: Problems) -> tuple[AskedNic, ...]:
    """Interfaces in order, unread (R-NET-1)."""
    text = environment.get("NIC_COUNT", "")
    count = problems.parse("NIC_COUNT", integer(0, MAX_NICS), text) if text else 0
    return tuple(_read_nic(environment, index) for index in range(count or 0))


def _read_nic(environment: Environment, index: int) -> AskedNic:
    values = {
        field: environment.get(f"NIC_{index}_{variable}", "") for field, variable in NIC_VARIABLES.items()
    }
    return AskedNic(origin="environment", **values)


def read_disk(
    environment: Environment, kind: str, problems: Problems, *, read_only: bool = False
) -> TargetDisk | None:
    """The disk of ``export`` or ``import``: ``<KIND>_DISK_PATH``, ``<KIND>_DEVICE``, ``<KIND>_DISK_URI``."""
    names = (f"{kind}_DISK_PATH", f"{kind}_DEVICE")
    name = next((name for name in names if environment.get(name)), None)
    why = "is missing" if name is None else find_fault(environment[name])
    if name is not None and why is None:
        return TargetDisk(index=0, path=environment[name], read_only=read_only)
    variable = f"{kind}_DISK_URI"
    if environment.get(variable):
        return _read_uri(variable, 0, environment[variable], problems, read_only=read_only)
    problems.error(f"{name or names[0]} {why}")
    return None


def read_descriptor(environment: Environment, variable: str, problems: Problems) -> int | None:
    """A number of a file descriptor that Ganeti keeps open for us; None if there is none."""
    text = environment.get(variable, "")
    return problems.parse(variable, _descriptor, text) if text else None


def _descriptor(text: str) -> int:
    number = integer(3, 1_048_576)(text)
    try:
        os.fstat(number)
    except OSError:
        raise ParseError("is no open file descriptor") from None
    return int(number)
