"""URLs: parsed and checked, never matched by prefix; shown without anything secret (R-FETCH-1, R-SEC-2)."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Collection
from typing import Final

from snf_image_host.parameters.problems import ParseError

MAX_URL: Final = 4096
_USER_INFO: Final = re.compile(r"^(/*)[^/@]*:[^/]*@")
_SLASHES: Final = r"\1"
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\\s]")


def parse_url(text: str, *, schemes: Collection[str]) -> str:
    """``text`` if it is a URL with a host and one of ``schemes``; the error never shows it."""
    if len(text) > MAX_URL:
        raise ParseError(f"longer than {MAX_URL} characters", echo=False)
    if _UNSAFE.search(text):
        raise ParseError("must be a URL without white space, control characters and back-slashes", echo=False)
    try:
        parts = urllib.parse.urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ParseError("is not a valid URL", echo=False) from None
    if parts.scheme.lower() not in schemes:
        raise ParseError(f"must be a URL of scheme {', '.join(schemes)}", echo=False)
    if not host:
        raise ParseError("must be a URL with a host", echo=False)
    return text


def scheme_of(text: str) -> str:
    """The scheme of a URL in lower case, empty if there is none."""
    try:
        return urllib.parse.urlsplit(text).scheme.lower()
    except ValueError:
        return ""


def redact_url(text: str) -> str:
    """A URL without user-info, query and fragment, even if it is none that works; other text as it is."""
    try:
        parts = urllib.parse.urlsplit(text)
    except ValueError:
        return "<invalid URL>"
    if parts.netloc:
        return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if not parts.scheme:
        return text
    slashes = "//" if text.startswith("//", len(parts.scheme) + 1) else ""
    return f"{parts.scheme}:{slashes}{_USER_INFO.sub(_SLASHES, parts.path)}"
