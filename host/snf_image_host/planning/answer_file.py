"""The answer file for Windows: the caller's, what os_answer_file names, or the operator's."""

from __future__ import annotations

import base64
import functools
import os
import urllib.parse
from typing import Final
from xml.parsers import expat

from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.errors import SnfImageError
from snf_image_host.image_directory import open_image_file
from snf_image_host.parameters.checks import Parameters
from snf_image_host.parameters.problems import Problems
from snf_image_host.parameters.urls import scheme_of
from snf_image_host.planning.documents import fetch
from snf_image_host.planning.request import Request

_NAME: Final = "os_answer_file"
_OPTION: Final = "--answer-file"


def answer_file(
    asked: Request, parameters: Parameters, config: NodeConfig, problems: Problems
) -> Secret | None:
    """Base64 of the answer file; None if there is none, or the image is no Windows.

    It is the one that the request brings, else what os_answer_file names, else what UNATTEND names. To be
    called when all else was checked: a mistake must not cost a fetch. Errors go to ``problems``; what cannot
    be fetched is a :class:`SnfImageError`.
    """
    given, url, family = asked.answer_file, parameters.answer_file, parameters.family
    if given is not None:
        name, read = _OPTION, functools.partial(_bounded, base64.b64decode(given.reveal()), _OPTION)
    elif url is not None:
        name, read = _NAME, functools.partial(_read_named, url)
    else:
        return default_answer_file(config, family, problems)
    if family is not None and not family.is_windows:
        problems.warn(f"{name} is ignored for {family} images")
        return None
    if problems.errors:
        return None
    data = read(config, problems)
    # Whether an unknown family wants XML or text, the helper will know.
    if data is not None and family is OsFamily.WINDOWS:
        _demand_xml(data, name, problems)
    return None if data is None else Secret(base64.b64encode(data).decode("ascii"))


def default_answer_file(config: NodeConfig, family: OsFamily | None, problems: Problems) -> Secret | None:
    """Base64 of the file that UNATTEND names, None if it names none or the image is known to be no Windows.

    The helper reads it as XML or text; here it is bytes, of at most FETCH_MAX_PARAM_SIZE.
    """
    if config.unattend is None or (family is not None and not family.is_windows):
        return None
    problems.warn("UNATTEND is deprecated; use the parameter os_answer_file")
    try:
        with open(config.unattend, "rb") as file:
            data = file.read(config.fetch_max_param_size + 1)
    except OSError as error:
        problems.error(f"UNATTEND: {config.unattend}: {error.strerror}")
        return None
    bounded = _bounded(data, f"UNATTEND: {config.unattend}", config, problems)
    return None if bounded is None else Secret(base64.b64encode(bounded).decode("ascii"))


def _bounded(data: bytes, name: str, config: NodeConfig, problems: Problems) -> bytes | None:
    """``data``, if it is not larger than FETCH_MAX_PARAM_SIZE."""
    if len(data) > config.fetch_max_param_size:
        problems.error(f"{name}: larger than {config.fetch_max_param_size} bytes")
        return None
    return data


def _read_named(url: str, config: NodeConfig, problems: Problems) -> bytes | None:
    if scheme_of(url) == "file":
        return _read_below(config, url, problems)
    return fetch(_NAME, url, config, problems)


def _read_below(config: NodeConfig, url: str, problems: Problems) -> bytes | None:
    """A file of root's below ANSWER_FILE_DIR (R-OSP-12, T-2); no error tells what is elsewhere."""
    try:
        name = _name_below(config.answer_file_dir or "", url)
        with open_image_file(config.answer_file_dir or "", name, allow_links=False) as fd:
            if os.fstat(fd).st_uid != 0:
                problems.error(f"{_NAME}: the file does not belong to root")
                return None
            data = os.pread(fd, config.fetch_max_param_size + 1, 0)
    except (ValueError, OSError, SnfImageError):
        problems.error(f"{_NAME}: the file: URL leads to no file below ANSWER_FILE_DIR")
        return None
    return _bounded(data, _NAME, config, problems)


def _name_below(directory: str, url: str) -> str:
    """The path in the URL as seen from the directory; :class:`ValueError` if it is not below it."""
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path)
    below = f"{directory.rstrip('/')}/"
    if parts.netloc not in ("", "localhost") or parts.query or not directory or not path.startswith(below):
        raise ValueError(path)
    name = path.removeprefix(below)
    if not name or ".." in name.split("/"):
        raise ValueError(path)
    return name


def _demand_xml(data: bytes, name: str, problems: Problems) -> None:
    """Well-formed, and without a declaration of entities, which could blow it up (R-TASK-UNA-7)."""
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_declaration
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes no keyword
    except expat.ExpatError as error:
        problems.error(f"{name}: not well-formed XML (line {error.lineno}, column {error.offset})")
    except _DeclarationError:
        problems.error(f"{name}: the XML has a document type declaration, which is not allowed")


class _DeclarationError(Exception):
    """There is a DTD."""


def _refuse_declaration(*_: object) -> None:
    raise _DeclarationError
