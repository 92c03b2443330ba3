"""What nearly every job needs, loaded before the state is saved: a restored helper has it in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import shutil
from typing import Final

from snf_image_helper.families import PACKAGES, Later, family_of
from snf_image_process import ProcessError, run

_PROGRAMS: Final = ("e2fsck", "resize2fs", "tune2fs")
_LATER: Final = (
    "_ped",
    "hashlib",
    "tempfile",
    "yaml",
    "snf_image_helper.bsd.fstab",
    "snf_image_helper.inspection",
    "snf_image_helper.linux.yaml_dumper",
    "snf_image_helper.linux.yaml_loader",
    "snf_image_helper.ntfs",
    "snf_image_helper.slices",
    "snf_image_helper.ufs.writing",
)
"""What a cold start leaves until it is needed."""
_LINKER: Final = "/lib64/ld-linux-x86-64.so.2"
_TIMEOUT: Final = 30.0


def preload() -> None:
    """Import the code of every family, and read the most used programs with their libraries."""
    importlib.import_module("snf_image_helper.runner")
    for module in _LATER:
        importlib.import_module(module)
    for name in PACKAGES:
        family = family_of(name)
        for field in dataclasses.fields(family):
            if isinstance(action := getattr(family, field.name), Later):
                action.load()
    files = {path for program in _PROGRAMS for path in _with_libraries(program)}
    for path in sorted(files):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            while file.read(1024 * 1024):
                pass


def _with_libraries(program: str) -> list[str]:
    path = shutil.which(program)
    if path is None:
        return []
    try:
        listed = run([_LINKER, "--list", path], timeout=_TIMEOUT).stdout.decode("ascii", "replace")
    except ProcessError:
        return [path]
    words = (word for line in listed.splitlines() for word in line.split())
    return [path, *(word for word in words if word.startswith("/"))]
