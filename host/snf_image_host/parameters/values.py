"""Parsers of single values: text to a typed value, or :class:`ParseError`.

A parser never guesses. What it says continues the name of the parameter: "IMG_FORMAT: must be one of …".
"""

from __future__ import annotations

import binascii
import decimal
import ipaddress
import re
from collections.abc import Callable
from typing import Final

from snf_image_contract.job import SwapDisk, SwapPartition
from snf_image_host.parameters.problems import ParseError

TRUE_WORDS: Final = ("yes", "true", "on", "1", "set")
FALSE_WORDS: Final = ("no", "false", "off", "0", "unset")
MAX_BYTES: Final = 2**63 - 512
MAX_PARTITION: Final = 1024
MAX_SWAP_MEGABYTES: Final = 16 * 1024 * 1024

_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
_SIZE: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SWAP: Final = re.compile(r"([A-Za-z])|([1-9][0-9]{0,11}):([1-9][0-9]{0,11})")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")
_HOSTNAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")


def parse_boolean(text: str) -> bool:
    """Yes or no by the fixed words, any letter case, blanks around them ignored (R-PROP-5, R-CONF-7)."""
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ParseError(f"must be yes ({' '.join(TRUE_WORDS)}) or no ({' '.join(FALSE_WORDS)})")


def parse_size(text: str) -> int:
    """Bytes from "4G", "512M", "1.5T" or a plain number; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ParseError("must be a size such as 512M or 4G")
    size = decimal.Decimal(match[1]) * (1 << _UNITS[match[2].upper()])
    if size != size.to_integral_value():
        raise ParseError("must be a whole number of bytes")
    if not 0 < size <= MAX_BYTES:
        raise ParseError(f"must be between 1 and {MAX_BYTES} bytes")
    return int(size)


def parse_disk_size(text: str) -> int:
    """Bytes of a disk: a whole number of sectors."""
    size = parse_size(text)
    if size % 512:
        raise ParseError("must be a multiple of 512 bytes")
    return size


def parse_duration(text: str) -> float:
    """Seconds from "90", "2m", "1.5h", "1d"; 0 means no limit (R-CONF-8)."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ParseError("must be a time such as 90, 90s, 2m, 1.5h or 1d (0: no limit)")
    return float(match[1]) * _SECONDS[match[2]]


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of decimal integers from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ParseError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def parse_factor(text: str) -> float:
    """A decimal of at least 1."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or float(text) < 1:
        raise ParseError("must be a number of at least 1")
    return float(text)


def choice(*words: str) -> Callable[[str], str]:
    """A parser that takes exactly one of ``words``."""

    def parse(text: str) -> str:
        if text not in words:
            raise ParseError(f"must be one of {', '.join(word or 'empty' for word in words)}")
        return text

    return parse


def parse_text(text: str) -> str:
    """Any text."""
    return text


def parse_words(text: str) -> tuple[str, ...]:
    """Words separated by white space."""
    return tuple(text.split())


def parse_path(text: str) -> str:
    """An absolute path."""
    if not text.startswith("/") or "\0" in text:
        raise ParseError("must be an absolute path")
    return text


def parse_optional_path(text: str) -> str | None:
    """An absolute path, or empty for none."""
    return parse_path(text) if text else None


def parse_program(text: str) -> str:
    """The name or absolute path of one program, without arguments."""
    if not re.fullmatch(r"[^\s\0]+", text) or ("/" in text and not text.startswith("/")):
        raise ParseError("must be the name or the absolute path of one program, without arguments")
    return text


def parse_uid_range(text: str) -> tuple[int, int]:
    """FIRST-LAST: numbers of user ids, root not among them."""
    match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", text)
    if not match or not 1000 <= int(match[1]) <= int(match[2]) < 2**32 - 1:
        raise ParseError("must be FIRST-LAST, two user ids from 1000 on, such as 2100000000-2100065535")
    return int(match[1]), int(match[2])


def parse_sha256(text: str) -> str:
    """64 hexadecimal digits, as lower case."""
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise ParseError("must be 64 hexadecimal digits")
    return text.lower()


def parse_sha512(text: str) -> str:
    """128 hexadecimal digits, as lower case."""
    if not re.fullmatch(r"[0-9A-Fa-f]{128}", text):
        raise ParseError("must be 128 hexadecimal digits")
    return text.lower()


def parse_base64(text: str) -> bytes:
    """Bytes from strict base64; white space is tolerated, anything else is not (R-PERS-3, R-OSP-11)."""
    try:
        return binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ParseError("not valid base64", echo=False) from None


def encode_base64(data: bytes) -> str:
    """Canonical base64 text."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def parse_swap(text: str) -> SwapPartition | SwapDisk:
    """``<partition number>:<MB>``, or the letter of a whole disk of which a is the first."""
    match = _SWAP.fullmatch(text)
    if not match:
        raise ParseError("must be <partition number>:<MB>, such as 2:512, or the letter of a disk, such as b")
    if match[1]:
        return SwapDisk(index=ord(match[1].lower()) - ord("a"))
    number, megabytes = int(match[2]), int(match[3])
    if number > MAX_PARTITION or megabytes > MAX_SWAP_MEGABYTES:
        raise ParseError(
            f"must have a partition number of at most {MAX_PARTITION} and at most {MAX_SWAP_MEGABYTES} MB"
        )
    return SwapPartition(number=number, megabytes=megabytes)


def parse_mac(text: str) -> str:
    """A MAC address, as lower case with colons (R-NET-1)."""
    if not _MAC.fullmatch(text):
        raise ParseError("must be a MAC address such as aa:00:00:12:34:56")
    return text.lower().replace("-", ":")


def parse_ipv4(text: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise ParseError("must be an IPv4 address such as 192.0.2.10") from None


def parse_ipv6(text: str) -> ipaddress.IPv6Address:
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        raise ParseError("must be an IPv6 address such as 2001:db8::1") from None


def parse_ipv4_network(text: str) -> ipaddress.IPv4Network:
    """A subnet in CIDR form; bits behind the prefix are ignored."""
    try:
        return ipaddress.IPv4Network(_with_prefix(text), strict=False)
    except ValueError:
        raise ParseError("must be an IPv4 subnet such as 192.0.2.0/24") from None


def parse_ipv6_network(text: str) -> ipaddress.IPv6Network:
    """A subnet in CIDR form; bits behind the prefix are ignored."""
    try:
        return ipaddress.IPv6Network(_with_prefix(text), strict=False)
    except ValueError:
        raise ParseError("must be an IPv6 subnet such as 2001:db8::/64") from None


def _with_prefix(text: str) -> str:
    """``ipaddress`` takes an address for a network of one; a subnet must say its size."""
    if "/" not in text:
        raise ValueError("no prefix length")
    return text


def parse_address(text: str) -> str:
    """An IPv4 or IPv6 address in its usual form."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ParseError("must be an IP address") from None


def parse_addresses(text: str) -> tuple[str, ...]:
    """IP addresses separated by white space."""
    return tuple(parse_address(word) for word in text.split())


def parse_hostname(text: str) -> str:
    """The name of a host: letters, digits, ``-``, ``.`` and, tolerated, ``_`` (R-TASK-HOST-1, D-24)."""
    if "\n" in text or "\r" in text:
        raise ParseError("must be one line", echo=True)
    if not _HOSTNAME.fullmatch(text):
        raise ParseError(
            "must be at most 254 letters, digits, '-' and '.', and begin and end with a letter or digit"
        )
    return text
