"""URIs of disks with a key or password in them, taken apart: qemu is to get the secret apart from the rest.

What stands in a URI stands in the arguments of the program that opens it, for everybody on the node to see
(R-SEC-1). The names are those of qemu's block drivers ``rbd`` and ``iscsi``.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from snf_image_contract.secret import Secret
from snf_image_host.parameters.problems import ParseError

SECRET_ID: Final = "snf-disk"  # noqa: S105 - the name of qemu's object that holds it
_MONITOR_PORT: Final = "6789"
_ISCSI: Final = re.compile(
    r"(?P<scheme>iscsi|iser)://(?P<user>[^%@/]+)%(?P<password>[^@]+)@"
    r"(?P<portal>\[[0-9A-Fa-f:.]+\](?::\d+)?|[^:/?#@\[\]]+(?::\d+)?)/(?P<target>[^/?#]+)/(?P<lun>\d{1,5})",
    re.IGNORECASE,
)
_MONITOR: Final = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^][:,/ ]+))(?::(?P<port>\d+))?")
_WAY_OUT: Final = "let its storage find the key in a file"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SecretDisk:
    """What qemu opens: ``options`` of a block driver, one of which names the object SECRET_ID.

    ``encoding``: how that object is to read ``secret``.
    """

    options: Mapping[str, Any]
    secret: Secret
    encoding: Literal["raw", "base64"]


def take_apart(uri: str) -> SecretDisk:
    """The parts of a URI with a secret; :class:`ParseError`, which shows none of it, if qemu has no way."""
    scheme = uri.partition(":")[0].lower()
    if scheme == "rbd":
        return _rbd(uri)
    if scheme in ("iscsi", "iser"):
        return _iscsi(uri)
    raise _refused(f"{scheme} takes no password from a URI")


def _refused(why: str) -> ParseError:
    return ParseError(
        f"holds a key or password that would be seen in the list of processes: {why}; {_WAY_OUT}", echo=False
    )


def _iscsi(uri: str) -> SecretDisk:
    """``iscsi://USER%PASSWORD@HOST[:PORT]/TARGET/LUN``, as libiscsi has it."""
    found = _ISCSI.fullmatch(uri)
    if found is None:
        raise _refused("only iscsi://USER%PASSWORD@HOST:PORT/TARGET/LUN can be taken apart")
    options = {
        "driver": "iscsi",
        "transport": "iser" if found["scheme"].lower() == "iser" else "tcp",
        "portal": found["portal"],
        "target": found["target"],
        "lun": int(found["lun"]),
        "user": found["user"],
        "password-secret": SECRET_ID,
    }
    return SecretDisk(options=options, secret=Secret(found["password"]), encoding="raw")


def _rbd(uri: str) -> SecretDisk:
    """``rbd:POOL/[NAMESPACE/]IMAGE:option=value:…``, in which a back-slash takes a character as it is."""
    image, *words = _split(uri.partition(":")[2], ":")
    place = [without_escapes(part) for part in _split(image, "/")]
    if len(place) not in (2, 3) or not all(place):
        raise ParseError("must name a pool and an image", echo=False)
    options: dict[str, Any] = {"driver": "rbd", "pool": place[0], "image": place[-1]}
    if len(place) == 3:
        options["namespace"] = place[1]
    key: str | None = None
    for word in words:
        name, *values = _split(word, "=", most=1)
        name = without_escapes(name)
        value = without_escapes(values[0]) if values else ""
        if name == "key":
            key = value
        elif name in _RBD_OPTIONS:
            option, read = _RBD_OPTIONS[name]
            options[option] = read(value)
        else:
            raise _refused("beside it RBD takes the options " + ", ".join(_RBD_OPTIONS))
    if not key or not _is_base64(key):
        raise ParseError("the key of RBD must be base64", echo=False)
    return SecretDisk(options=options | {"key-secret": SECRET_ID}, secret=Secret(key), encoding="base64")


def _monitors(value: str) -> list[dict[str, str]]:
    """``host[:port]``, separated by semicolons, commas or blanks."""
    found = []
    for word in re.split(r"[;, ]+", value):
        match = _MONITOR.fullmatch(word)
        if match is None:
            raise _refused("mon_host must be a list of HOST:PORT")
        found.append({"host": match["literal"] or match["name"], "port": match["port"] or _MONITOR_PORT})
    return found


def _methods(value: str) -> list[str]:
    methods = re.split(r"[;, ]+", value)
    if not set(methods) <= {"cephx", "none"}:
        raise _refused("auth_client_required must be cephx or none")
    return methods


_RBD_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "id": ("user", str),
    "conf": ("conf", str),
    "mon_host": ("server", _monitors),
    "auth_client_required": ("auth-client-required", _methods),
    "auth_supported": ("auth-client-required", _methods),
}
"""What can stand beside the key, with qemu's names."""


def _split(text: str, mark: str, *, most: int = 0) -> list[str]:
    """At each ``mark`` that no back-slash precedes, at ``most`` so many (0: all); the rest stays escaped."""
    parts: list[str] = []
    rest = text
    while (found := re.match(rf"((?:[^\\{mark}]|\\.)*){mark}", rest)) and not 0 < most <= len(parts):
        parts.append(found[1])
        rest = rest[found.end() :]
    return [*parts, rest]


def without_escapes(text: str) -> str:
    """``text`` with each back-slash gone that takes the next character as it is."""
    return re.sub(r"\\(.)", r"\1", text)


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
