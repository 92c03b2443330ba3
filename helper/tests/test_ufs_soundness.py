"""What is refused of a UFS (R-TASK-FSU-3), and that the fixtures' verifier sees damage."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from snf_image_contract.names import OsFamily
from snf_image_helper.errors import ImageError
from snf_image_helper.ufs.layout import Superblock, read_superblock
from snf_image_helper.ufs.soundness import demand_growable, demand_sound
from ufs.reader import Reader
from ufs.superblock import Shape
from ufs.verify import verify
from ufs_images import MIB, filesystem

SHAPE = Shape(version=2, size=8 * MIB, bsize=8192, fsize=1024)


def patched(tmp_path: Path, offset: int, data: bytes, shape: Shape = SHAPE) -> Superblock:
    """The superblock of a file system with ``data`` at ``offset`` of its primary superblock."""
    with filesystem(tmp_path / "image", shape) as fd:
        os.pwrite(fd, data, 65536 + offset)
        superblock = read_superblock(fd)
    assert superblock is not None
    return superblock


def test_a_clean_file_system_is_sound(tmp_path: Path) -> None:
    """U-4: soft updates and their journal are no obstacle when the file system is clean."""
    journalled = Shape(version=2, size=8 * MIB, bsize=8192, fsize=1024, journal=True, hashes=True)
    for shape in (SHAPE, journalled):
        demand_sound(patched(tmp_path, 209, b"\1", shape), "partition 2", OsFamily.FREEBSD)


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (209, b"\0", "not marked clean"),
        (209, b"\2", "not marked clean"),
        (1312, struct.pack("<I", 4), "not marked clean"),
        (1116, struct.pack("<I", 5), "snapshots"),
        (1000, struct.pack("<Q", 8192), "superblock at byte 8192"),
    ],
)
def test_what_must_not_be_written_to_is_refused(tmp_path: Path, offset: int, data: bytes, words: str) -> None:
    """R-TASK-FSU-3, U-1, U-3, U-4, U-6: an image error before anything is written."""
    with pytest.raises(ImageError, match=words):
        demand_sound(patched(tmp_path, offset, data), "partition 2", OsFamily.FREEBSD)


def test_fragments_that_linux_cannot_mount_are_refused(tmp_path: Path) -> None:
    """U-2: fragments of more than 4096 bytes."""
    with filesystem(tmp_path / "image", Shape(version=2, size=16 * MIB, bsize=65536, fsize=8192)) as fd:
        superblock = read_superblock(fd)
        assert superblock is not None
        with pytest.raises(ImageError, match="fragments of at most 4096"):
            demand_sound(superblock, "partition 2", OsFamily.FREEBSD)


def test_a_ufs2_at_the_place_of_ufs1_is_refused(tmp_path: Path) -> None:
    """U-1: neither Linux nor FreeBSD 14 would find it."""
    with filesystem(tmp_path / "image", SHAPE) as fd:
        os.pwrite(fd, os.pread(fd, 8192, 65536), 8192)
        os.pwrite(fd, bytes(8192), 65536)
        with pytest.raises(ImageError, match="superblock is at byte 8192"):
            read_superblock(fd)
        os.pwrite(fd, bytes(8192), 8192)
        assert read_superblock(fd) is None


def test_a_log_of_netbsd_is_refused(tmp_path: Path) -> None:
    """R-TASK-FSU-4: one that needs replay, and one where the file system would grow; of NetBSD only."""
    replay = patched(tmp_path, 1312, struct.pack("<I", 0x100))
    behind = patched(tmp_path, 864, struct.pack("<II", 1, 1))
    inside = patched(tmp_path, 864, struct.pack("<II", 1, 2))
    with pytest.raises(ImageError, match="needs replay"):
        demand_sound(replay, "partition 1", OsFamily.NETBSD)
    demand_sound(replay, "partition 1", OsFamily.FREEBSD)
    with pytest.raises(ImageError, match=r"log \(WAPBL\) behind it"):
        demand_growable(behind, "partition 1", OsFamily.NETBSD)
    demand_growable(behind, "partition 1", OsFamily.OPENBSD)
    demand_growable(inside, "partition 1", OsFamily.NETBSD)


@pytest.mark.parametrize("what", ["counter", "map", "copy", "owner", "total", "links"])
def test_the_verifier_sees_damage(tmp_path: Path, what: str) -> None:
    """A judge that finds nothing proves nothing."""
    with filesystem(tmp_path / "image", SHAPE) as fd:
        reader = Reader(fd)
        header, inodes = reader.place(0, "cblkno"), reader.place(0, "iblkno")
        place = {
            "counter": header + 28,
            "map": header + reader.group(0)["freeoff"] + reader.fs["dblkno"] // 8 + 200,
            "copy": reader.place(0, "sblkno") + 1080,
            "owner": inodes + 256 * 4 + 112,
            "total": 65536 + 1016,
            "links": inodes + 256 * 4 + 2,
        }[what]
        (old,) = os.pread(fd, 1, place)
        os.pwrite(fd, bytes([old ^ 0x5]), place)
        assert verify(fd) != []
