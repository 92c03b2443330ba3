"""What a helper has in memory when its state is saved."""

from __future__ import annotations

import dataclasses
import mmap
from pathlib import Path

import pytest

from snf_image_contract.names import OsFamily, TaskName
from snf_image_helper import preload
from snf_image_helper.families import Later, family_of
from snf_image_helper.tasks import ORDER, DiskStep, GuestStep

ZONES = """\
Node 0, zone      DMA
  per-node stats
      nr_free_high 77777
  pages free     3840
        boost    0
        min      {low}
        low      {low}
        high     40
        present  3998
        protection: (0, 60, {protection}, {protection})
      nr_free_pages 3840
Node 0, zone    DMA32
  pages free     {free}
        boost    0
        min      {low}
        low      {low}
        high     {high}
        present  261862
        protection: (0, 0, 0, 0)
      nr_free_pages {free}
  pagesets
    cpu: 0
              count: 250
              high:  99999
Node 0, zone   Normal
  pages free     0
        boost    0
        min      0
        low      0
        high     0
        present  0
        protection: (0, 0, 0, 0)
"""
"""As the kernel of a helper shows them, which has two zones with something in them."""
MIB = 256
"""Pages."""


def test_the_code_of_every_task_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-14: whatever the order or the table of a family imports later, and whatever one of them will."""
    loaded: set[Later] = set()

    def load(later: Later) -> None:
        loaded.add(later)

    monkeypatch.setattr(Later, "load", load)
    on_disks, on_trees = Later("no_module_yet", "on_disks"), Later("no_module_yet", "on_trees")
    steps = (
        DiskStep(TaskName.FIX_PARTITION_TABLE, on_disks),
        GuestStep(TaskName.RUN_CUSTOM_TASK, lambda _: on_trees),
    )
    monkeypatch.setattr(preload, "ORDER", (*ORDER, *steps))
    monkeypatch.setattr(preload, "_LATER", ())
    preload.load_code()
    fields = [
        getattr(family, field.name)
        for family in map(family_of, OsFamily)
        for field in dataclasses.fields(family)
    ]
    named = {action for action in fields if isinstance(action, Later)}
    assert Later("filesystem_resize", "unmounted") in loaded
    assert len(named) == 10
    assert {*named, on_disks, on_trees} <= loaded


@pytest.mark.parametrize(
    ("free", "high", "protection", "filled"),
    [
        # Of 256 MiB: 200 free, 3 kept for the kernel, all of the small zone that is not kept from us.
        (200 * MIB, 3 * MIB, 1000, 200 * MIB - 3 * MIB + 3840 - 40 - 1000),
        # Of 1024 MiB: as much as 66 kept, and the small zone is not for us.
        (900 * MIB, 66 * MIB, 5000, 900 * MIB - 66 * MIB),
        (66 * MIB, 66 * MIB, 5000, None),
        (10 * MIB, 66 * MIB, 5000, None),
    ],
)
def test_memory_that_is_free_is_filled_with_zeros_and_given_back(
    *, free: int, high: int, protection: int, filled: int | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """R-HLP-14: a state holds what is in use. What the kernel keeps for itself is left, and 4 MiB."""
    made: list[int] = []

    class Map:
        def __init__(self, _: int, size: int, *, flags: int) -> None:
            assert flags & mmap.MAP_POPULATE, "memory that nobody touched is not there"
            made.append(size)

        def close(self) -> None:
            made.append(0)

    zoneinfo = tmp_path / "zoneinfo"
    zoneinfo.write_text(ZONES.format(free=free, high=high, low=high // 2, protection=protection))
    monkeypatch.setattr(preload, "ZONEINFO", str(zoneinfo))
    monkeypatch.setattr(mmap, "mmap", Map)
    preload.clear_free_memory()
    assert made == ([] if filled is None else [(filled - 4 * MIB) * mmap.PAGESIZE, 0])
