"""All images of the corpus, and those of them that run each time."""

from __future__ import annotations

from typing import Final

from hostile import (
    btrfs,
    disklabel,
    dumps,
    ext,
    ffs,
    gpt,
    linux_services,
    linux_trees,
    mbr,
    ntfs,
    sizes,
    windows_trees,
    xfs,
)
from hostile.image import HostileImage

CORPUS: Final[tuple[HostileImage, ...]] = (
    *mbr.IMAGES,
    *gpt.IMAGES,
    *disklabel.IMAGES,
    *ext.IMAGES,
    *xfs.IMAGES,
    *btrfs.IMAGES,
    *ntfs.IMAGES,
    *ffs.IMAGES,
    *sizes.IMAGES,
    *dumps.IMAGES,
    *linux_trees.IMAGES,
    *linux_services.IMAGES,
    *windows_trees.IMAGES,
)


def sample() -> tuple[HostileImage, ...]:
    """The few that every run of the tests deploys: one of each family of operating systems."""
    return tuple(image for image in CORPUS if image.sampled)
