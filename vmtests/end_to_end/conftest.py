"""Fixtures of the tests that run the installed command as a user does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from snf_image_vmtests.caller import ORDINARY_UID, Caller
from snf_image_vmtests.fixture_images import FixtureImage, load_fixture


@pytest.fixture
def caller() -> Iterator[Caller]:
    """Whoever runs the tests, with an empty directory."""
    yield from _caller(None)


@pytest.fixture
def ordinary_user() -> Iterator[Caller]:
    """A user without any right, with an empty directory."""
    yield from _caller(ORDINARY_UID)


def _caller(uid: int | None) -> Iterator[Caller]:
    # Not below pytest's directories, which other users cannot enter.
    directory = tempfile.mkdtemp(prefix="snf-image-test-", dir="/var/tmp")
    try:
        with Caller(directory, uid=uid) as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def alpine() -> FixtureImage:
    """The smallest image: one ext4 partition and an MBR."""
    return load_fixture("alpine-mbr-ext4")


@pytest.fixture
def ubuntu() -> FixtureImage:
    """A GPT whose root partition is number 1 and the last on the disk."""
    return load_fixture("ubuntu-gpt-ext4")
