"""What kind of key an SSH key file holds: read from the key itself, never from its title (R-TASK-SSH-3)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final

_BEGIN: Final = b"-----BEGIN "
_RSA1: Final = b"SSH PRIVATE KEY FILE FORMAT 1.1\n"
_OPENSSH: Final = b"openssh-key-v1\0"
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_OBJECT: Final = 0x06
_ALGORITHMS: Final = {
    bytes.fromhex("2a864886f70d010101"): "rsa",
    bytes.fromhex("2a8648ce3d0201"): "ecdsa",
    bytes.fromhex("2a8648ce380401"): "dsa",
    bytes.fromhex("2b6570"): "ed25519",
}
UNKNOWN: Final = "unknown"


def key_type(data: bytes) -> str | None:
    """``rsa``, ``ecdsa``, ``ed25519``, ``dsa``, ``rsa1`` or ``unknown``; None: ``data`` is no SSH key.

    ``data``: a private key in OpenSSH's, PEM or PKCS#8 form, a public key, or a certificate.
    """
    if data.startswith(_RSA1):
        return "rsa1"
    body = _pem_body(data)
    if body is None:
        return _public_type(data.split(b"\n", 1)[0])
    if body.startswith(_OPENSSH):
        return _openssh_type(body)
    try:
        return _der_type(body)
    except IndexError:
        return UNKNOWN


def _public_type(line: bytes) -> str | None:
    """The type of a public key line, if its blob agrees with its first word."""
    words = line.split()
    if len(words) < 2:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    name = next(_strings(blob), b"")
    return _named(name) if name and name == words[0] else None


def _named(name: bytes) -> str:
    """Our word for a key type of the SSH protocol."""
    plain = name.removesuffix(b"-cert-v01@openssh.com")
    if plain.startswith(b"ecdsa-sha2-"):
        return "ecdsa"
    return {b"ssh-rsa": "rsa", b"ssh-dss": "dsa", b"ssh-ed25519": "ed25519"}.get(plain, UNKNOWN)


def _pem_body(data: bytes) -> bytes | None:
    """The decoded body of a PEM private key, empty if it is encrypted; None if it is none."""
    begin = data.find(_BEGIN)
    first, _, rest = data[begin:].partition(b"\n") if begin >= 0 else (b"", b"", b"")
    if not first.rstrip().endswith(b"PRIVATE KEY-----"):
        return None
    text = rest.partition(b"-----END")[0]
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _openssh_type(body: bytes) -> str:
    # cipher, kdf, its options, how many keys (a number), the first public key.
    fields = _strings(body[len(_OPENSSH) :])
    head = [len(field) + 4 for _, field in zip(range(3), fields, strict=False)]
    start = len(_OPENSSH) + sum(head) + 4
    public = next(_strings(body[start:]), b"")
    return _named(next(_strings(public), b""))


def _strings(blob: bytes) -> Iterator[bytes]:
    """The length-prefixed strings of SSH's wire format; ends where the blob is cut."""
    index = 0
    while index + 4 <= len(blob):
        length = int.from_bytes(blob[index : index + 4], "big")
        index += 4
        if index + length > len(blob):
            return
        yield blob[index : index + length]
        index += length


def _der_type(body: bytes) -> str:
    """PKCS#1, SEC 1 and DSA's own form differ in what their sequence holds; PKCS#8 names the algorithm."""
    if not body or body[0] != _SEQUENCE:
        return UNKNOWN
    items = list(_items(_content(body)))
    tags = [tag for tag, _ in items]
    if tags[:3] == [_INTEGER, _SEQUENCE, _OCTETS]:
        algorithm = next(_items(items[1][1]), (0, b""))
        return _ALGORITHMS.get(algorithm[1], UNKNOWN) if algorithm[0] == _OBJECT else UNKNOWN
    if tags[:2] == [_INTEGER, _OCTETS]:
        return "ecdsa"
    if set(tags) == {_INTEGER}:
        return {9: "rsa", 6: "dsa"}.get(len(tags), UNKNOWN)
    return UNKNOWN


def _content(data: bytes) -> bytes:
    return next(_items(data), (0, b""))[1]


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each DER item; IndexError where the data is cut."""
    index = 0
    while index < len(data):
        tag, length = data[index], data[index + 1]
        index += 2
        if length >= 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[index : index + size], "big")
            index += size
        if index + length > len(data):
            raise IndexError("cut")
        yield tag, data[index : index + length]
        index += length
