"""Task InstallUnattend for Windows 6.0 and later: the answer file and what it runs (R-TASK-UNA-1 to -10)."""

from __future__ import annotations

import base64
import importlib.resources
from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.guest import Guest
from snf_image_helper.root import Root
from snf_image_helper.windows import installation, setup_complete, time_zones
from snf_image_helper.windows.answer_file import MAX_ANSWER_FILE, SHELL_SETUP, SPECIALIZE, AnswerFile
from snf_image_helper.windows.layout import (
    ACCOUNTS_COMMAND,
    EXTEND,
    PRIVATE,
    RUN_ACCOUNTS_COMMAND,
    RUN_EXTEND,
)

ANSWER_FILE: Final = "/unattend.xml"
_PANTHER: Final = "/Windows/Panther/unattend.xml"
PLACES: Final = (ANSWER_FILE, "/autounattend.xml", "/Windows/Panther/Unattend/unattend.xml", _PANTHER)
"""Where an image may bring an answer file (R-TASK-UNA-5)."""
_COMMANDS: Final = (
    (RUN_ACCOUNTS_COMMAND, ACCOUNTS_COMMAND, "Set passwords"),
    (RUN_EXTEND, EXTEND, "Extend the file system"),
)


def install_unattend(guest: Guest) -> None:
    """See to it that there is an answer file, that it runs our commands, and that all of it is removed."""
    root, asked = guest.root, guest.job.install_unattend
    installation.demand_family(root, OsFamily.WINDOWS)
    installation.demand_generalized(root)
    architecture = installation.architecture(root)
    paths = present(root)
    if paths and not asked.ignore_existing:
        guest.warn(f"{', '.join(paths)}: the image's own answer file is kept and extended")
    else:
        new = _provided(guest, architecture)
        for path in paths:
            if path != ANSWER_FILE:
                # Windows would prefer it to the new one.
                root.remove(path)
        root.write(ANSWER_FILE, new.data(), mode=PRIVATE, detail="answer file")
        paths = [ANSWER_FILE]
    for path in paths:
        _complete(guest, path, architecture)
    setup_complete.install(guest, list(dict.fromkeys((*paths, _PANTHER))))
    setup_complete.install_placeholders(guest)


def present(root: Root) -> list[str]:
    """The answer files that the image has, the one that is to be used first."""
    return [path for path in PLACES if root.is_file(path)]


def load(root: Root, path: str, architecture: str) -> AnswerFile:
    return AnswerFile(root.read(path, MAX_ANSWER_FILE), path=path, architecture=architecture)


def answer_files(guest: Guest) -> list[AnswerFile]:
    """Every answer file of the image, to be changed alike: Windows takes one and we do not choose.

    :class:`ImageError` if there is none.
    """
    paths = present(guest.root)
    if not paths:
        reason = "" if _runs(guest) else ", because task InstallUnattend is excluded"
        raise ImageError(f"the image has no answer file{reason}")
    architecture = installation.architecture(guest.root)
    return [load(guest.root, path, architecture) for path in paths]


def save(guest: Guest, files: list[AnswerFile], detail: str) -> None:
    for file in files:
        guest.root.write(file.path, file.data(), mode=PRIVATE, detail=detail)


def _runs(guest: Guest) -> bool:
    return not any(entry.task == "InstallUnattend" for entry in guest.job.skipped)


def _provided(guest: Guest, architecture: str) -> AnswerFile:
    """The answer file of the request, or the one that we bring, with its time zone set (R-TASK-UNA-12)."""
    asked = guest.job.install_unattend
    if asked.answer_file is None:
        shipped = importlib.resources.files(__package__).joinpath("unattend.xml").read_bytes()
        file = AnswerFile(shipped, path="unattend.xml", architecture=architecture)
        zone = time_zones.registry_name(asked.time_zone)
        file.set_text(SPECIALIZE, SHELL_SETUP, "TimeZone", zone)
        return file
    try:
        data = base64.b64decode(asked.answer_file.reveal(), validate=True)
        return AnswerFile(data, path="the answer file that was given", architecture=architecture)
    except ValueError:
        raise TaskError("the answer file that was given is not valid base64") from None
    except ImageError as error:
        raise RequestError(*error.messages) from None


def _complete(guest: Guest, path: str, architecture: str) -> None:
    file = load(guest.root, path, architecture)
    if file.revive_pass(SPECIALIZE):
        guest.warn(f"{path}: says that its pass specialize was processed already; it will be again")
    for command, our_file, description in _COMMANDS:
        file.ensure_command(command, our_file.rpartition("/")[2], description)
    key = guest.job.install_unattend.product_key
    if key is not None:
        file.set_text(SPECIALIZE, SHELL_SETUP, "ProductKey", key.reveal())
    guest.root.write(path, file.data(), mode=PRIVATE, force=key is not None, detail="answer file, completed")
