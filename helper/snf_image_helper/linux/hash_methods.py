"""Which password hashes a Linux image makes and can verify (R-TASK-PW-5).

Found out by looking at its files; nothing of the image is loaded or run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from snf_image_helper import edit
from snf_image_helper.root import Root
from snf_image_helper.unix.hashing import Method

_LIBRARY_DIRECTORIES: Final = ("/usr/lib64", "/lib64", "/usr/lib", "/lib")
_LIBCRYPT: Final = re.compile(r"libcrypt(?:-[0-9.]+)?\.so(?:\.[0-9.]+)?")
_MUSL: Final = re.compile(r"ld-musl-.*\.so\.1")
_MAX_LIBRARY: Final = 8 * 1024 * 1024
# libcrypt keeps the prefixes it knows as text.
_SIGNS: Final[dict[Method, tuple[bytes, ...]]] = {
    "md5": (b"$1$",),
    "sha1": (b"$sha1",),
    "blowfish": (b"$2b$", b"$2y$", b"$2a$"),
    "sha256": (b"$5$",),
    "sha512": (b"$6$",),
    "yescrypt": (b"$y$",),
}
# musl's crypt compares single characters; what it knows has not changed since 2012.
_MUSL_METHODS: Final[frozenset[Method]] = frozenset({"md5", "blowfish", "sha256", "sha512"})
_LOGIN_DEFS: Final = ("/etc/login.defs", "/usr/etc/login.defs")
_PAM_DIRECTORIES: Final = ("/etc/pam.d", "/usr/lib/pam.d")
_PAM_STACKS: Final = ("common-password", "system-auth", "password-auth", "passwd")


def default_method(root: Root) -> Method:
    """``yescrypt`` if the image asks for it and its library knows it, else ``sha512``."""
    known = verifiable_methods(root)
    if known is not None and "yescrypt" in known and (_login_defs_ask(root) or _pam_asks(root)):
        return "yescrypt"
    return "sha512"


def verifiable_methods(root: Root) -> frozenset[Method] | None:
    """What the image's libcrypt can verify; None if it has none that we find."""
    found: set[Method] = set()
    seen = False
    for path in _libraries(root):
        if _MUSL.fullmatch(path.rpartition("/")[2]):
            found |= _MUSL_METHODS
        else:
            data = root.read_head(path, _MAX_LIBRARY)
            found |= {method for method, signs in _SIGNS.items() if any(sign in data for sign in signs)}
        seen = True
    return frozenset(found) if seen else None


def _libraries(root: Root) -> Iterator[str]:
    for directory in _LIBRARY_DIRECTORIES:
        for name in root.list(directory) if root.is_dir(directory) else []:
            path = f"{directory}/{name}"
            if _LIBCRYPT.fullmatch(name) or _MUSL.fullmatch(name):
                if root.is_file(path):
                    yield path
            elif "-linux-" in name and root.is_dir(path):
                inner = [entry for entry in root.list(path) if _LIBCRYPT.fullmatch(entry)]
                yield from (f"{path}/{entry}" for entry in inner if root.is_file(f"{path}/{entry}"))


def _login_defs_ask(root: Root) -> bool:
    for path in _LOGIN_DEFS:
        data = root.read_optional(path)
        if data is None:
            continue
        asked = b""
        for line in edit.Lines(data):
            words = edit.fields(line)
            if len(words) > 1 and words[0] == b"ENCRYPT_METHOD":
                asked = words[1].strip(b'"')
        return asked.upper() == b"YESCRYPT"
    return False


def _pam_asks(root: Root) -> bool:
    for stack in _PAM_STACKS:
        for directory in _PAM_DIRECTORIES:
            data = root.read_optional(f"{directory}/{stack}")
            if data is None:
                continue
            for line in edit.Lines(data):
                words = edit.fields(line)
                if words and words[0].lstrip(b"-") == b"password" and b"yescrypt" in words:
                    return True
            break
    return False
