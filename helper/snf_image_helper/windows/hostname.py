"""Task AssignHostname for Windows: the computer's name (R-TASK-HOST-7)."""

from __future__ import annotations

import re
from typing import Final

from snf_image_helper.errors import RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.windows.answer_file import SHELL_SETUP, SPECIALIZE
from snf_image_helper.windows.install_unattend import answer_files, save

MAX_NAME: Final = 15
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


def computer_name(instance: str) -> str:
    """The name that a computer gets from its instance's: what stands before the first dot.

    :class:`RequestError` if Windows would not take it.
    """
    name = instance.partition(".")[0]
    if not _NAME.fullmatch(name):
        raise RequestError(f"{name!r} cannot name a Windows computer: letters, digits, - and _ only")
    if len(name) > MAX_NAME:
        raise RequestError(f"{name!r} cannot name a Windows computer: longer than {MAX_NAME} characters")
    if name.isdigit():
        raise RequestError(f"{name!r} cannot name a Windows computer: nothing but digits")
    return name


def assign_hostname(guest: Guest) -> None:
    name = computer_name(guest.job.assign_hostname.name)
    files = answer_files(guest)
    for file in files:
        file.set_text(SPECIALIZE, SHELL_SETUP, "ComputerName", name)
    save(guest, files, "computer name")
