"""What an image identifier means: a name below IMAGE_DIR, a URL, or the business of another program.

By its scheme only; whether there is such an image shows when it is opened.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from snf_image_host.deployment import SourceKind
from snf_image_host.parameters.problems import ParseError
from snf_image_host.parameters.urls import redact_url

NETWORK_SCHEMES: Final = ("https", "http", "ftps", "ftp")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """``path`` is what ``kind`` says; None for ``null``. ``shown``: for messages, without credentials."""

    path: str | None
    shown: str
    kind: SourceKind = "path"


def locate(identifier: str) -> Located:
    """Where an image is that was named by ``img_id``, or by a word with a scheme on the command line.

    :class:`ParseError` if no built-in source knows it (R-BACK-7, R-SRC-LOCAL-1, R-SRC-NET-1, R-SRC-NULL-1).
    """
    if re.search(r"[\x00-\x1f\x7f]", identifier) or identifier.startswith("-"):
        raise ParseError("must not hold control characters, nor begin with '-'", echo=False)
    if identifier == "null":
        return Located(path=None, shown="null")
    match = _SCHEME.fullmatch(identifier)
    if match is None and ":" not in identifier:
        return _local(identifier)
    scheme = match[1].lower() if match else identifier.partition(":")[0].lower()
    if match and scheme in ("local", "file"):
        return _local(match[2])
    if match and scheme in NETWORK_SCHEMES:
        return Located(path=identifier, shown=redact_url(identifier), kind="url")
    pithos = "; Pithos needs a back-end of its own" if scheme in ("pithos", "pithosmap") else ""
    raise ParseError(
        f"{redact_url(identifier)}: there is no source for images of scheme {scheme}{pithos}", echo=False
    )


def _local(name: str) -> Located:
    if not name.strip("/"):
        raise ParseError("the name of the image is empty", echo=False)
    return Located(path=name, shown=name, kind="image-dir")
