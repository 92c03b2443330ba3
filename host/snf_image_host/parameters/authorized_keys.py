"""The OS parameter ``auth_keys``: lines in the format of authorized_keys (R-OSP-10, D-26)."""

from __future__ import annotations

import re
from typing import Final

from snf_image_host.parameters.problems import ParseError, Problems
from snf_image_host.parameters.values import parse_base64

MAX_BYTES: Final = 64 * 1024
_TYPE: Final = re.compile(
    r"(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519@openssh\.com"
    r"|sk-ecdsa-sha2-nistp256@openssh\.com"
    r"|(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519|sk-ecdsa-sha2-nistp256)"
    r"-cert-v01@openssh\.com)"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def parse_text(text: str) -> str:
    """The whole text with LF line ends, within its bounds."""
    if "\0" in text:
        raise ParseError("holds a NUL character", echo=False)
    if len(text.encode()) > MAX_BYTES:
        raise ParseError(f"longer than {MAX_BYTES} bytes", echo=False)
    return text.replace("\r\n", "\n")


def parse_keys(text: str, problems: Problems) -> tuple[str, ...]:
    """The lines that hold a key. Others are dropped with a warning that names their number only."""
    keys: list[str] = []
    dropped = False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t")
        if not line or line.startswith("#"):
            continue
        if is_key(line):
            keys.append(line)
        else:
            dropped = True
            problems.warn(f"auth_keys: line {number} is not an SSH public key and is dropped")
    if not keys and "PRIVATE KEY-----" in text:
        problems.error("auth_keys: this is a private key; the public one is in the file with .pub at its end")
    elif not keys:
        why = "no line is an SSH public key" if dropped else "there is no key in it"
        problems.error(f"auth_keys: {why}")
    return tuple(keys)


def is_key(line: str) -> bool:
    """Whether ``line`` is ``[options] keytype base64 [comment]`` with a blob of that type."""
    if _CONTROL.search(line):
        return False
    words = line.split(None, 2)
    if len(words) >= 2 and _TYPE.fullmatch(words[0]):
        return _blob_is_of(words[0], words[1])
    words = _after_options(line).split(None, 2)
    return len(words) >= 2 and bool(_TYPE.fullmatch(words[0])) and _blob_is_of(words[0], words[1])


def _after_options(line: str) -> str:
    """What follows the first word; blanks in double quotes do not end it."""
    quoted = False
    previous = ""
    for index, character in enumerate(line):
        if character == '"' and previous != "\\":
            quoted = not quoted
        elif character in " \t" and not quoted:
            return line[index:].lstrip(" \t")
        previous = character
    return ""


def _blob_is_of(kind: str, text: str) -> bool:
    """Whether base64 ``text`` is a key blob that begins with its type, as RFC 4253 has it."""
    try:
        blob = parse_base64(text)
    except ParseError:
        return False
    name = kind.encode("ascii")
    return blob.startswith(len(name).to_bytes(4, "big") + name) and len(blob) > len(name) + 4
