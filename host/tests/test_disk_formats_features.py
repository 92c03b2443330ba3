"""Images in disk formats that need what nobody here knows of: refused by us, or by qemu that opens them."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from hostile import crc32c
from simulated_source import MIB, copied
from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource, SourceSettings
from snf_image_host.errors import ImageError
from snf_image_process import run

KIB: Final = 1 << 10
UNKNOWN: Final = uuid.UUID(int=7).bytes_le
REGIONS: Final = (192 * KIB, 256 * KIB)
"""The table of regions of a VHDX, twice."""
METADATA: Final = 3 * MIB
"""Where qemu puts it."""
FOOTER: Final = -2 * 512
"""Of a VMDK that is a stream; the end of the stream is behind it."""


def made(directory: Path, container: str, *options: str) -> bytearray:
    raw, image = directory / "raw", directory / "made"
    raw.write_bytes(bytes(510) + b"\x55\xaa" + bytes(range(256)) * 4096)
    run(["qemu-img", "convert", "-f", "raw", "-O", container, *options, str(raw), str(image)], timeout=60)
    return bytearray(image.read_bytes())


def arrives(data: bytearray, directory: Path) -> bool:
    (directory / "image").write_bytes(data)
    source = ImageSource(
        path=str(directory / "image"),
        shown="x",
        format=ImageFormat.DISKDUMP,
        container="auto",
        settings=SourceSettings(containers=frozenset({"vmdk", "vhdx"}), runtime_dir=str(directory / "run")),
    )
    copied(source, directory / "disk", size=4 * MIB)
    return (directory / "disk").read_bytes().startswith((directory / "raw").read_bytes())


def add_region(image: bytearray, *, required: bool) -> None:
    end = len(image)
    image += bytes(-end % MIB + MIB)
    for at in REGIONS:
        (count,) = struct.unpack_from("<I", image, at + 8)
        struct.pack_into("<II", image, at + 4, 0, count + 1)
        entry = (UNKNOWN, len(image) - MIB, MIB, int(required))
        struct.pack_into("<16sQII", image, at + 16 + 32 * count, *entry)
        struct.pack_into("<I", image, at + 4, crc32c.inverted(bytes(image[at : at + 64 * KIB])))


def add_metadata(image: bytearray, *, required: bool) -> None:
    (count,) = struct.unpack_from("<H", image, METADATA + 10)
    struct.pack_into("<H", image, METADATA + 10, count + 1)
    entry = (UNKNOWN, 64 * KIB + 512, 8, 4 if required else 0, 0)
    struct.pack_into("<16sIIII", image, METADATA + 32 + 32 * count, *entry)


@pytest.mark.requires("qemu", "qemu-img")
@pytest.mark.parametrize("add", [add_region, add_metadata])
def test_what_a_vhdx_requires_must_be_known(add: Callable[..., None], tmp_path: Path) -> None:
    """D-3: qemu sees to that; what is not required is passed over, as the format says."""
    optional, required = made(tmp_path, "vhdx"), made(tmp_path, "vhdx")
    add(optional, required=False)
    assert arrives(optional, tmp_path)
    add(required, required=True)
    with pytest.raises(ImageError, match=r"cannot be opened: .*not supported"):
        arrives(required, tmp_path)


@pytest.mark.requires("qemu", "qemu-img")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("at", "changed", "why"),
    [(8, 1 << 3, "features"), (10, 1 << 2, "features"), (11, 1 << 7, "features"),
     (10, 1 << 0, "compressed"), (77, 1 << 0, "compressed"), (77, 1 << 1, "compressed")],
)  # fmt: skip
def test_flags_of_a_vmdk_must_be_known(
    at: int, changed: int, why: str, *, stream: bool, tmp_path: Path
) -> None:
    """D-3: qemu passes over them; those of its footer, which it believes, are those of the header."""
    options = ["-o", "subformat=streamOptimized"] if stream else []
    image = made(tmp_path, "vmdk", *options)
    assert arrives(image, tmp_path)
    image[at] ^= changed
    with pytest.raises(ImageError, match=f"{why}.* not known here"):
        arrives(image, tmp_path)


@pytest.mark.requires("qemu", "qemu-img")
@pytest.mark.parametrize("at", [8, 10, 44, 77])
def test_a_footer_of_a_vmdk_has_no_flags_of_its_own(at: int, tmp_path: Path) -> None:
    """D-3: qemu believes it, others the header."""
    image = made(tmp_path, "vmdk", "-o", "subformat=streamOptimized")
    footer = bytes(image[:512])
    image[56:64] = b"\xff" * 8  # where the table is, says the footer
    image += struct.pack("<QII", 1, 0, 3).ljust(512, b"\0") + footer + bytes(512)
    assert arrives(image, tmp_path)
    image[FOOTER + at] ^= 1
    with pytest.raises(ImageError, match="footer that contradicts its header"):
        arrives(image, tmp_path)
