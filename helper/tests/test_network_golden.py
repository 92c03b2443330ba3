"""What each back-end writes for each kind of NIC, file by file.

``SNF_IMAGE_WRITE_GOLDEN=1 pytest helper/tests/test_network_golden.py`` writes the files anew: read the
difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import network_images
from network_images import CASES, IMAGES
from snf_image_helper.linux.network import chosen_backend, configure_network
from trees import GuestOf

GOLDEN = Path(__file__).parent / "golden" / "network"


def sections(backend: str, guest_of: GuestOf) -> dict[str, str]:
    found = {}
    image = IMAGES[backend]
    for name, asked in CASES.items():
        guest = guest_of(image.tree, configure_network=asked, **image.fields)
        configure_network(guest)
        found[name] = network_images.written(guest)
    return found


@pytest.mark.parametrize("backend", IMAGES)
def test_every_back_end_writes_what_was_reviewed(backend: str, guest_of: GuestOf) -> None:
    """R-NET-5, R-NET-6, R-NET-7, R-NET-8, R-NET-14, R-NET-IFUP-1, R-NET-IFUP-2, R-NET-IFCFG-1, R-NET-IFCFG-2,
    R-NET-NM-1, R-NET-NP-1, R-NET-NP-2, R-NET-ND-1, R-NET-WI-1, R-NET-GE-1, R-NET-SL-1, R-NET-CI-1,
    R-NET-CI-2, R-NET-CI-3, T-115."""
    text = "".join(f"##### {name}\n{part}\n" for name, part in sections(backend, guest_of).items())
    path = GOLDEN / f"{backend}.txt"
    if os.environ.get("SNF_IMAGE_WRITE_GOLDEN"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("backend", IMAGES)
def test_the_image_decides(backend: str, guest_of: GuestOf) -> None:
    """R-NET-11."""
    image = IMAGES[backend]
    assert chosen_backend(guest_of(image.tree, **image.fields)) == image.backend
