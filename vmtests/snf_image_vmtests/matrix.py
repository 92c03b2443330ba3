"""The matrix: which image is deployed how. Cells are read strictly and keep the order of their file."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any, Final, Literal

import yaml

from snf_image_contract import codec
from snf_image_vmtests import places

_ID: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_FILE: Final = 1024 * 1024


class MatrixError(Exception):
    """The matrix cannot be read; the text names file and cell."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A deployment that must fail: with this status of the command, and words that its error must have."""

    exit_code: int
    words: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One deployment and what is proved of it.

    ``disk_size`` in mebibytes. ``swap``: ``2:64``, or ``b`` for a second disk. ``users`` empty: root.
    ``properties``: NAME=VALUE. ``dump``: not the image is deployed but a dump of its root file system.
    ``twice``: deployed a second time onto the same disk, with the same result.
    ``product_key``: one is given, for Windows. ``files``: two files are injected. ``boot``: the result is
    booted and logged into; it is looked at from outside in any case. ``refused``: it must fail.
    """

    id: str
    fixture: str
    disk_size: int
    hostname: str | None = None
    credential: Literal["none", "password", "hash", "keys", "password+keys"] = "none"
    password: str = 'Neu, ja: 100% "sicher" & schön $HOME `x` \\'  # noqa: S105 - meant to be known
    users: tuple[str, ...] = ()
    swap: str | None = None
    network: Literal["none", "dhcp", "static", "static+slaac"] = "none"
    product_key: bool = False
    files: bool = False
    cloud_init: bool = False
    properties: tuple[str, ...] = ()
    dump: bool = False
    twice: bool = False
    boot: bool = False
    refused: Refusal | None = None

    @property
    def gives_password(self) -> bool:
        return self.credential in ("password", "hash", "password+keys")

    @property
    def gives_keys(self) -> bool:
        return self.credential in ("keys", "password+keys")

    @property
    def swap_partition(self) -> tuple[int, int] | None:
        """Number and mebibytes of the swap partition that is asked for."""
        if self.swap is None or ":" not in self.swap:
            return None
        number, _, size = self.swap.partition(":")
        return int(number), int(size)


def default_path() -> str:
    return os.path.join(places.CHECKOUT, "ci", "matrix.yaml")


def load_matrix(path: str) -> tuple[Cell, ...]:
    """The cells of a file, in its order; :class:`MatrixError` says what is wrong and where."""
    return decode_cells(path, load_plain(path))


def load_plain(path: str) -> dict[str, Any]:
    """The mapping that a matrix file is."""
    try:
        with open(path, encoding="utf-8") as file:
            plain: Any = yaml.safe_load(file.read(_MAX_FILE))
    except OSError as error:
        raise MatrixError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise MatrixError(f"{path}: not YAML: {error}") from None
    if not isinstance(plain, dict):
        raise MatrixError(f"{path}: expected a mapping with a list named cells, or with an image")
    return plain


def decode_cells(path: str, plain: dict[str, Any]) -> tuple[Cell, ...]:
    """The cells of the mapping that was read from ``path``."""
    if plain.keys() != {"cells"} or not isinstance(plain["cells"], list):
        raise MatrixError(f"{path}: expected a mapping with a list named cells, and nothing else")
    cells = tuple(_cell(path, index, entry) for index, entry in enumerate(plain["cells"]))
    seen: set[str] = set()
    for cell in cells:
        if cell.id in seen:
            raise MatrixError(f"{path}: two cells have the id {cell.id}")
        seen.add(cell.id)
    return cells


def sample(cells: tuple[Cell, ...], every: int) -> tuple[Cell, ...]:
    """All cells on images of their own, and each ``every``-th on composed ones (SYSTEM-on-DISK)."""
    composed = [cell for cell in cells if "-on-" in cell.fixture]
    chosen = {cell.id for cell in composed[::every]}
    return tuple(cell for cell in cells if "-on-" not in cell.fixture or cell.id in chosen)


def _cell(path: str, index: int, entry: Any) -> Cell:
    name = entry.get("id") if isinstance(entry, dict) else None
    where = f"{path}: cell {name or index}"
    try:
        cell = codec.decode(Cell, entry, where=where)
    except codec.ContractError as error:
        raise MatrixError(str(error)) from None
    if not _ID.fullmatch(cell.id):
        raise MatrixError(f"{where}: an id is lower-case words joined by dashes")
    if cell.swap is not None and not re.fullmatch(r"[b-z]|[1-9][0-9]*:[1-9][0-9]*", cell.swap):
        raise MatrixError(f"{where}: swap must be NUMBER:MEGABYTES or a letter from b on")
    if cell.boot and cell.refused is not None:
        raise MatrixError(f"{where}: what is refused cannot be booted")
    return cell
