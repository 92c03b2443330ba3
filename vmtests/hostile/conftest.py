"""Runs every image of the corpus, or with ``--image-sample`` the fixed few."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from hostile.corpus import CORPUS, sample
from snf_image_vmtests.caller import Caller


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "hostile_image" in metafunc.fixturenames:
        images = sample() if metafunc.config.getoption("--image-sample") > 1 else CORPUS
        metafunc.parametrize("hostile_image", images, ids=[image.id for image in images])


@pytest.fixture
def caller() -> Iterator[Caller]:
    """Whoever runs the tests, with an empty directory."""
    with tempfile.TemporaryDirectory(prefix="snf-image-hostile-", dir="/var/tmp") as directory:
        with Caller(directory) as made:
            yield made
        shutil.rmtree(directory, ignore_errors=True)
