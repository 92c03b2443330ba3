"""Password hashes, made and verified by the system's libcrypt (D-35)."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import secrets
from typing import Any

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@functools.cache
def _library() -> Any:
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return library


def hash_password(password: str, setting: str) -> str:
    """The hash of a password with the method, parameters and salt of ``setting``."""
    made = _library().crypt(password.encode(), setting.encode())
    if made is None or made.startswith(b"*"):
        raise ValueError(f"libcrypt does not know the setting {setting[:3]!r}")
    return str(made.decode("ascii"))


def verify(password: str, stored: str) -> bool:
    """Whether ``stored`` is a hash of ``password``; locked and empty fields match no password."""
    if not stored.startswith("$"):
        return False
    return hash_password(password, stored) == stored


def new_sha512(password: str) -> str:
    """A hash as an operator would hand it over."""
    salt = "".join(secrets.choice(_ALPHABET) for _ in range(16))
    return hash_password(password, f"$6${salt}$")
