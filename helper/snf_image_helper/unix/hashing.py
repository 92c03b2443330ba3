"""Password hashes of crypt(5), made in this process by the helper's own libcrypt (R-TASK-PW-5, -6)."""

from __future__ import annotations

import os
import string
import warnings
from typing import Final, Literal

from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_helper.errors import RequestError, TaskError

with warnings.catch_warnings():
    # Python 3.13 drops the module; the helper image has 3.11, and libcrypt is what the guests use as well.
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

Method = Literal["md5", "sha1", "blowfish", "sha256", "sha512", "yescrypt"]

_ALPHABET: Final = "./" + string.digits + string.ascii_uppercase + string.ascii_lowercase
_BCRYPT_ALPHABET: Final = "./" + string.ascii_uppercase + string.ascii_lowercase + string.digits
_BCRYPT_LIMIT: Final = 72
# libcrypt's CRYPT_MAX_PASSPHRASE_SIZE less its NUL: the guest could not verify a longer one.
_LIBCRYPT_LIMIT: Final = 511
_BCRYPT_COST = 12
_SHA1_ITERATIONS: Final = 24680  # what NetBSD's own passwd takes
_PREFIXES: Final[tuple[tuple[str, Method], ...]] = (
    ("$1$", "md5"),
    ("$sha1$", "sha1"),
    ("$2a$", "blowfish"),
    ("$2b$", "blowfish"),
    ("$2x$", "blowfish"),
    ("$2y$", "blowfish"),
    ("$5$", "sha256"),
    ("$6$", "sha512"),
    ("$y$", "yescrypt"),
)


def make_hash(password: Secret, method: Method, *, family: OsFamily = OsFamily.LINUX) -> Secret:
    """The hash of a password with a salt of its own.

    :class:`RequestError` for a password that is empty or that the method would cut.
    """
    _check(password, method)
    try:
        made = crypt.crypt(password.reveal(), _setting(method, family))
    except (OSError, ValueError):
        made = "*0"
    if made.startswith("*"):
        raise TaskError(f"the helper's libcrypt makes no hash by method {method}")
    return Secret(made)


class Hashes:
    """Hashes of one password: those that the host made, each once, and when they run out, own ones."""

    def __init__(
        self, password: Secret, made: tuple[Secret, ...], *, family: OsFamily = OsFamily.LINUX
    ) -> None:
        self._password = password
        self._made = list(made)
        self._family = family

    def next(self, method: Method) -> Secret:
        """One by ``method`` that nobody has been given; errors as :func:`make_hash`."""
        _check(self._password, method)
        form = _form(_setting(method, self._family))
        for made in self._made:
            if _form(made.reveal()) == form:
                self._made.remove(made)
                return made
        return make_hash(self._password, method, family=self._family)


def _form(text: str) -> str:
    """What stands between the first two dollar signs: method and variant, such as ``2b``."""
    return text.split("$", 2)[1]


def method_of(password_hash: Secret) -> Method | None:
    """By which method a hash was made, None for one that only its owner knows."""
    text = password_hash.reveal().lstrip("!")
    return next((method for prefix, method in _PREFIXES if text.startswith(prefix)), None)


def _check(password: Secret, method: Method) -> None:
    text = password.reveal()
    if not text:
        raise RequestError("the password is empty: an account without a password is never made")
    if any(mark in text for mark in "\0\r\n"):
        raise RequestError("the password holds a NUL or a line end")
    length = len(text.encode("utf-8", "surrogateescape"))
    limit = _BCRYPT_LIMIT if method == "blowfish" else _LIBCRYPT_LIMIT
    if length > limit:
        raise RequestError(f"the password has {length} bytes, method {method} takes at most {limit}")


def _setting(method: Method, family: OsFamily) -> str:
    """What precedes the hash: method, cost, and a salt from the system's random source."""
    if method == "md5":
        return f"$1${_salt(8)}$"
    if method == "sha1":
        return f"$sha1${_SHA1_ITERATIONS}${_salt(16)}$"
    if method == "blowfish":
        return f"{'$2a' if family is OsFamily.NETBSD else '$2b'}${_BCRYPT_COST:02}${_bcrypt_salt()}"
    if method == "yescrypt":
        return f"$y$j9T${_yescrypt_salt()}$"
    # Without "rounds=" these take 5000, and every implementation knows that form.
    return f"{'$5' if method == 'sha256' else '$6'}${_salt(16)}$"


def _salt(length: int) -> str:
    """``length`` characters of 6 random bits each."""
    return "".join(_ALPHABET[byte % 64] for byte in os.urandom(length))


def _bcrypt_salt() -> str:
    """128 bits in bcrypt's own order, most significant bits first, the last character padded with zeros."""
    number = int.from_bytes(os.urandom(16), "big") << 4
    return "".join(_BCRYPT_ALPHABET[number >> shift & 63] for shift in range(126, -1, -6))


def _yescrypt_salt() -> str:
    """128 bits in groups of three bytes, least significant bits first."""
    raw = os.urandom(16)
    encoded = ""
    for start in range(0, len(raw), 3):
        group = raw[start : start + 3]
        number = int.from_bytes(group, "little")
        for _ in range(len(group) + 1):
            encoded += _ALPHABET[number & 63]
            number >>= 6
    return encoded
