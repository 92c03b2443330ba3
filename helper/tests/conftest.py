"""Fixtures for tests of the helper."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trees
from snf_image_helper import replacing
from snf_image_helper.guest import Guest


@pytest.fixture
def guest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trees.GuestOf]:
    """Makes guests on trees of their own: ``guest_of({"/etc/hostname": "old\\n"}, cloud_init=True)``.

    What a path holds is said by :data:`trees.Node`; keywords are fields of the job, and those of
    :func:`trees.make_guest`.
    """
    if os.geteuid() != 0:
        monkeypatch.setattr(replacing, "give", trees.note_owner)
    # What a test writes need not survive the machine, and waiting for the disk takes most of the time.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    opened: list[Guest] = []

    def make(tree: trees.Tree, **fields: Any) -> Guest:
        top = tmp_path / f"guest{len(opened)}"
        top.mkdir()
        guest = trees.make_guest(str(top), tree, **fields)
        opened.append(guest)
        return guest

    yield make
    for guest in opened:
        os.close(guest.root._fd)
    trees.NOTED.clear()
