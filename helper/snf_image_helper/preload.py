"""What nearly every job needs, loaded before the state is saved: a restored helper has it in memory."""

from __future__ import annotations

import contextlib
import importlib
import mmap
import re
import shutil
from typing import Final

from snf_image_helper.families import PACKAGES, Later, family_of
from snf_image_helper.tasks import ORDER, DiskStep, GuestStep
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
    "snf_image_helper.mounts",
    "snf_image_helper.ntfs",
    "snf_image_helper.overwriting",
    "snf_image_helper.runner",
    "snf_image_helper.slices",
    "snf_image_helper.ufs.writing",
)
"""What a cold start leaves until it is needed, but for what tasks name."""
_LINKER: Final = "/lib64/ld-linux-x86-64.so.2"
_TIMEOUT: Final = 30.0
_DROP_CACHES: Final = "/proc/sys/vm/drop_caches"
_MIB: Final = 1024 * 1024
ZONEINFO: Final = "/proc/zoneinfo"
_ZONE: Final = re.compile(r"pages free +(\d+).*?\bhigh +(\d+).*?protection: \(([^)]*)\)", re.DOTALL)
_LEFT_FREE: Final = 4 * _MIB
"""For page tables and whatever else runs, beside what the kernel keeps for itself."""


def preload() -> None:
    """Import the code of every task, and read the most used programs with their libraries."""
    load_code()
    with open(_DROP_CACHES, "w", encoding="ascii") as file:
        file.write("1\n")  # of files whose contents are in use already
    files = {path for program in _PROGRAMS for path in _with_libraries(program)}
    for path in sorted(files):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            while file.read(_MIB):
                pass
    clear_free_memory()


def load_code() -> None:
    """Import what runs later than at the start: every task, for every family."""
    for module in _LATER:
        importlib.import_module(module)
    for family in map(family_of, PACKAGES):
        for step in ORDER:
            disk_action = step.run if isinstance(step, DiskStep) else None
            action = step.action(family) if isinstance(step, GuestStep) else disk_action
            if isinstance(action, Later):
                action.load()


def clear_free_memory() -> None:
    """Have the kernel fill with zeros what memory is free: a state holds next to nothing of a page of zeros.

    All that it holds is read and compared with its digest at every restore.
    """
    size = _spare_memory() - _LEFT_FREE
    if size > 0:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, size, flags=flags).close()


def _spare_memory() -> int:
    """Bytes that can be had before the kernel takes pages back, or kills, to have its reserves again.

    From 512 MiB on these are tens of mebibytes, as it then uses huge pages.
    """
    with open(ZONEINFO, encoding="ascii") as file:
        zones = _ZONE.findall(file.read())
    pages = 0
    for free, high, protection in zones:
        kept = int(high) + max(map(int, protection.split(",")))
        pages += max(0, int(free) - kept)
    return pages * mmap.PAGESIZE


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
