"""What nearly every job needs, loaded before the state is saved: a restored helper has it in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import mmap
import shutil
from typing import Final

from snf_image_helper.families import PACKAGES, Later, family_of
from snf_image_process import ProcessError, run

_PROGRAMS: Final = ("e2fsck", "resize2fs", "tune2fs")
_LATER: Final = (
    "_ped",
    "hashlib",
    "tempfile",
    "uuid",
    "yaml",
    "snf_image_helper.bsd.fstab",
    "snf_image_helper.filesystem_resize",
    "snf_image_helper.inspection",
    "snf_image_helper.linux.yaml_dumper",
    "snf_image_helper.linux.yaml_loader",
    "snf_image_helper.mounts",
    "snf_image_helper.ntfs",
    "snf_image_helper.overwriting",
    "snf_image_helper.slices",
    "snf_image_helper.ufs.writing",
)
"""What a cold start leaves until it is needed."""
_LINKER: Final = "/lib64/ld-linux-x86-64.so.2"
_TIMEOUT: Final = 30.0
_DROP_CACHES: Final = "/proc/sys/vm/drop_caches"
_MIB: Final = 1024 * 1024
_LEFT_FREE: Final = 8 * _MIB
"""So that the kernel need not take back pages that were just read."""


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
    with open(_DROP_CACHES, "w", encoding="ascii") as file:
        file.write("1\n")  # of files whose contents are in use already
    files = {path for program in _PROGRAMS for path in _with_libraries(program)}
    for path in sorted(files):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            while file.read(_MIB):
                pass
    clear_free_memory()


def clear_free_memory() -> None:
    """Have the kernel fill with zeros what memory is free: a state holds next to nothing of a page of zeros.

    All that it holds is read and compared with its digest at every restore.
    """
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) for line in file if line.startswith("MemFree:")) * 1024
    if free > _LEFT_FREE:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, free - _LEFT_FREE, flags=flags).close()


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
