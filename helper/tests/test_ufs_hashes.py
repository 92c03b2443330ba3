"""Check hashes of FreeBSD 12 and later (R-TASK-FSU-3, T-64), judged by the fixtures' verifier."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snf_image_helper.errors import ImageError
from snf_image_helper.ufs import hashes
from snf_image_helper.ufs.grow import grow
from snf_image_helper.ufs.layout import Superblock, read_superblock
from ufs.reader import Reader
from ufs.structures import FLAG_HASHES
from ufs.structures import crc32c as plain_crc32c
from ufs.superblock import Shape
from ufs.verify import verify
from ufs_images import MIB, filesystem

SHAPE = Shape(version=2, size=8 * MIB, bsize=8192, fsize=1024, hashes=True, journal=True, provider=True)


def superblock_of(fd: int) -> Superblock:
    superblock = read_superblock(fd)
    assert superblock is not None
    return superblock


def test_hashes_that_are_off_leave_nothing_behind(tmp_path: Path) -> None:
    """U-9: flag, kinds and values are cleared in the primary superblock, its copies, and the groups."""
    with filesystem(tmp_path / "image", SHAPE) as fd:
        assert hashes.switch_off(fd, superblock_of(fd)) == 7
        reader = Reader(fd)
        assert (reader.fs["metackhash"], reader.fs["ckhash"], reader.fs["flags"] & FLAG_HASHES) == (0, 0, 0)
        assert verify(fd) == []
        assert hashes.switch_off(fd, superblock_of(fd)) == 0


def test_a_grown_file_system_has_valid_hashes(tmp_path: Path) -> None:
    """T-64, U-10: superblocks, groups and inodes verify; the flags of soft updates stay."""
    with filesystem(tmp_path / "image", SHAPE, device=64 * MIB) as fd:
        flags = Reader(fd).fs["flags"]
        kinds = hashes.switch_off(fd, superblock_of(fd))
        grow(fd, 64 * MIB, provider_size=True)
        hashes.switch_on(fd, superblock_of(fd), kinds, inodes=False)
        assert Reader(fd).fs["metackhash"] == 7
        assert Reader(fd).fs["flags"] == flags
        assert verify(fd) == []


def test_inodes_that_were_written_meanwhile_get_new_hashes(tmp_path: Path) -> None:
    """T-64, U-10: a driver that knows no hashes leaves stale ones."""
    with filesystem(tmp_path / "image", SHAPE) as fd:
        kinds = hashes.switch_off(fd, superblock_of(fd))
        inode = Reader(fd).place(0, "iblkno") + 256 * 4
        os.pwrite(fd, b"\x07\x07\x07\x07", inode + 4)  # another owner
        hashes.switch_on(fd, superblock_of(fd), kinds)
        assert verify(fd) == []
        os.pwrite(fd, b"\x08", inode + 4)
        assert any("hash of inode 4" in problem for problem in verify(fd))


def test_hashes_are_off_before_growing(tmp_path: Path) -> None:
    with (
        filesystem(tmp_path / "image", SHAPE, device=64 * MIB) as fd,
        pytest.raises(ImageError, match="must be switched off"),
    ):
        grow(fd, 64 * MIB, provider_size=True)


def test_many_at_once_are_the_same_as_each_by_itself() -> None:
    """U-10: the check value of CRC-32C, without its final inversion; and columns against rows."""
    assert hashes.crc32c(b"123456789") == 0xE3069283 ^ 0xFFFFFFFF == plain_crc32c(b"123456789")
    data = os.urandom(256 * 17)
    each = [plain_crc32c(data[at : at + 256]) for at in range(0, len(data), 256)]
    assert list(hashes.crc32c_of_each(data, 256)) == each
    assert list(hashes.crc32c_of_each(b"", 256)) == []
