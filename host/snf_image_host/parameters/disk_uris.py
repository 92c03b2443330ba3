"""URIs of disks that qemu reaches by itself: which are known, what is shown (R-DST-URI-1, R-SEC-2)."""

from __future__ import annotations

import re
from typing import Final

from snf_image_host.parameters.disk_secrets import take_apart, without_escapes
from snf_image_host.parameters.problems import ParseError

_KNOWN: Final = re.compile(r"(rbd|iscsi|iser|nbd|ssh|gluster)(?:\+(?:tcp|unix|rdma))?:.+", re.IGNORECASE)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):.+")
_ONLY_READ: Final = ("http", "https", "ftp", "ftps", "tftp")
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")
_SECRET: Final = re.compile(r"((?:key|keyring-data|password)=)[^:&,'\"\s]+", re.IGNORECASE)
_USER: Final = re.compile(r"(?<=:)//[^/?#]*@")
_ISCSI_USER: Final = re.compile(r"(?<=:)//[^@]*@")
"""libiscsi ends a password at the first ``@``, so that it may have slashes, as base64 has."""
_USER_IN_TEXT: Final = re.compile(r"//[^/?#\s'\"]*@")
_MAX: Final = 4096


def looks_like_uri(text: str) -> bool:
    """Whether a word of the command line means a URI rather than a path: all known ones, and any ``x://``."""
    return bool(_KNOWN.fullmatch(text)) or ("://" in text and bool(_SCHEME.fullmatch(text)))


def parse_disk_uri(text: str) -> str:
    """``text`` if it is the URI of a disk that can be served; no error shows any of it.

    One with a key or password is refused if that could not be handed to qemu apart (R-SEC-1).
    """
    if len(text) > _MAX or _UNSAFE.search(text):
        raise ParseError("must be a URI without white space and control characters", echo=False)
    match = _SCHEME.fullmatch(text)
    scheme = match[1].lower() if match else ""
    if scheme in _ONLY_READ:
        raise ParseError(f"disks behind {scheme} can only be read, not written", echo=False)
    if _KNOWN.fullmatch(text) is None:
        what = f"{scheme} is none of them" if scheme else "it has no scheme"
        raise ParseError(f"must be a URI of rbd, iscsi, nbd, ssh or gluster; {what}", echo=False)
    if scheme == "rbd" and "@" in _rbd_name(text):
        raise ParseError("is a snapshot, which cannot be written", echo=False)
    if has_secret(text):
        take_apart(text)
    return text


def shown_disk_uri(text: str) -> str:
    """Without options of rbd, user-info and query: what can be secret."""
    if text.lower().startswith("rbd:"):
        return _rbd_name(text)
    return re.split(r"[?#]", _user_of(text).sub("//", text, count=1))[0]


def disk_uri_identity(text: str) -> str:
    """Equal for two URIs that are known to lead to one disk; options of how to get there do not count."""
    if text.lower().startswith("rbd:"):
        return _rbd_name(text)
    scheme, colon, rest = _user_of(text).sub("//", text, count=1).partition(":")
    return f"{scheme.lower()}{colon}{rest}"


def has_secret(text: str) -> bool:
    """Whether a key or a password is written into it."""
    user = _user_of(text).search(text)
    # A back-slash before a character of an option's name makes no difference to RBD.
    return _SECRET.search(without_escapes(text)) is not None or (
        user is not None and re.search("[:%]", user[0]) is not None
    )


def hide_disk_uri(message: str, uri: str) -> str:
    """What a program says about ``uri``, without its secrets."""
    # It may also say how it was told to open it.
    message = re.sub(r"'json:\{.*\}'", lambda _: f"'{shown_disk_uri(uri)}'", message)
    return _USER_IN_TEXT.sub("//", _SECRET.sub(r"\1…", message.replace(uri, shown_disk_uri(uri))))


def _user_of(text: str) -> re.Pattern[str]:
    return _ISCSI_USER if text.lower().startswith(("iscsi:", "iser:")) else _USER


def _rbd_name(text: str) -> str:
    """``rbd:pool/image``; a colon in a name is escaped by a back-slash."""
    match = re.match(r"rbd:(?:[^:\\]|\\.)*", text, re.IGNORECASE)
    return match[0] if match else "rbd:"
