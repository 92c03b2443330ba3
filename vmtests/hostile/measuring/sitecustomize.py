"""Loaded by Python when it starts the command under test: writes down in the end how much memory it took.

``wait4`` would not tell: it mixes in what children had, and what the parent had before the command's start.
"""

import atexit
import json
import os
import resource


def _write(path: str) -> None:
    with open("/proc/self/status", encoding="ascii") as file:
        (peak,) = [line.split()[1] for line in file if line.startswith("VmHWM:")]
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with open(path, "w", encoding="ascii") as record:
        json.dump({"host_kib": int(peak), "child_kib": children}, record)


if "SNF_IMAGE_TEST_MEMORY" in os.environ:
    atexit.register(_write, os.environ.pop("SNF_IMAGE_TEST_MEMORY"))
