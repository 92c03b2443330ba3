"""Kernel modules of the helper image go without the distribution's signature."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from snf_image_process import Completed, run

SCRIPT = Path(__file__).parents[2] / "helper-image" / "remove-signatures"
MAGIC = b"~Module signature appended~\n"
MODULE = b"\x7fELF" + bytes(range(256)) * 8


def signed(module: bytes, signature: bytes, length: int | None = None) -> bytes:
    """As sign-file of the kernel's sources writes it: struct module_signature with PKEY_ID_PKCS7."""
    size = len(signature) if length is None else length
    return module + signature + struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, size) + MAGIC


def remove(*paths: Path) -> Completed:
    return run([sys.executable, str(SCRIPT), *map(str, paths)], timeout=30, accept=(0, 1))


def test_a_signature_is_taken_off_and_nothing_else(tmp_path: Path) -> None:
    one, other = tmp_path / "one.ko", tmp_path / "other.ko"
    one.write_bytes(signed(MODULE, os.urandom(700)))
    other.write_bytes(MODULE)
    os.utime(one, (5, 5))
    assert remove(one, other).status == 0
    assert one.read_bytes() == other.read_bytes() == MODULE
    assert one.stat().st_mtime == 5


def test_a_signature_longer_than_the_module_is_an_error(tmp_path: Path) -> None:
    odd = tmp_path / "odd.ko"
    odd.write_bytes(signed(MODULE, b"short", length=1 << 20))
    done = remove(odd)
    assert done.status == 1
    assert done.stderr.decode() == f"error: {odd}: its signature is longer than the module\n"
    assert odd.read_bytes() == signed(MODULE, b"short", length=1 << 20)
