"""Verification of Ed25519 (RFC 8032) over bytes that come once.

openssl wants the whole message in memory; here only its digest passes. Everything that is computed with is
public, so that the time it takes tells nothing to anybody.
"""

from __future__ import annotations

import hashlib
from typing import Final

SIGNATURE_BYTES: Final = 64
KEY_BYTES: Final = 32
_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)

_Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T: x = X/Z, y = Y/Z, xy = T/Z."""


class Ed25519Verification:
    """One signature and one public key; the message goes through :meth:`update`."""

    def __init__(self, signature: bytes, key: bytes) -> None:
        """``signature`` has 64 bytes, ``key`` 32."""
        self._signature = signature
        self._key = key
        self._digest = hashlib.sha512(signature[:32] + key)

    def update(self, part: bytes | memoryview) -> None:
        """What follows of the message."""
        self._digest.update(part)

    def is_good(self) -> bool:
        """Whether the owner of the key signed what was given until now."""
        key = _decompress(self._key)
        response = int.from_bytes(self._signature[32:], "little")
        if key is None or response >= _ORDER:
            return False
        challenge = int.from_bytes(self._digest.digest(), "little") % _ORDER
        x, y, z, t = key
        minus_key = (-x % _P, y, z, -t % _P)
        commitment = _add(_multiply(response, _BASE), _multiply(challenge, minus_key))
        return _compress(commitment) == self._signature[:32]


def _add(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(factor: int, point: _Point) -> _Point:
    result: _Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = _add(result, point)
        point = _add(point, point)
        factor >>= 1
    return result


def _compress(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decompress(data: bytes) -> _Point | None:
    """None if these bytes are no point of the curve, or not the one way to write it."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if x * x % _P != square or (x == 0 and sign):
        return None
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


def _base() -> _Point:
    """The point with y = 4/5 and an even x."""
    point = _decompress((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    assert point is not None  # noqa: S101 - a constant
    return point


_BASE: Final = _base()
