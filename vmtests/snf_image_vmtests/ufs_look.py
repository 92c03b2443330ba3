"""UFS file systems of deployed disks, read by the fixtures' own reader as a program without privileges.

Debian has no checker for them, and its kernels have no driver that could be trusted to judge itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping

from snf_image_process import Completed, run
from snf_image_vmtests import places

_SECONDS = 300.0


def check(disk: str, offset: int) -> None:
    """Assert that the file system at byte ``offset`` of ``disk`` is sound."""
    done = _run("verify", disk, str(offset))
    assert done.status == 0, done.text + done.stderr.decode("utf-8", "backslashreplace")


def size(disk: str, offset: int) -> tuple[int, int]:
    """Bytes that the superblock speaks of, and bytes that are too few for one cylinder group more."""
    total, too_few = _run("size", disk, str(offset)).text.split()
    return int(total), int(too_few)


@contextlib.contextmanager
def archive(disk: str, offsets: Mapping[str, int]) -> Iterator[str]:
    """Path of a tar archive with every file, as the inspection VM makes it of other file systems."""
    more = [f"{mount}={offset}" for mount, offset in offsets.items() if mount != "/"]
    with tempfile.NamedTemporaryFile(dir=places.build_directory(), prefix=".archive.") as file:
        done = _run("archive", disk, str(offsets["/"]), *more)
        assert done.status == 0, done.stderr.decode("utf-8", "backslashreplace")
        file.write(done.stdout)
        file.flush()
        yield file.name


def _run(*words: str) -> Completed:
    env = {"PYTHONPATH": os.path.join(places.CHECKOUT, "fixtures", "images")}
    argv = [sys.executable, "-m", "ufs", *words]
    return run(argv, timeout=_SECONDS, env=env, accept=tuple(range(256)))
