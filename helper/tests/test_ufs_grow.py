"""Growing UFS offline (R-TASK-FSU-3, R-TASK-FSU-4), judged by the fixtures' verifier, which counts anew."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_helper.errors import ImageError
from snf_image_helper.ufs.grow import Growth, grow
from snf_image_helper.ufs.layout import read_superblock
from ufs.reader import Reader
from ufs.superblock import Shape
from ufs.verify import verify
from ufs_images import MIB, NODES, filesystem

pytestmark = pytest.mark.slow

GIB = 1024 * MIB
_BLOCKS = [(4096, 512), (4096, 4096), (8192, 1024), (8192, 4096), (16384, 2048), (32768, 4096), (65536, 8192)]


def shape_of(**wanted: object) -> Shape:
    return Shape(**({"version": 2, "size": 8 * MIB, "bsize": 8192, "fsize": 1024} | wanted))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("blocks", _BLOCKS, ids=str)
def test_what_grew_is_sound_and_full_size(
    tmp_path: Path, version: int, order: str, blocks: tuple[int, int]
) -> None:
    """R-TASK-FSU-3, R-TASK-FSU-4: every counter, map and copy is right in both versions and byte orders."""
    shape = shape_of(version=version, order=order, bsize=blocks[0], fsize=blocks[1], size=12 * MIB + 512 * 3)
    with filesystem(tmp_path / "image", shape, device=40 * MIB) as fd:
        assert verify(fd) == []
        assert isinstance(grow(fd, 40 * MIB, provider_size=False), Growth)
        assert verify(fd) == []
        reader = Reader(fd)
        assert 40 * MIB - reader.size < 4 * MIB
        contents = {file.path: reader.contents(file.inode) for file in reader.walk() if file.path == "/big"}
        assert contents == {"/big": NODES[3].data}


@settings(max_examples=25, deadline=None)
@given(
    version=st.sampled_from([1, 2]),
    order=st.sampled_from("<>"),
    blocks=st.sampled_from(_BLOCKS[:5]),
    group=st.sampled_from([None, 256, 1024, 2048]),
    clusters=st.sampled_from([0, 7, 16]),
    size=st.integers(min_value=4 * MIB, max_value=6 * MIB),
    more=st.integers(min_value=0, max_value=12 * MIB),
    stagger=st.sampled_from([0, 32]),
)
def test_any_size_grows_soundly(
    *,
    version: int,
    order: str,
    blocks: tuple[int, int],
    group: int | None,
    clusters: int,
    size: int,
    more: int,
    stagger: int,
) -> None:
    """R-TASK-FSU-3, R-TASK-FSU-4: partial fragments, blocks and groups; several groups; twice."""
    bsize, fsize = blocks
    if group is not None:
        group = group * 4096 // fsize // (bsize // fsize) * (bsize // fsize)
        if group // 8 > bsize * 2 // 5:
            group = None
    shape = shape_of(
        version=version, order=order, bsize=bsize, fsize=fsize, group=group, clusters=clusters, size=size,
        stagger=stagger if version == 1 and group is not None else 0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image"
        with filesystem(path, shape) as fd:
            assert verify(fd) == []
            for device in (size + more // 2, size + more):
                os.ftruncate(fd, device)
                before = Reader(fd).size
                growth = grow(fd, device, provider_size=False)
                assert (growth is None) == (Reader(fd).size == before)
                assert verify(fd) == []


def test_the_summary_moves_when_it_no_longer_fits(tmp_path: Path) -> None:
    """R-TASK-FSU-3: past the groups of one fragment's summary, it moves and its old place becomes free."""
    shape = shape_of(group=2048, size=16 * MIB)
    with filesystem(tmp_path / "image", shape, device=300 * MIB) as fd:
        growth = grow(fd, 300 * MIB, provider_size=False)
        assert growth is not None
        assert growth.summary is not None
        assert verify(fd) == []


def test_old_data_behind_the_file_system_does_no_harm(tmp_path: Path) -> None:
    """R-TASK-FSU-3: inodes of new groups are zeroed, because a logical volume holds what was there before."""
    with filesystem(tmp_path / "image", shape_of(version=1), device=64 * MIB) as fd:
        os.pwrite(fd, b"\xff" * (56 * MIB), 8 * MIB)
        assert grow(fd, 64 * MIB, provider_size=False) is not None
        assert verify(fd) == []


def test_what_fills_its_partition_stays_byte_for_byte(tmp_path: Path) -> None:
    with filesystem(tmp_path / "image", shape_of()) as fd:
        before = os.pread(fd, 8 * MIB, 0)
        assert grow(fd, 8 * MIB, provider_size=True) is None
        with pytest.raises(ImageError, match="larger than its partition"):
            grow(fd, 7 * MIB, provider_size=True)
        assert os.pread(fd, 8 * MIB, 0) == before


def test_the_record_of_the_device_is_of_freebsd_only(tmp_path: Path) -> None:
    """R-TASK-FSU-3: ``fs_providersize`` is FreeBSD's; others use the bytes for something else."""
    for freebsd, expected in ((True, 32 * 1024), (False, 8 * 1024)):
        with filesystem(tmp_path / "image", shape_of(provider=True), device=32 * MIB) as fd:
            grow(fd, 32 * MIB, provider_size=freebsd)
            assert Reader(fd).fs["providersize"] == expected
            assert verify(fd) == []


@pytest.mark.parametrize(
    ("place", "data"),
    [("cblkno", b"\0" * 200), ("cblkno", b"\xff" * 32768)],
    ids=["no header", "nonsense"],
)
def test_damaged_groups_are_refused_before_the_first_write(tmp_path: Path, place: str, data: bytes) -> None:
    """R-TASK-FSU-3: what contradicts itself is an error, and the file system is left alone."""
    with filesystem(tmp_path / "image", shape_of(), device=64 * MIB) as fd:
        os.pwrite(fd, data[:8192], Reader(fd).place(0, place))
        before = os.pread(fd, 64 * MIB, 0)
        with pytest.raises(ImageError, match="cylinder group 0"):
            grow(fd, 64 * MIB, provider_size=False)
        assert os.pread(fd, 64 * MIB, 0) == before


@pytest.mark.parametrize("version", [1, 2])
def test_a_summary_that_lies_is_counted_anew(tmp_path: Path, version: int) -> None:
    """R-TASK-FSU-3: the totals are those of the groups; a UFS1 has no room for the sums of nonsense."""
    shape = shape_of(version=version, group=2048)
    with filesystem(tmp_path / "image", shape, device=64 * MIB) as fd:
        superblock = read_superblock(fd)
        assert superblock is not None
        os.pwrite(fd, b"\xff" * 16, superblock.summary_address * superblock["fsize"])
        assert verify(fd) != []
        assert grow(fd, 64 * MIB, provider_size=False) is not None
        assert verify(fd) == []


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("count", range(4), ids=["ndir", "nbfree", "nifree", "nffree"])
def test_groups_that_count_too_much_are_refused_before_the_first_write(
    tmp_path: Path, version: int, count: int
) -> None:
    """R-TASK-FSU-3: group 1 is neither the last, whose counts are made anew, nor the first."""
    shape = shape_of(version=version, group=2048)
    with filesystem(tmp_path / "image", shape, device=64 * MIB) as fd:
        os.pwrite(fd, b"\xff" * 4, Reader(fd).place(1, "cblkno") + 24 + 4 * count)
        before = os.pread(fd, 64 * MIB, 0)
        with pytest.raises(ImageError, match="cylinder group 1 is damaged"):
            grow(fd, 64 * MIB, provider_size=False)
        assert os.pread(fd, 64 * MIB, 0) == before


@settings(max_examples=100, deadline=None)
@given(offset=st.integers(min_value=0, max_value=1375), value=st.binary(min_size=1, max_size=8))
def test_a_superblock_of_nonsense_is_an_image_error(offset: int, value: bytes) -> None:
    """R-TASK-FSU-3: whatever stands in a superblock, growing ends, or says that the image is bad."""
    with tempfile.TemporaryDirectory() as directory, filesystem(
        Path(directory) / "image", shape_of(size=4 * MIB), device=16 * MIB
    ) as fd:  # fmt: skip
        os.pwrite(fd, value, 65536 + offset)
        try:
            if read_superblock(fd) is not None:
                grow(fd, 16 * MIB, provider_size=False)
        except ImageError as error:
            assert "UFS" in str(error)  # noqa: PT017 - either outcome is good
        assert os.fstat(fd).st_size == 16 * MIB


@pytest.mark.parametrize(
    ("before", "after", "seconds"), [(64 * MIB, 512 * MIB, 1.0), (6 * GIB, 100 * GIB, 6.0)], ids=["64M", "6G"]
)
def test_growing_is_quick(tmp_path: Path, before: int, after: int, seconds: float) -> None:
    """R-TASK-FSU-3: a small image in less than a second, 6 GiB to 100 GiB in less than six."""
    shape = Shape(version=2, size=before)
    with filesystem(tmp_path / "image", shape, device=after) as fd:
        begun = time.process_time()
        assert grow(fd, after, provider_size=True) is not None
        assert time.process_time() - begun < seconds
        assert after - Reader(fd).size < 64 * MIB
