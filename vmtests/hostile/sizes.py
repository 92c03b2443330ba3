"""Images that end too early, and file systems that are larger than their partitions."""

from __future__ import annotations

from typing import Final

from hostile import gpt
from hostile.image import EITHER, HostileImage
from hostile.region import MIB, SECTOR, ImageFile

_KINDS: Final = {
    "ext4": "alpine-mbr-ext4",
    "xfs": "centos7-mbr-xfs",
    "btrfs": "sles16-gpt-btrfs",
    "ntfs": "windows2022-gpt-ntfs",
    "ufs1": "netbsd-mbr-ffs1-big-endian",
    "ufs2": "freebsd-gpt-ufs2",
}
_MISSING: Final = 8 * MIB


def _cut_off(image: ImageFile) -> None:
    """In the middle of a sector of the last partition."""
    image.truncate(image.root.start + image.root.size // 2 + 100)


def _only_the_table(image: ImageFile) -> None:
    image.truncate(SECTOR)


def _half_a_sector(image: ImageFile) -> None:
    image.truncate(SECTOR // 2)


def _smaller_partition(image: ImageFile) -> None:
    """The partition of the root file system ends eight mebibytes before that."""
    if image.fixture.facts.table == "gpt":
        gpt.shorten(image, image.fixture.facts.root_partition - 1, _MISSING // SECTOR)
        return
    at = 446 + 16 * (image.fixture.facts.root_partition - 1) + 12
    image.put(at, "<I", image.number(at, "<I") - _MISSING // SECTOR)


IMAGES: Final = (
    *(
        HostileImage(
            id=f"size-{kind}-cut-off", base=base, structure="size: image cut off", damage=_cut_off,
            words="cut off",
        )
        for kind, base in _KINDS.items()
    ),
    HostileImage(
        id="size-one-sector", base=_KINDS["ext4"], structure="size: image cut off", damage=_only_the_table,
        words="cut off",
    ),
    HostileImage(
        id="size-half-a-sector", base=_KINDS["ext4"], structure="size: image cut off", damage=_half_a_sector
    ),
    *(
        HostileImage(
            id=f"size-{kind}-larger-than-its-partition", base=base,
            structure="size: file system larger than its partition", damage=_smaller_partition, ends=EITHER,
        )
        for kind, base in _KINDS.items()
    ),
)  # fmt: skip
