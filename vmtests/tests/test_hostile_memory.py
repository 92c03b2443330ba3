"""How much memory a command took is told by the command's own process, and not mixed with that of others."""

import json
import sys
from pathlib import Path

from hostile.trial import MEASURING
from snf_image_process import run

MIB = 1024 * 1024
ALLOCATE = "x = bytearray({}); x[::4096] = b'1' * len(x[::4096])"


def measured(tmp_path: Path, program: str) -> dict[str, int]:
    record = tmp_path / "record.json"
    env = {"PYTHONPATH": MEASURING, "SNF_IMAGE_TEST_MEMORY": str(record)}
    run([sys.executable, "-c", program], timeout=60.0, env=env)
    found = json.loads(record.read_text())
    assert isinstance(found, dict)
    return found


def test_the_peak_is_told_although_it_is_over(tmp_path: Path) -> None:
    found = measured(tmp_path, f"{ALLOCATE.format(96 * MIB)}\ndel x")
    assert 96 * 1024 < found["host_kib"] < 150 * 1024
    assert found["child_kib"] == 0


def test_what_children_and_the_parent_have_does_not_count(tmp_path: Path) -> None:
    here = bytearray(b"1" * 100 * MIB)
    child = f"import os, sys\nif os.fork() == 0:\n  {ALLOCATE.format(96 * MIB)}\n  os._exit(0)\nos.wait()"
    found = measured(tmp_path, child)
    assert found["host_kib"] < 60 * 1024, len(here)
    assert found["child_kib"] > 96 * 1024
