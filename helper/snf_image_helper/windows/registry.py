"""The guest's registry, hive by hive, through hivex (R-TASK-UNA-1, R-TASK-RDP-2).

Keys and values are found without regard to letter case, as Windows does it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from snf_image_helper.errors import ImageError, TaskError
from snf_image_helper.root import Root

DIRECTORY: Final = "/Windows/System32/config"
SYSTEM: Final = f"{DIRECTORY}/SYSTEM"
SOFTWARE: Final = f"{DIRECTORY}/SOFTWARE"
SAM: Final = f"{DIRECTORY}/SAM"
_BASE_BLOCK: Final = 4096
_REG_SZ: Final = (1, 2)
_REG_DWORD: Final = 4
_MAX_TEXT: Final = 4096
_MAX_CHANGED_HIVE: Final = 256 * 1024 * 1024
MAX_NAMES: Final = 10_000
"""Keys below one key that are listed."""


class Hive:
    """An open hive. Paths of keys are written with back-slashes, from the hive's own root."""

    def __init__(self, path: str, handle: Any) -> None:
        self.path = path
        self._handle = handle

    def has_key(self, key: str) -> bool:
        return self._node(key) is not None

    def text(self, key: str, value: str) -> str | None:
        """A text value; None if key or value is absent, or it is no text."""
        found = self._value(key, value)
        if found is None or found[0] not in _REG_SZ:
            return None
        data = found[1][: 2 * _MAX_TEXT]
        return data.decode("utf-16-le", "replace").partition("\0")[0]

    def number(self, key: str, value: str) -> int | None:
        """A DWORD; None if key or value is absent, or it is of another type."""
        found = self._value(key, value)
        if found is None or found[0] != _REG_DWORD or len(found[1]) != 4:
            return None
        return int(struct.unpack("<I", found[1])[0])

    def has_value(self, key: str, value: str) -> bool:
        return self._value(key, value) is not None

    def subkeys(self, key: str) -> list[str]:
        """Names of the keys below a key, at most :data:`MAX_NAMES`; an absent key has none."""
        node = self._node(key)
        if node is None:
            return []
        with _blaming(self.path):
            return [self._handle.node_name(child) for child in self._handle.node_children(node)[:MAX_NAMES]]

    def set_number(self, key: str, value: str, number: int) -> None:
        """Set one DWORD of an existing key; the key's other values stay as they are."""
        node = self._node(key)
        if node is None:
            raise ImageError(f"{self.path}: the key {key} is missing")
        with _blaming(self.path):
            before = self._values(node)
            data = struct.pack("<I", number)
            self._handle.node_set_value(node, {"key": value, "t": _REG_DWORD, "value": data})
            after = self._values(node)
        others = {name: held for name, held in before.items() if name != value.lower()}
        if after != others | {value.lower(): (_REG_DWORD, data)}:
            raise TaskError(f"{self.path}: {key}: other values than {value} would have changed")

    def _values(self, node: int) -> dict[str, tuple[int, bytes]]:
        found = {}
        for handle in self._handle.node_values(node):
            kind, data = self._handle.value_value(handle)
            found[self._handle.value_key(handle).lower()] = (kind, data)
        return found

    def _node(self, key: str) -> int | None:
        with _blaming(self.path):
            node = self._handle.root()
            for name in key.split("\\"):
                # hivex compares without regard to letter case.
                node = self._handle.node_get_child(node, name)
                if not node:
                    return None
        return int(node)

    def _value(self, key: str, value: str) -> tuple[int, bytes] | None:
        node = self._node(key)
        if node is None:
            return None
        with _blaming(self.path):
            for handle in self._handle.node_values(node):
                if self._handle.value_key(handle).lower() == value.lower():
                    kind, data = self._handle.value_value(handle)
                    return int(kind), data
        return None

    def commit(self) -> bytes:
        """The changed hive as a file's contents."""
        fd = os.memfd_create("hive", os.MFD_CLOEXEC)
        try:
            with _blaming(self.path):
                self._handle.commit(f"/proc/self/fd/{fd}")
            size = os.fstat(fd).st_size
            return os.pread(fd, size, 0)
        finally:
            os.close(fd)


@contextlib.contextmanager
def _blaming(path: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, LookupError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: the registry hive is damaged: {error}") from None


@contextlib.contextmanager
def opened(root: Root, path: str, *, write: bool = False) -> Iterator[Hive]:
    """Open a hive; :class:`ImageError` if it is missing or damaged."""
    try:
        with root.open_file(path) as fd:
            _demand_hive(path, fd, write=write)
            with _blaming(path):
                handle = _open(fd, write=write)
            yield Hive(path, handle)
    except FileNotFoundError:
        raise ImageError(f"{path}: the registry hive is missing") from None


def _open(fd: int, *, write: bool) -> Any:
    # Debian has it for its own interpreter only, and nothing but an open hive needs it.
    import hivex  # noqa: PLC0415

    class Handle(hivex.Hivex):  # type: ignore[misc]  # its module is not typed
        """Closed only if it was opened: hivex's own class fails at that."""

        def __del__(self) -> None:
            if hasattr(self, "_o"):
                super().__del__()

    return Handle(f"/proc/self/fd/{fd}", write=write)


def _demand_hive(path: str, fd: int, *, write: bool) -> None:
    if os.pread(fd, 4, 0) != b"regf":
        raise ImageError(f"{path}: not a registry hive")
    if write and os.fstat(fd).st_size > _MAX_CHANGED_HIVE:
        raise ImageError(f"{path}: larger than {_MAX_CHANGED_HIVE} bytes, too large to be changed")


def has_pending_log(root: Root, path: str) -> bool:
    """Whether Windows has more to write into a hive than is in it: its two sequence numbers differ."""
    head = root.read_head(path, _BASE_BLOCK)
    primary, secondary = struct.unpack_from("<II", head.ljust(12, b"\0"), 4)
    return bool(primary != secondary)


def change(root: Root, path: str, edit: Callable[[Hive], None], *, detail: str) -> None:
    """Edit a hive and put the result in its place, all at once."""
    with opened(root, path, write=True) as hive:
        edit(hive)
        data = hive.commit()
    root.write(path, data, detail=detail)
