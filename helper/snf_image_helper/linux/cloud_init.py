"""cloud-init of the image: its configuration directory, its NoCloud seed, its version (R-TASK-CI-1 to -6).

Only tasks of a job with ``cloud_init`` write here. File names are the guest's.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
from collections.abc import Mapping
from typing import Final

from snf_image_contract.names import TaskName
from snf_image_helper.errors import RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux import yaml_text
from snf_image_helper.linux.cloud_init_version import version

__all__ = [
    "CONFIG_DIRECTORIES",
    "PER_ONCE_DIRECTORY",
    "SEED_DIRECTORY",
    "config_directory",
    "initialize_datasource",
    "is_installed",
    "seed_directory",
    "set_meta_data",
    "version",
    "write_config",
    "write_per_once_script",
    "write_seed",
]

CONFIG_DIRECTORIES: Final = (
    "/etc/cloud/cloud.cfg.d",
    "/local/etc/cloud/cloud.cfg.d",
    "/usr/local/etc/cloud/cloud.cfg.d",
)
SEED_DIRECTORY: Final = "/var/lib/cloud/seed/nocloud-net"
PER_ONCE_DIRECTORY: Final = "/var/lib/cloud/scripts/per-once"
DISABLED: Final = "/etc/cloud/cloud-init.disabled"
DEBUG_LOG: Final = "/var/log/snf-image/cloud-init-debug.log"
MADE_BY: Final = "Made by snf-image"

_HIDES_THE_SEED: Final = (
    "/var/lib/cloud/instance",
    "/var/lib/cloud/instances",
    "/var/lib/cloud/sem",
    "/run/cloud-init",
    # cloud-init merges both seed directories, and what this one says wins.
    "/var/lib/cloud/seed/nocloud",
)
_SEED_FILES: Final = ("meta-data", "user-data", "vendor-data", "network-config")

# The format of Python's logging.config.fileConfig.
_LOG_CONFIGURATION: Final = f"""\
[loggers]
keys=root,cloudinit

[handlers]
keys=stderr,file

[formatters]
keys=line

[logger_root]
level=DEBUG
handlers=stderr,file

[logger_cloudinit]
level=DEBUG
qualname=cloudinit
handlers=
propagate=1

[handler_stderr]
class=StreamHandler
level=DEBUG
formatter=line
args=(sys.stderr,)

[handler_file]
class=FileHandler
level=DEBUG
formatter=line
args=('{DEBUG_LOG}',)

[formatter_line]
format=%(asctime)s %(filename)s[%(levelname)s]: %(message)s
"""


def is_installed(guest: Guest) -> bool:
    """Whether the image has a directory for cloud-init's configuration."""
    return any(guest.root.is_dir(path) for path in CONFIG_DIRECTORIES)


def config_directory(guest: Guest) -> str:
    """Where configuration fragments go (R-TASK-CI-1); :class:`RequestError` if cloud-init is not there."""
    for path in CONFIG_DIRECTORIES:
        if guest.root.is_dir(path):
            return path
    raise RequestError(
        f"cloud-init not found in the image: there is no {CONFIG_DIRECTORIES[0]}; "
        "deploy without CLOUD_INIT, or use an image with cloud-init"
    )


def seed_directory(guest: Guest) -> str:
    """The NoCloud seed directory, made if it is missing."""
    guest.root.mkdir(SEED_DIRECTORY)
    return SEED_DIRECTORY


def write_config(
    guest: Guest, task: TaskName, document: Mapping[str, object], *, secret: bool = False
) -> None:
    """Write the configuration fragment of ``task`` (R-TASK-CI-2).

    ``document``: plain values (text, numbers, booleans, lists, mappings). ``secret``: it holds credentials,
    so that it gets mode 0600 and is removed once cloud-init has used it (R-TASK-CI-6).
    """
    stem = _stem(task)
    path = f"{config_directory(guest)}/{stem}.cfg"
    text = f"#cloud-config\n# {MADE_BY}, task {task}\n{yaml_text.dump(document)}"
    guest.root.write(path, text.encode("utf-8"), mode=0o600 if secret else 0o644, force=True)
    if secret:
        write_per_once_script(guest, f"{stem}-remove", f"rm -f -- {shlex.quote(path)}\n")


def write_per_once_script(guest: Guest, name: str, commands: str) -> None:
    """Have ``commands`` (POSIX shell) run once, late in the first boot; the script then removes itself.

    It ends with the status that the commands left in ``$status``, if any.
    With ``cloud_init_debug`` the script is there without its execute bit, to be looked at (R-TASK-CI-6).
    """
    guest.root.mkdir(PER_ONCE_DIRECTORY)
    script = f'#!/bin/sh\n# {MADE_BY}\n{commands}rm -f -- "$0"\nexit "${{status:-0}}"\n'
    mode = 0o600 if guest.job.cloud_init_debug else 0o700
    guest.root.write(f"{PER_ONCE_DIRECTORY}/{name}", script.encode("utf-8"), mode=mode, force=True)


def set_meta_data(guest: Guest, **values: object) -> None:
    """Set keys of the seed's meta-data and keep the others; ``local_hostname`` sets ``local-hostname``."""
    path = f"{SEED_DIRECTORY}/meta-data"
    document = yaml_text.load_mapping(guest.root.read_optional(path, yaml_text.MAX_DOCUMENT) or b"", path)
    document.update({name.replace("_", "-"): value for name, value in values.items()})
    write_seed(guest, "meta-data", f"# {MADE_BY}\n{yaml_text.dump(document)}".encode())


def write_seed(guest: Guest, name: str, data: bytes) -> None:
    """Write or replace one file of the seed, readable by root only (R-TASK-CI-4)."""
    guest.root.write(f"{seed_directory(guest)}/{name}", data, mode=0o600, force=True)


def initialize_datasource(guest: Guest) -> None:
    """Task InitializeDatasource: the seed, and that cloud-init looks at nothing else."""
    if not guest.job.cloud_init:
        guest.warn("property CLOUD_INIT is not set: the image is not configured through cloud-init")
        return
    directory = config_directory(guest)
    _clear_state(guest)
    _choose_datasource(guest, directory)
    _write_seed(guest)


def _stem(task: TaskName) -> str:
    return f"98_snf-image-{task.number}{task}"


def _clear_state(guest: Guest) -> None:
    for path in _HIDES_THE_SEED:
        guest.root.remove_tree(path)
    for name in _SEED_FILES:
        guest.root.remove_tree(f"{SEED_DIRECTORY}/{name}")
    if guest.root.remove(DISABLED):
        guest.warn(f"{DISABLED}: removed, for cloud-init is to configure this image")


def _choose_datasource(guest: Guest, directory: str) -> None:
    document: dict[str, object] = {"datasource_list": ["NoCloud"]}
    if guest.job.cloud_init_debug:
        guest.root.mkdir(DEBUG_LOG.rpartition("/")[0])
        document["logcfg"] = _LOG_CONFIGURATION
    write_config(guest, TaskName.INITIALIZE_DATASOURCE, document)
    for name in guest.root.list(directory):
        if name.endswith(".cfg") and name > _stem(TaskName.INITIALIZE_DATASOURCE) + ".cfg":
            _warn_of_rival(guest, f"{directory}/{name}")


def _warn_of_rival(guest: Guest, path: str) -> None:
    """cloud-init reads fragments in the order of their names, and a later one wins."""
    if not guest.root.is_file(path):
        return
    lines = guest.root.read(path).splitlines()
    if any(line.startswith(b"datasource_list:") for line in lines):
        guest.warn(f"{path}: chooses a data source after ours, so that cloud-init may not see the seed")


def _write_seed(guest: Guest) -> None:
    asked = guest.job.initialize_datasource
    instance_id = asked.instance_id or f"{guest.job.instance}-{os.urandom(8).hex()}"
    set_meta_data(guest, instance_id=instance_id)
    if asked.user_data is None:
        guest.warn("no cloud-init user data given: user-data is empty")
        write_seed(guest, "user-data", b"")
        return
    try:
        user_data = base64.b64decode(asked.user_data.reveal(), validate=True)
    except binascii.Error:
        raise RequestError("cloud_userdata: not valid base64") from None
    write_seed(guest, "user-data", user_data)
    path = shlex.quote(f"{SEED_DIRECTORY}/user-data")
    write_per_once_script(guest, f"{_stem(TaskName.INITIALIZE_DATASOURCE)}-empty-user-data", f": > {path}\n")
