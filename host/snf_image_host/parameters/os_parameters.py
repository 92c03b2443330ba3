"""The table of the twelve OS parameters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Final, Literal

from snf_image_contract.names import ImageFormat
from snf_image_host.parameters import authorized_keys, personality, properties
from snf_image_host.parameters.problems import ParseError
from snf_image_host.parameters.table import Row
from snf_image_host.parameters.values import choice, encode_base64, parse_base64

MAX_PASSWORD_BYTES: Final = 512
MAX_HASH_BYTES: Final = 1024
MAX_BLOWFISH_BYTES: Final = 72
_HASH: Final = re.compile(
    r"\$(?:1|2[abxy]|5|6|7|y|gy|sha1)\$.*|_.*|[./0-9A-Za-z]{13}|\*.*|!.*"
)  # the crypt(5) forms


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OsParameter(Row):
    """``empty``: what an empty value is: an error, as if missing, or not set with a warning (R-OSP-3)."""

    empty: Literal["error", "missing", "unset"] = "unset"


def parse_image_id(text: str) -> str:
    """An image identifier: one line that no program can take for an option."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ParseError("must not hold control characters", echo=False)
    if text.startswith("-"):
        raise ParseError("must not begin with '-'", echo=False)
    return text


def parse_image_format(text: str) -> ImageFormat:
    """One of the three words, exactly (R-OSP-5)."""
    return ImageFormat(choice(*ImageFormat)(text))


def parse_password(text: str) -> str:
    """A clear-text password (R-OSP-7)."""
    if re.search(r"[\x00\r\n]", text):
        raise ParseError("must not hold NUL or line breaks", echo=False)
    if len(text.encode()) > MAX_PASSWORD_BYTES:
        raise ParseError(f"must be at most {MAX_PASSWORD_BYTES} bytes", echo=False)
    return text


def parse_password_hash(text: str) -> str:
    """A string that can stand in the second field of shadow (R-OSP-8)."""
    if not re.fullmatch(r"[!-9;-~]+", text):
        raise ParseError("must be printable ASCII without ':' and white space", echo=False)
    if len(text) > MAX_HASH_BYTES:
        raise ParseError(f"must be at most {MAX_HASH_BYTES} bytes", echo=False)
    return text


def is_known_hash(text: str) -> bool:
    """Whether a hash has one of the forms of crypt(5)."""
    return bool(_HASH.fullmatch(text))


def parse_product_key(text: str) -> str:
    """A Windows product key (R-OSP-9)."""
    if not re.fullmatch(r"[A-Za-z0-9]{5}(?:-[A-Za-z0-9]{5}){4}", text):
        raise ParseError("must be five groups of five letters or digits, joined by '-'", echo=False)
    return text


def parse_user_data(text: str) -> str:
    """Canonical base64 of cloud-init user data (R-OSP-11)."""
    return encode_base64(parse_base64(text))


def parse_url_text(text: str) -> str:
    """A URL; which schemes are allowed is the operator's business and checked with it."""
    return text


def _row(name: str, values: str, parse: Callable[[str], Any], text: str, **more: Any) -> OsParameter:
    return OsParameter(name=name, values=values, parse=parse, help=text, **more)


OS_PARAMETERS: Final[tuple[OsParameter, ...]] = (
    _row(
        "img_id",
        "name or URL of an image",
        parse_image_id,
        "The image. Required, unless config_url supplies it.",
        empty="missing",
        example="local://debian-12.diskdump",
    ),
    _row(
        "img_format",
        "one of " + ", ".join(ImageFormat),
        parse_image_format,
        "What the image is a dump of. Required, unless config_url supplies it.",
        empty="missing",
        example="diskdump",
    ),
    _row(
        "img_passwd",
        "text of at most 512 bytes",
        parse_password,
        "Password of the accounts in USERS. Excludes img_passwd_hash.",
        secret=True,
        empty="error",
        example="correct horse",
    ),
    _row(
        "img_passwd_hash",
        "a crypt(5) string",
        parse_password_hash,
        "Hash of the password, for Unix images. Excludes img_passwd.",
        secret=True,
        empty="error",
        example="$6$salt$…",
    ),
    _row(
        "img_properties",
        "a JSON object",
        properties.parse_object,
        "Properties of the image.",
        default_shown="{}",
        example='{"OSFAMILY": "linux", "ROOT_PARTITION": "1"}',
    ),
    _row(
        "inst_properties",
        "a JSON object",
        properties.parse_object,
        "Properties of the instance; they replace those of the image by name.",
        default_shown="{}",
        example='{"SWAP": "2:512"}',
    ),
    _row(
        "img_personality",
        "a JSON array of objects with path, contents (base64), owner, group, mode",
        personality.parse_array,
        "Files to inject.",
        secret=True,
        default_shown="[]",
        example='[{"path": "/etc/motd", "contents": "aGVsbG8K", "mode": "0644"}]',
    ),
    _row(
        "auth_keys",
        "lines in the format of authorized_keys",
        authorized_keys.parse_text,
        "SSH public keys for the accounts in USERS, for Unix images.",
        example="ssh-ed25519 AAAA… me@home",
    ),
    _row(
        "os_product_key",
        "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX",
        parse_product_key,
        "Windows product key.",
        secret=True,
        empty="error",
        example="ABCDE-12345-FGHIJ-67890-KLMNO",
    ),
    _row(
        "os_answer_file",
        "a URL",
        parse_url_text,
        "Windows answer file to use instead of the shipped one.",
        example="https://example.org/unattend.xml",
    ),
    _row(
        "config_url",
        "a URL",
        parse_url_text,
        "Where to fetch a JSON object with further parameters.",
        example="https://example.org/instance.json",
    ),
    _row(
        "cloud_userdata",
        "base64",
        parse_user_data,
        "User data for cloud-init, used with property CLOUD_INIT=yes.",
        secret=True,
        example="I2Nsb3VkLWNvbmZpZwo=",
    ),
)

BY_NAME: Final = {row.name: row for row in OS_PARAMETERS}
