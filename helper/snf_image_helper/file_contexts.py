"""Which label a policy's file contexts give a path; a program of its own, so that a policy can end only that.

``python3 -m snf_image_helper.file_contexts FILE`` reads a JSON list of ``[path, mode]`` and prints the
list of labels, null where the policy gives none. It asks libselinux (selabel_open(3), selabel_lookup(3)) and
thereby reads ``FILE`` with its ``.homedirs``, ``.local``, ``.subs`` and ``.subs_dist``, as a guest would.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Final

from snf_image_process import ProcessError, run

SUFFIXES: Final = ("", ".homedirs", ".local", ".subs", ".subs_dist")
"""Of the files that make up one set of file contexts."""
MAX_LABEL: Final = 4096
"""Bytes of a label; real ones have less than a hundred."""
_LIBRARY: Final = "libselinux.so.1"
_FILES: Final = 0  # SELABEL_CTX_FILE of selinux/label.h
_PATH: Final = 3  # SELABEL_OPT_PATH
_SECONDS: Final = 120.0


class _Option(ctypes.Structure):
    """``struct selinux_opt``."""

    _fields_ = (("type", ctypes.c_int), ("value", ctypes.c_char_p))


def ask(contexts: Mapping[str, bytes], files: Sequence[tuple[str, int]]) -> list[str | None]:
    """The label of each (path, mode); ``contexts`` is what the files hold, by their suffix.

    :class:`ProcessError` if libselinux cannot read them, or takes too long; ValueError if one is not text.
    """
    if any(b"\0" in data for data in contexts.values()):
        # libselinux would take it for compiled, and compiled patterns must not come from strangers.
        raise ValueError("not a text file")
    environment = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with tempfile.TemporaryDirectory(prefix="snf-image-") as directory:
        path = os.path.join(directory, "file_contexts")
        for suffix, data in contexts.items():
            with open(path + suffix, "wb") as stream:
                stream.write(data)
        argv = [sys.executable or "python3", "-B", "-m", __name__, path]
        done = run(argv, timeout=_SECONDS, stdin=json.dumps(files).encode("ascii"), env=environment)
    labels: list[str | None] = json.loads(done.stdout)
    if any(label is not None and len(label) > MAX_LABEL for label in labels):
        raise ProcessError(argv, f"a label of more than {MAX_LABEL} bytes")
    return labels


def labels_of(contexts: str, files: Sequence[tuple[str, int]]) -> list[str | None]:
    """What :func:`ask` prints; OSError if libselinux cannot read ``contexts``."""
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    library.selabel_open.restype = ctypes.c_void_p
    library.selabel_lookup_raw.argtypes = (
        ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_char_p, ctypes.c_int,
    )  # fmt: skip
    option = _Option(_PATH, os.fsencode(contexts))
    handle = library.selabel_open(_FILES, ctypes.byref(option), 1)
    if not handle:
        raise _last_error(contexts)
    found: list[str | None] = []
    for path, mode in files:
        label = ctypes.c_char_p()
        if library.selabel_lookup_raw(handle, ctypes.byref(label), os.fsencode(path), mode):
            if ctypes.get_errno() != errno.ENOENT:
                raise _last_error(path)
            found.append(None)
        else:
            found.append((label.value or b"").decode("utf-8", "surrogateescape") or None)
    return found


def _last_error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


if __name__ == "__main__":
    json.dump(labels_of(sys.argv[1], json.load(sys.stdin)), sys.stdout)
