"""Files of an NTFS on a deployed disk, read by ntfs-3g's own tools: nothing is mounted, no VM is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

from snf_image_process import run
from snf_image_vmtests.fixture_images import PartitionFacts

_SECONDS = 60.0


def read_files(disk: str, volume: PartitionFacts, paths: Iterable[str]) -> dict[str, bytes]:
    """The contents of ``paths``, which must be there, in the letter case of the disk.

    ``volume``: where the volume was in the image; one that Windows itself is to grow is as large as it was.
    """
    with tempfile.NamedTemporaryFile(prefix=".volume.", dir="/var/tmp") as copy:
        argv = [
            "dd",
            f"if={disk}",
            f"of={copy.name}",
            "bs=1M",
            f"skip={volume.start}",
            f"count={volume.size}",
        ]
        run([*argv, "conv=sparse"], timeout=_SECONDS)
        return {path: run(["ntfscat", copy.name, path], timeout=_SECONDS).stdout for path in paths}
