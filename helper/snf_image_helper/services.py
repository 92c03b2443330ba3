"""What starts at boot in an image, read from its files and changed by links: systemd, OpenRC, System V.

Nothing of the image is run. Paths are the guest's. Unit files are parsed just far enough for ``[Install]``.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from typing import Final

from snf_image_helper.root import Root

_CONFIGURED_UNITS: Final = "/etc/systemd/system"
_UNIT_DIRECTORIES: Final = (_CONFIGURED_UNITS, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
                            "/lib/systemd/system")  # fmt: skip
_UNIT_NAME: Final = re.compile(r"[A-Za-z0-9:_.@-]{1,128}\.(?:service|socket|target|timer|path)")
_MAX_UNIT_FILE: Final = 1024 * 1024
_RUN_LEVELS: Final = "/etc/runlevels"
_INIT_SCRIPTS: Final = ("/etc/init.d", "/etc/rc.d/init.d")
_SYSV_LEVELS: Final = ("/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d", "/etc/rcS.d")
_SYSV_LEVELS_RED_HAT: Final = tuple(f"/etc/rc.d/rc{level}.d" for level in (2, 3, 4, 5))


# -- systemd ---------------------------------------------------------------------------------------


def unit_file(root: Root, unit: str) -> str | None:
    """Path of the unit's own file, masks and links of enablement left out; None if it is not installed."""
    for directory in _UNIT_DIRECTORIES:
        path = f"{directory}/{unit}"
        if root.is_file(path) and not _is_link(root, path):
            return path
    return None


def is_masked(root: Root, unit: str) -> bool:
    """Whether the administrator forbade the unit: a link to ``/dev/null``, or an empty file."""
    path = f"{_CONFIGURED_UNITS}/{unit}"
    if _is_link(root, path):
        return root.readlink(path) == "/dev/null"
    status = root.stat(path)
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size == 0


def is_enabled(root: Root, unit: str) -> bool:
    """Whether the unit starts at boot: installed, not masked, and wanted by another unit.

    A link made by the vendor below ``/usr/lib`` counts like one made by the administrator.
    """
    if unit_file(root, unit) is None or is_masked(root, unit):
        return False
    return any(root.lstat(f"{directory}/{unit}") is not None for directory in _wants_directories(root))


def alias_target(root: Root, unit: str) -> str | None:
    """Name of the unit that the administrator's link ``unit`` leads to; None if there is no such link."""
    path = f"{_CONFIGURED_UNITS}/{unit}"
    return root.readlink(path).rpartition("/")[2] if _is_link(root, path) else None


def set_alias(root: Root, alias: str, unit: str) -> None:
    """Make ``alias`` another name of an installed unit, in place of whatever it named."""
    path = unit_file(root, unit)
    if path is not None and alias_target(root, alias) != unit:
        root.remove(f"{_CONFIGURED_UNITS}/{alias}")
        root.symlink(path, f"{_CONFIGURED_UNITS}/{alias}")


def enable(root: Root, unit: str) -> bool:
    """Enable a unit as its ``[Install]`` section says, with the units of ``Also=``; True if links were made.

    A mask is taken away. Nothing happens if the unit is not installed.
    """
    changed = False
    pending, done = [unit], set[str]()
    while pending and len(done) < 16:
        name = pending.pop(0)
        path = unit_file(root, name)
        if name in done or path is None:
            continue
        done.add(name)
        changed |= _unmask(root, name)
        for key, values in _install_section(root, path):
            if key == "Also":
                pending += values
            for value in values:
                changed |= _enable_as(root, name, path, key, value)
    return changed


def _enable_as(root: Root, unit: str, path: str, key: str, value: str) -> bool:
    suffix = {"WantedBy": ".wants", "RequiredBy": ".requires"}.get(key)
    if suffix is not None:
        return _link(root, path, f"{_CONFIGURED_UNITS}/{value}{suffix}", unit)
    if key == "Alias" and value != unit:
        return _link(root, path, _CONFIGURED_UNITS, value)
    return False


def _link(root: Root, target: str, directory: str, name: str) -> bool:
    if root.lstat(f"{directory}/{name}") is not None:
        return False
    root.mkdir(directory)
    root.symlink(target, f"{directory}/{name}")
    return True


def _unmask(root: Root, unit: str) -> bool:
    return is_masked(root, unit) and root.remove(f"{_CONFIGURED_UNITS}/{unit}")


def _wants_directories(root: Root) -> Iterator[str]:
    for directory in _UNIT_DIRECTORIES:
        for name in root.list(directory) if root.is_dir(directory) else []:
            path = f"{directory}/{name}"
            if name.endswith((".wants", ".requires")) and root.is_dir(path):
                yield path


def _install_section(root: Root, path: str) -> Iterator[tuple[str, list[str]]]:
    """Keys of ``[Install]`` with those of their values that are names of units."""
    section = ""
    for raw in root.read(path, _MAX_UNIT_FILE).decode("utf-8", "replace").splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line
        elif section == "[Install]" and "=" in line:
            key, _, value = line.partition("=")
            yield key.strip(), [word for word in value.split() if _UNIT_NAME.fullmatch(word)]


def _is_link(root: Root, path: str) -> bool:
    status = root.lstat(path)
    return status is not None and stat.S_ISLNK(status.st_mode)


# -- OpenRC ----------------------------------------------------------------------------------------


def openrc_installed(root: Root, service: str) -> bool:
    """Whether the image runs OpenRC and has a script for the service."""
    return root.is_dir(_RUN_LEVELS) and root.is_file(f"/etc/init.d/{service}")


def openrc_enabled(root: Root, service: str) -> bool:
    """Whether the service is in a run level of OpenRC."""
    levels = root.list(_RUN_LEVELS) if root.is_dir(_RUN_LEVELS) else []
    return any(root.lstat(f"{_RUN_LEVELS}/{level}/{service}") is not None for level in levels)


def openrc_enable(root: Root, service: str, level: str) -> bool:
    """Put a service into a run level unless it is in one; True if a link was made."""
    if not openrc_installed(root, service) or openrc_enabled(root, service):
        return False
    return _link(root, f"/etc/init.d/{service}", f"{_RUN_LEVELS}/{level}", service)


# -- System V --------------------------------------------------------------------------------------


def sysv_script(root: Root, service: str) -> str | None:
    """Path of the service's start script; None if it has none."""
    for directory in _INIT_SCRIPTS:
        if root.is_file(f"{directory}/{service}"):
            return f"{directory}/{service}"
    return None


def sysv_enabled(root: Root, service: str) -> bool:
    """Whether a run level starts the service."""
    return any(
        re.fullmatch(r"S[0-9]{2}" + re.escape(service), name)
        for directory in _SYSV_LEVELS + _SYSV_LEVELS_RED_HAT
        for name in (root.list(directory) if root.is_dir(directory) else [])
    )


def sysv_enable(root: Root, service: str, start: str) -> bool:
    """Have the multi-user levels (Debian: level S) start the service at priority ``start`` (two digits)."""
    if sysv_script(root, service) is None or sysv_enabled(root, service):
        return False
    levels = _SYSV_LEVELS_RED_HAT if root.is_dir("/etc/rc.d/rc3.d") else ("/etc/rcS.d",)
    made = [_link(root, f"../init.d/{service}", level, f"S{start}{service}") for level in levels]
    return any(made)
