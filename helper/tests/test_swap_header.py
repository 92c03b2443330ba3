"""The header of a swap area, read by other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_helper import swap_header
from snf_image_helper.errors import TaskError
from snf_image_process import run

IDENTIFIER = "6b1a3f44-93c1-4f0e-9ad7-0a5a3c2b1d4e"
MIB = 1 << 20


@pytest.mark.requires("swap")
@pytest.mark.parametrize("size", [40960, 40960 + 511, MIB, 2 * MIB, 5 * MIB + 4096])
def test_it_is_the_one_that_mkswap_makes(tmp_path: Path, size: int) -> None:
    """R-TASK-SWAP-3: version 1, byte for byte, with a new UUID."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        path.write_bytes(bytes(size))
    swap_header.write_header(str(ours), size, IDENTIFIER)
    run(["mkswap", "--pagesize", "4096", "--uuid", IDENTIFIER, str(theirs)], timeout=30)
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.requires("swap")
@pytest.mark.parametrize("offset", [0, 1024, 0x10000 + 64, 0x40000, -65536, -4096])
def test_nothing_of_what_it_was_is_found(tmp_path: Path, offset: int) -> None:
    """R-TASK-SWAP-3: signatures of file systems, volumes and arrays, wherever they have them."""
    path = tmp_path / "device"
    content = bytearray(b"\xa5" * (4 * MIB))
    path.write_bytes(content)
    swap_header.write_header(str(path), len(content), IDENTIFIER)
    after = path.read_bytes()
    assert after[offset : offset + 64 or None] != content[:64]
    assert after[MIB : 3 * MIB] == content[MIB : 3 * MIB]
    assert b"swap" in run(["blkid", "-p", "-o", "value", "-s", "TYPE", str(path)], timeout=30).stdout


@given(st.integers(0, 10 * 4096 - 1))
def test_a_device_that_is_too_small_is_told_and_not_touched(size: int) -> None:
    with pytest.raises(TaskError, match=f"{size} bytes are too few"):
        swap_header.write_header("/nonexistent", size, IDENTIFIER)
