"""Hives, answer files and scripts on a sound NTFS that are meant to harm whoever reads them.

Hives: a base block of 4096 bytes whose number at 36 is the place of the root key; places are counted behind
it. A cell is its size, negative in use, and a structure: ``nk`` has its number of subkeys at 24, their list
at 32; a list ``lf`` or ``lh`` has a count at 6 and then pairs of place and hash, ``ri`` places of lists.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from typing import Final

from hostile.image import EITHER, REFUSED, HostileImage
from hostile.region import MIB, ImageFile
from snf_image_process import run

_WINDOWS: Final = "windows7-mbr-ntfs"
_LEGACY: Final = "windows2003-mbr-ntfs"
_SYSTEM: Final = "/Windows/System32/config/SYSTEM"
_SOFTWARE: Final = "/Windows/System32/config/SOFTWARE"
_SAM: Final = "/Windows/System32/config/SAM"
_ANSWERS: Final = "/UNATTEND.xml"
_SCRIPT: Final = "/Windows/Setup/SCRIPTS/setupcomplete.CMD"
_SECONDS: Final = 60.0
_BASE_BLOCK: Final = 4096
_SUBKEYS, _LIST = 24, 32
_OUR_NAMESPACE: Final = "urn:schemas-microsoft-com:unattend"


def put(path: str, content: bytes) -> Callable[[ImageFile], None]:
    """Another content of a file."""

    def damage(image: ImageFile) -> None:
        with image.root.extracted() as volume:
            _write(volume, path, content)

    return damage


def _write(volume: str, path: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = os.path.join(directory, "content")
        with open(source, "xb") as file:
            file.write(content)
        run(["ntfscp", "--quiet", "--force", volume, source, path], timeout=_SECONDS)


def _in_hive(path: str, change: Callable[[bytearray], None]) -> Callable[[ImageFile], None]:
    """Change a hive's bytes."""

    def damage(image: ImageFile) -> None:
        with image.root.extracted() as volume:
            hive = bytearray(run(["ntfscat", "--force", volume, path], timeout=_SECONDS).stdout)
            change(hive)
            _write(volume, path, bytes(hive))

    return damage


def _root_key(hive: bytearray) -> int:
    """Byte of the root key's cell."""
    at = _BASE_BLOCK + int(struct.unpack_from("<I", hive, 36)[0])
    assert hive[at + 4 : at + 6] == b"nk", "no root key where the base block says"
    return at


def _list(hive: bytearray) -> int:
    """Byte of the cell that lists the root key's subkeys."""
    return _BASE_BLOCK + int(struct.unpack_from("<I", hive, _root_key(hive) + _LIST)[0])


def subkeys_lead_to_root(hive: bytearray) -> None:
    """Every subkey of the root is the root."""
    at = _list(hive)
    for index in range(struct.unpack_from("<H", hive, at + 6)[0]):
        struct.pack_into("<I", hive, at + 8 + 8 * index, _root_key(hive) - _BASE_BLOCK)


def list_of_itself(hive: bytearray) -> None:
    """The list of subkeys is one of lists, and the only one in it is itself."""
    at = _list(hive)
    struct.pack_into("<2sHI", hive, at + 4, b"ri", 1, at - _BASE_BLOCK)


def huge_cell(hive: bytearray) -> None:
    """The root key says that it has two gibibytes."""
    struct.pack_into("<i", hive, _root_key(hive), -0x7FFFFFF8)


def free_cells_of_no_bytes(hive: bytearray) -> None:
    """Whoever steps from cell to cell, stays at the first."""
    struct.pack_into("<i", hive, _BASE_BLOCK + 32, 0)


def billions_of_subkeys(hive: bytearray) -> None:
    struct.pack_into("<I", hive, _root_key(hive) + _SUBKEYS, 0xFFFFFFF0)


def root_key_outside(hive: bytearray) -> None:
    struct.pack_into("<I", hive, 36, 0xFFFFFFF0)


def cut_off(hive: bytearray) -> None:
    del hive[_BASE_BLOCK + 100 :]


def flipped(hive: bytearray) -> None:
    """Every 13th byte behind the first bin's header."""
    for at in range(_BASE_BLOCK + 36, len(hive), 13):
        hive[at] ^= 0x55


def billion_laughs() -> bytes:
    """XML in which each of ten entities has the one before ten times."""
    entities = ['<!ENTITY e0 "lol">']
    entities += [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 11)]
    return _document("<x>&e10;</x>", entities)


def outside_entity() -> bytes:
    """XML with the content of a file of whoever reads it."""
    return _document("<x>&e0;</x>", ['<!ENTITY e0 SYSTEM "file:///etc/passwd">'])


def nested_elements(depth: int) -> bytes:
    return _document("<x>" * depth + "</x>" * depth, [])


def long_attribute(length: int) -> bytes:
    return _document(f'<x y="{"z" * length}"/>', [])


def _document(content: str, entities: list[str]) -> bytes:
    kind = f"<!DOCTYPE unattend [{''.join(entities)}]>" if entities else ""
    return f'<?xml version="1.0"?>{kind}<unattend xmlns="{_OUR_NAMESPACE}">{content}</unattend>'.encode()


def _hive(
    name: str, path: str, change: Callable[[bytearray], None], *, ends: frozenset[int] = EITHER
) -> HostileImage:
    return HostileImage(
        id=f"windows-{name}",
        base=_WINDOWS,
        structure="windows: hive",
        damage=_in_hive(path, change),
        ends=ends,
    )


def _answers(
    name: str, content: bytes, *, ends: frozenset[int] = REFUSED, sampled: bool = False
) -> HostileImage:
    return HostileImage(
        id=f"windows-answers-{name}", base=_WINDOWS, structure="windows: XML", damage=put(_ANSWERS, content),
        ends=ends, sampled=sampled,
    )  # fmt: skip


IMAGES: Final = (
    _hive("subkeys-lead-to-root", _SYSTEM, subkeys_lead_to_root),
    _hive("subkeys-list-themselves", _SYSTEM, list_of_itself),
    _hive("key-of-2-gib", _SOFTWARE, huge_cell),
    _hive("cells-of-no-bytes", _SYSTEM, free_cells_of_no_bytes),
    _hive("billions-of-subkeys", _SAM, billions_of_subkeys),
    _hive("root-key-outside", _SYSTEM, root_key_outside),
    _hive("hive-cut-off", _SOFTWARE, cut_off),
    _hive("hive-flipped", _SYSTEM, flipped),
    HostileImage(
        id="windows-hive-empty", base=_WINDOWS, structure="windows: hive", damage=put(_SYSTEM, b""),
        ends=EITHER,
    ),
    HostileImage(
        id="windows-hive-of-16-mib", base=_WINDOWS, structure="windows: hive",
        damage=put(_SOFTWARE, b"regf" + bytes(16 * MIB)), ends=EITHER,
    ),
    _answers("billion-laughs", billion_laughs(), sampled=True),
    _answers("with-a-file-of-the-helper", outside_entity()),
    _answers("nested-200000-deep", nested_elements(200_000)),
    _answers("with-an-attribute-of-16-mib", long_attribute(16 * MIB), ends=EITHER),
    _answers("of-no-text", bytes(range(256)) * 16),
    _answers("of-another-kind", b'<?xml version="1.0" encoding="UTF-7"?><html/>'),
    HostileImage(
        id="windows-legacy-subkeys-lead-to-root", base=_LEGACY, structure="windows: hive",
        damage=_in_hive("/WINDOWS/system32/config/system", subkeys_lead_to_root), ends=EITHER,
    ),
    HostileImage(
        id="windows-script-of-16-mib", base=_WINDOWS, structure="windows: script",
        damage=put(_SCRIPT, b"exit /b 0\r\n" * (16 * MIB // 11)), ends=EITHER,
    ),
    HostileImage(
        id="windows-script-of-no-text", base=_WINDOWS, structure="windows: script",
        damage=put(_SCRIPT, b"\xff\xfe\0\xd8\r" * 4096), ends=EITHER,
    ),
)  # fmt: skip
