"""NTFS on a device: its state, mounting it, growing it; by the programs of ntfs-3g.

Facts: ntfs-3g(8), ntfs-3g.probe(8), ntfsresize(8), ntfsfix(8).
"""

from __future__ import annotations

import enum
import os
import re
import time
from collections.abc import Callable
from typing import Final

from snf_image_helper import partition_table
from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.filesystems import Volume, opened, volume_of, window
from snf_image_process import ProcessError, run

DRIVER: Final = "lowntfs-3g"
"""The one of the two drivers that finds names without regard to letter case."""
_SECONDS: Final = 60.0
_MOUNT_SECONDS: Final = 300.0
_GROW_SECONDS: Final = 3600.0
_ENDED_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
_PROBE_STATES: Final = {0: "clean", 14: "hibernated", 15: "unclean"}
_FLAGS: Final = re.compile(r"^\s*Volume Flags:\s*0x([0-9a-fA-F]{4})", re.MULTILINE)
_DIRTY: Final = 0x0001
_OPTIONS: Final = "nosuid,nodev,noexec,ignore_case,windows_names"


class State(enum.StrEnum):
    """What the log, and a hibernation file, say of a volume (R-TASK-MNT-3)."""

    CLEAN = "clean"
    UNCLEAN = "unclean"
    HIBERNATED = "hibernated"


def state(volume: Volume) -> State:
    """Whether the volume was left behind in order; :class:`ImageError` if it is no NTFS that can be read."""
    accept = tuple(_PROBE_STATES)
    try:
        done = run(["ntfs-3g.probe", "--readwrite", volume.device()], timeout=_SECONDS, accept=accept)
    except ProcessError as error:
        raise ImageError(f"{volume.name}: the NTFS cannot be read: {_words(error)}") from None
    return State(_PROBE_STATES[done.status])


def is_dirty(volume: Volume) -> bool:
    """Whether Windows is to check the volume at its next start (the dirty flag of $Volume)."""
    try:
        done = run(["ntfsinfo", "--force", "--mft", volume.device()], timeout=_SECONDS, output_limit=1 << 16)
    except ProcessError as error:
        raise ImageError(f"{volume.name}: the NTFS cannot be read: {_words(error)}") from None
    found = _FLAGS.search(done.text)
    if found is None:
        raise ImageError(f"{volume.name}: the NTFS does not tell whether it is dirty")
    return bool(int(found[1], 16) & _DIRTY)


def mount(
    volume: Volume, target: str, *, read_only: bool, allow_unclean: bool, warn: Callable[[str], None]
) -> None:
    """Mount, names found without regard to letter case, names that Windows refuses refused (R-TASK-MNT-3).

    A volume that was not left in order is an :class:`ImageError`, unless ``allow_unclean``: then its log is
    discarded and its hibernation ended, with a warning. Looking at it changes nothing, whatever its state.
    """
    options = [_OPTIONS, "ro" if read_only else "rw"]
    if read_only:
        options.append("norecover")
    else:
        options += _recovery(volume, allow_unclean=allow_unclean, warn=warn)
        if is_dirty(volume):
            warn(f"{volume.name}: the NTFS is marked dirty; Windows will check it at its first start")
    _load_fuse()
    try:
        run([DRIVER, "-o", ",".join(options), volume.device(), target], timeout=_MOUNT_SECONDS)
    except ProcessError as error:
        raise ImageError(f"{volume.name}: cannot mount ntfs: {_words(error)}") from None


def _recovery(volume: Volume, *, allow_unclean: bool, warn: Callable[[str], None]) -> list[str]:
    found = state(volume)
    if found is State.CLEAN:
        return ["norecover"]
    what = {
        State.UNCLEAN: "was not cleanly unmounted: its log needs recovery",
        State.HIBERNATED: "holds a hibernated or fast-started Windows",
    }[found]
    if not allow_unclean:
        raise ImageError(
            f"{volume.name}: the NTFS {what}; shut Windows down fully (shutdown /s /t 0) and publish the "
            "image again, or set the property ALLOW_UNCLEAN_NTFS=yes, which discards what was not written yet"
        )
    warn(f"{volume.name}: the NTFS {what}; what was not written yet is discarded (ALLOW_UNCLEAN_NTFS)")
    return ["recover", "remove_hiberfile"]


def _load_fuse() -> None:
    """There is no udev to make /dev/fuse, and without it no request that would load the module."""
    if os.path.exists("/dev/fuse"):
        return
    try:
        run(["modprobe", "fuse"], timeout=_SECONDS)
    except ProcessError as error:
        raise TaskError(f"NTFS cannot be mounted, this helper has no FUSE: {error.reason}") from None


def wait_until_ended(device: str, timeout: float = _ENDED_SECONDS) -> None:
    """Wait for the driver's process of an unmounted device: it may still be writing (R-TASK-UMO-1)."""
    end = time.monotonic() + timeout
    while _drivers_of(device):
        if time.monotonic() >= end:
            raise TaskError(f"{device}: the NTFS driver did not end within {timeout:g} s of the unmount")
        time.sleep(_POLL_SECONDS)


def _drivers_of(device: str) -> list[int]:
    """Processes of the driver for a device; one that is dead and not collected yet has no command line."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as stream:
                words = stream.read(4096).split(b"\0")
        except OSError:  # it has just ended
            continue
        if os.path.basename(words[0]) == DRIVER.encode() and os.fsencode(device) in words:
            found.append(int(name))
    return found


def size(volume: Volume) -> int:
    """Bytes that the boot sector claims, its backup after the last cluster included."""
    with opened(volume.disk) as fd:
        block = window(fd, volume.offset, volume.size)(0, 512)
    sector = int.from_bytes(block[11:13], "little")
    if sector not in (512, 1024, 2048, 4096):
        raise ImageError(f"{volume.name}: the NTFS boot sector speaks of sectors of {sector} bytes")
    return (int.from_bytes(block[40:48], "little") + 1) * sector


def demand_fits(volume: Volume) -> None:
    """:class:`ImageError` for a volume larger than its partition (R-TASK-NTFS-2)."""
    claimed = size(volume)
    if claimed > volume.size:
        raise ImageError(
            f"{volume.name}: the NTFS of {claimed} bytes is larger than its partition of {volume.size}:"
            " the image seems to be truncated"
        )


def grow(volume: Volume, *, clear_dirty: bool) -> tuple[int, int]:
    """Grow an unmounted volume to its partition; its size before and after (R-TASK-NTFS-1).

    A dirty volume is an :class:`ImageError`. Afterwards it is marked dirty, so that Windows checks it,
    unless ``clear_dirty``.
    """
    if is_dirty(volume):
        raise ImageError(
            f"{volume.name}: the NTFS is marked dirty and cannot be grown; let Windows check it (chkdsk /f) "
            "and publish the image again, or do not set OFFLINE_NTFSRESIZE"
        )
    before = size(volume)
    try:
        # Its question is answered rather than silenced: --force would also pass over its own checks.
        run(["ntfsresize", "--no-progress-bar", volume.device()], timeout=_GROW_SECONDS, stdin=b"y\n")
        if clear_dirty:
            run(["ntfsfix", "--clear-dirty", volume.device()], timeout=_SECONDS)
    except ProcessError as error:
        raise TaskError(f"{volume.name}: the NTFS cannot be enlarged: {_words(error)}") from None
    return before, size(_read_again(volume))


def _read_again(volume: Volume) -> Volume:
    if volume.partition is None:
        return volume
    partition = partition_table.read(volume.disk).find(volume.partition.number)
    return volume if partition is None else volume_of(volume.disk, partition)


def _words(error: ProcessError) -> str:
    return "; ".join((error.reason, *(line.strip() for line in error.stderr_tail[:4])))
