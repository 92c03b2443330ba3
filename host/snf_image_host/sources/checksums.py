"""Checksum files, as sha256sum, sha512sum and the BSDs write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_SIZE: Final = 1024 * 1024
BESIDE: Final = ("{}.sha256", "{}.sha512", "SHA256SUMS", "SHA512SUMS")
"""Where they are looked for beside an image; {} is its name."""
_ALGORITHMS: Final = {64: "sha256", 128: "sha512"}
_GNU: Final = re.compile(r"([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128}) [ *](.+)")
_BSD: Final = re.compile(r"SHA(?:256|512) \((.+)\) = ([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})")
_BARE: Final = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{128}")


def digests_of(name: str, document: bytes) -> Mapping[str, str]:
    """Digests that a checksum file gives for the file ``name``, by algorithm; empty if it has no such line.

    A file of nothing but one digest is about its neighbour. Of contradicting lines none counts: empty.
    """
    found: dict[str, str] = {}
    lines = [line.rstrip() for line in document.decode("utf-8", "replace").splitlines() if line.strip()]
    if len(lines) == 1 and _BARE.fullmatch(lines[0]):
        return {_ALGORITHMS[len(lines[0])]: lines[0].lower()}
    for line in lines:
        gnu, bsd = _GNU.fullmatch(line), _BSD.fullmatch(line)
        if gnu:
            digest, of = gnu[1].lower(), gnu[2]
        elif bsd:
            digest, of = bsd[2].lower(), bsd[1]
        else:
            continue
        if of.removeprefix("./") == name and found.setdefault(_ALGORITHMS[len(digest)], digest) != digest:
            return {}
    return found
