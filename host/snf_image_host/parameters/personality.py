"""Files to inject: the JSON array ``img_personality`` (R-PERS-1 to R-PERS-7)."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

from snf_image_contract.job import PersonalityFile
from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_host.parameters.json_text import Number, load_json
from snf_image_host.parameters.nearest import did_you_mean
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.parameters.values import encode_base64, parse_base64

MAX_TEXT: Final = 64 * 1024 * 1024
MAX_PATH_BYTES: Final = 4095
_KEYS: Final = ("path", "contents", "owner", "group", "mode")
_MAX_MODE: Final = 0o7777
_WINDOWS_FORBIDDEN: Final = re.compile(r'[<>:"|?*\x00-\x1f]')
_DRIVE: Final = re.compile(r"[Cc]:(?=[\\/])")
# Each class of users may read if it may do anything, and has no more rights than the one before it.
_OCTAL_TRIPLES: Final = frozenset((0, 4, 5, 6, 7))


def parse_array(text: str) -> list[Any]:
    """The JSON array of ``img_personality``, entries unread."""
    data = load_json(text, limit=MAX_TEXT)
    if not isinstance(data, list):
        raise ParseError("must be a JSON array", echo=False)
    return data


def parse_personality(
    entries: list[Any],
    problems: Problems,
    *,
    family: OsFamily | None,
    max_files: int,
    max_bytes: int,
) -> tuple[PersonalityFile, ...]:
    """The files of an array of :func:`parse_array`. ``family`` None: not known before detection."""
    if len(entries) > max_files:
        problems.error(f"img_personality: {len(entries)} files, at most {max_files} are allowed")
        return ()
    files: list[PersonalityFile] = []
    paths: set[str] = set()
    total = 0
    for index, entry in enumerate(entries):
        where = f"img_personality[{index}]"
        try:
            file, size = _parse_file(entry, where, family, problems)
        except ParseError as error:
            problems.error(f"{where}{error}")
            continue
        total += size
        identity = _identity(file.path, family)
        if identity in paths:
            problems.error(f"{where}: path {shown(file.path)} occurs twice")
        paths.add(identity)
        files.append(file)
    if total > max_bytes:
        problems.error(f"img_personality: {total} bytes, at most {max_bytes} are allowed")
    return tuple(files)


def _parse_file(
    entry: Any, where: str, family: OsFamily | None, problems: Problems
) -> tuple[PersonalityFile, int]:
    """One file and the size of its contents; :class:`ParseError` continues ``img_personality[N]``."""
    if not isinstance(entry, dict):
        raise ParseError(": must be an object")
    for key in entry:
        if key not in _KEYS:
            raise ParseError(f": key {shown(key)} is not known{did_you_mean(key, _KEYS)}")
    for key in ("path", "contents"):
        if key not in entry:
            raise ParseError(f": {key} is missing")
    for key in ("path", "contents", "owner", "group"):
        if key in entry and type(entry[key]) is not str:
            raise ParseError(f".{key}: must be text")
    try:
        contents = parse_base64(entry["contents"])
    except ParseError as error:
        raise ParseError(f".contents: {error}") from None
    file = PersonalityFile(
        path=_parse_path(entry["path"], family),
        contents=Secret(encode_base64(contents)),
        owner=_parse_account("owner", entry),
        group=_parse_account("group", entry),
        mode=_parse_mode(entry["mode"], where, problems) if "mode" in entry else None,
    )
    return file, len(contents)


def _parse_path(path: str, family: OsFamily | None) -> str:
    """A path that may be written to; on Windows as ``/`` from the system drive (R-PERS-2).

    Before detection a path in the manner of Windows is let through as it is: the helper knows.
    """
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ParseError(f".path: longer than {MAX_PATH_BYTES} bytes")
    windows = family is not None and family.is_windows
    if family is None and (_DRIVE.match(path) or path.startswith("\\")):
        _check_windows_path(path)
        return path
    if windows:
        return _check_windows_path(path)
    if not path.startswith("/"):
        raise ParseError(f".path: must be absolute, not {shown(path)}")
    _check_components(path, path.split("/"))
    return path


def _check_windows_path(path: str) -> str:
    plain = _DRIVE.sub("", path, count=1).replace("\\", "/")
    if not plain.startswith("/"):
        plain = "/" + plain
    parts = plain.split("/")
    _check_components(path, parts)
    if any(_WINDOWS_FORBIDDEN.search(part) for part in parts):
        raise ParseError(f'.path: none of < > : " | ? * may be in {shown(path)}')
    return plain


def _check_components(path: str, parts: list[str]) -> None:
    if ".." in parts:
        raise ParseError(f".path: must not hold '..', as {shown(path)} does")
    if parts[-1] in ("", "."):
        raise ParseError(f".path: must name a file, not {shown(path)}")


def _identity(path: str, family: OsFamily | None) -> str:
    """Equal for two spellings of one path."""
    if family is not None and family.is_windows:
        path = path.lower()
    return posixpath.normpath("/" + path.lstrip("/"))


def _parse_account(key: str, entry: dict[str, Any]) -> str | None:
    if key not in entry:
        return None
    name: str = entry[key]
    if not name or any(character in name for character in ":/\n\r\t "):
        raise ParseError(f".{key}: {shown(name)} cannot be the name of an account")
    return name


def _parse_mode(value: Any, where: str, problems: Problems) -> int:
    """A JSON number is the value of the bits, text is octal (R-PERS-4)."""
    if isinstance(value, Number):
        if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) > _MAX_MODE:
            raise ParseError(f".mode: a number must be whole and at most {_MAX_MODE} (octal 7777)")
        if _reads_like_octal(value):
            problems.warn(
                f"{where}.mode: the number {value} means octal {int(value):04o}; "
                f'for octal {int(value, 8):04o} write the text "{int(value, 8):04o}"'
            )
        return int(value)
    if type(value) is str:
        match = re.fullmatch(r"(?:0o)?([0-7]{1,6})", value)
        if not match or int(match[1], 8) > _MAX_MODE:
            raise ParseError(f".mode: text must be octal, at most 7777, not {shown(value)}")
        return int(match[1], 8)
    raise ParseError(".mode: must be a number or octal text")


def _reads_like_octal(digits: str) -> bool:
    """Whether decimal digits look like a mode that was meant in octal, such as 644 (but not 420)."""
    if not re.fullmatch(r"[0-7]?[0-7]{3}", digits):
        return False
    user, group, other = (int(digit) for digit in digits[-3:])
    plausible = {user, group, other} <= _OCTAL_TRIPLES
    return plausible and user != 0 and user & group == group and group & other == other
