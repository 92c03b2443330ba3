"""Password hashes made on the host while the image is copied: they are made to be slow, and emulation is.

Which one an image wants is found out by the helper; it gets those that are likely (R-TASK-PW-5) and makes
whatever else is wanted itself. See crypt(3) and crypt_gensalt(3) of libxcrypt.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
from typing import Final, Self

from snf_image_contract.job import HashMethod, Job
from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret

_LIBRARY: Final = "libcrypt.so.1"
_PREFIXES: Final[dict[HashMethod, bytes]] = {
    "sha256": b"$5$",
    "sha512": b"$6$",
    "yescrypt": b"$y$",
    "blowfish": b"$2b$",
}
_COSTS: Final[dict[HashMethod, int]] = {"blowfish": 12}
"""Where it is not libxcrypt's own default."""
_LIKELY: Final[dict[OsFamily, tuple[HashMethod, ...]]] = {
    OsFamily.LINUX: ("yescrypt", "sha512"),
    OsFamily.FREEBSD: ("sha512",),
    OsFamily.OPENBSD: ("blowfish",),
}
_MAX_USERS: Final = 4
"""A hash takes milliseconds here; for many accounts it still would take longer than the copy."""
_MAX_BYTES: Final = 511
"""CRYPT_MAX_PASSPHRASE_SIZE less its NUL."""
_OUTPUT_SIZE: Final = 384
_STATE_SIZE: Final = 32768


def methods_for(job: Job) -> tuple[HashMethod, ...]:
    """By which methods hashes for this job are worth making here; none if none is."""
    asked = job.change_password
    if asked.password is None or asked.password_hash is not None or job.cloud_init:
        return ()
    if len(asked.users) > _MAX_USERS:
        return ()
    likely = _LIKELY.get(job.os_family or OsFamily.LINUX, ())
    if not likely or asked.method in (None, "auto"):
        return likely
    return (asked.method,) if asked.method in _PREFIXES else ()


class PasswordHasher:
    """Makes the hashes in the background. A context manager; leaving it waits for the one being made."""

    def __init__(self, job: Job) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="hashes")
        password = job.change_password.password
        accounts = max(1, len(job.change_password.users))  # none is named: the family's own
        methods = () if password is None else methods_for(job) * accounts
        self._made = [self._pool.submit(_hash, password or Secret(""), method) for method in methods]

    def hashes(self) -> tuple[Secret, ...]:
        """One hash for each account and method; without those that could not be made here."""
        return tuple(made for future in self._made if (made := future.result()) is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _hash(password: Secret, method: HashMethod) -> Secret | None:
    """None if libcrypt is not there, or cannot; the helper then tells what is wrong with the password."""
    text = password.reveal().encode("utf-8", "surrogateescape")
    if not text or len(text) > _MAX_BYTES or any(mark in text for mark in b"\0\r\n"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_LIBRARY)
        library.crypt_gensalt_rn.restype = library.crypt_rn.restype = ctypes.c_char_p
        setting, state = ctypes.create_string_buffer(_OUTPUT_SIZE), ctypes.create_string_buffer(_STATE_SIZE)
        cost = ctypes.c_ulong(_COSTS.get(method, 0))
        # Without random bytes of the caller it takes the system's.
        if library.crypt_gensalt_rn(_PREFIXES[method], cost, None, 0, setting, _OUTPUT_SIZE) is None:
            return None
        made = library.crypt_rn(text, setting, state, _STATE_SIZE)
        ctypes.memset(state, 0, _STATE_SIZE)
        if made is not None and not made.startswith(b"*"):
            return Secret(made.decode("ascii"))
    return None
