"""Which source an image identifier belongs to: built-in ones and programs of the operator, by priority.

A program is asked with ``-p ID`` whether it knows the image, with ``-s ID`` for its size, and called with the
identifier alone writes it to its standard output (R-BACK-1 to R-BACK-8).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from typing import Final, Literal

from snf_image_host.deployment import SourceKind
from snf_image_host.inert import inert
from snf_image_host.parameters.problems import ParseError, shown
from snf_image_host.parameters.urls import redact_url
from snf_image_process import ProcessError, run

NETWORK_SCHEMES: Final = ("https", "http", "ftps", "ftp")
PROBE_SECONDS: Final = 10.0
_BUILT_IN: Final = {"null": 30, "network": 20, "local": 10}
_BUILT_IN_DESTINATIONS: Final = {"uri": 20, "local": 10}
_DEFAULT_PRIORITY: Final = 50
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Warn = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlaces:
    """Where the programs are, and the operator's files about them."""

    programs: str = "/usr/share/ganeti/os/snf-image/backends"
    configuration: str = "/etc/snf-image"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """``path`` is what ``kind`` says; None for ``null``. ``shown``: for messages, without credentials.

    ``program``: the path of the program that has it.
    """

    path: str | None
    shown: str
    kind: SourceKind = "path"
    program: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A source or destination; ``program`` None for a built-in one."""

    name: str
    priority: int
    program: str | None = None


def locate(identifier: str, *, image_format: str, warn: Warn, places: BackendPlaces | None = None) -> Located:
    """Where an image is that was named by ``img_id``, or by a word with a scheme on the command line.

    :class:`ParseError` if no source knows it (R-BACK-7).
    """
    places = places or BackendPlaces()
    if not identifier or re.search(r"[\x00-\x1f\x7f]", identifier) or identifier.startswith("-"):
        raise ParseError("must not be empty, hold control characters or begin with '-'", echo=False)
    for backend in backends("src", places, warn):
        if backend.program is None:
            located = _built_in(backend.name, identifier, warn)
        else:
            located = _of_program(backend.program, identifier, image_format, places, warn)
        if located is not None:
            return located
    scheme = identifier.partition(":")[0].lower()
    pithos = "; Pithos needs a back-end of its own" if scheme in ("pithos", "pithosmap") else ""
    raise ParseError(f"no back-end knows {shown(redact_url(identifier))}{pithos}", echo=False)


def backends(kind: Literal["src", "dst"], places: BackendPlaces, warn: Warn) -> tuple[Backend, ...]:
    """All that are not disabled, the first one to ask first (R-BACK-4, R-BACK-5, R-BACK-6)."""
    built_in = _BUILT_IN if kind == "src" else _BUILT_IN_DESTINATIONS
    found = [Backend(name=name, priority=priority) for name, priority in built_in.items()]
    found += [
        Backend(name=name, priority=_DEFAULT_PRIORITY, program=program)
        for name, program in _programs(os.path.join(places.programs, kind), warn)
    ]
    files = os.path.join(places.configuration, "backends", kind)
    enabled = []
    for backend in found:
        disabled = os.path.join(files, f"{backend.name}.disabled")
        if os.path.lexists(disabled):
            warn(f"the back-end {backend.name} is disabled by {disabled}")
        else:
            enabled.append(dataclasses.replace(backend, priority=_priority(files, backend, warn)))
    return tuple(sorted(enabled, key=lambda backend: (backend.priority, backend.name.encode()), reverse=True))


def program_environment(image_format: str, places: BackendPlaces) -> dict[str, str]:
    """What programs find in their environment, besides a PATH: no secrets (R-BACK-8)."""
    return {"LC_ALL": "C", "IMAGE_FORMAT": image_format, "SNF_IMAGE_CONFDIR": places.configuration}


def is_known_to(program: str, identifier: str, image_format: str, places: BackendPlaces, warn: Warn) -> bool:
    """Whether ``program`` says that the image or disk is its own (R-BACK-2)."""
    name = os.path.basename(program)
    try:
        environment = program_environment(image_format, places)
        answer = run([program, "-p", identifier], timeout=PROBE_SECONDS, env=environment).stdout
    except ProcessError as error:
        warn(f"the back-end {name} does not tell whether it knows the image: {error.reason}")
        return False
    if answer not in (b"yes\n", b"no\n"):
        warn(f"the back-end {name} answers neither yes nor no: {inert(answer[:40].decode('latin-1'))}")
    return answer == b"yes\n"


def ask_size(program: str, identifier: str, environment: dict[str, str]) -> int | None:
    """Bytes of an image, None if the program does not know."""
    try:
        text = run([program, "-s", identifier], timeout=PROBE_SECONDS, env=environment).stdout.strip()
    except ProcessError:
        return None
    return int(text) if text.isdigit() and len(text) < 19 else None


def _built_in(name: str, identifier: str, warn: Warn) -> Located | None:
    if name == "null":
        return Located(path=None, shown="null") if identifier == "null" else None
    match = _SCHEME.fullmatch(identifier)
    scheme = match[1].lower() if match else ""
    if name == "network":
        if scheme not in NETWORK_SCHEMES:
            return None
        return Located(path=identifier, shown=redact_url(identifier), kind="url")
    if match is None and ":" not in identifier:
        return _local(identifier)
    if match is None or scheme not in ("local", "file"):
        return None
    if scheme == "file":
        warn("file:// is deprecated, use local://")
    return _local(match[2])


def _local(name: str) -> Located:
    if not name.strip("/"):
        raise ParseError("the name of the image is empty", echo=False)
    return Located(path=name, shown=name, kind="image-dir")


def _of_program(
    program: str, identifier: str, image_format: str, places: BackendPlaces, warn: Warn
) -> Located | None:
    if is_known_to(program, identifier, image_format, places, warn):
        return Located(path=identifier, shown=redact_url(identifier), kind="program", program=program)
    return None


def _programs(directory: str, warn: Warn) -> Iterator[tuple[str, str]]:
    """Name and path of each: an executable, or one in a directory of its own name (R-BACK-1)."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    except OSError as error:
        warn(f"the back-ends in {directory} cannot be read: {error.strerror}")
        return
    for name in names:
        path = os.path.join(directory, name)
        if os.path.isdir(path):
            path = os.path.join(path, name)
        if _NAME.fullmatch(name) and os.path.isfile(path) and os.access(path, os.X_OK):
            yield name, path
        else:
            warn(f"the back-end {inert(name)} is skipped: it is not executable")


def _priority(files: str, backend: Backend, warn: Warn) -> int:
    try:
        with open(
            os.path.join(files, f"{backend.name}.priority"), encoding="ascii", errors="replace"
        ) as file:
            text = file.read(16).strip()
    except OSError:
        return backend.priority
    if re.fullmatch(r"[0-9]{1,2}", text):
        return int(text)
    warn(f"the priority of the back-end {backend.name} is not a number of one or two digits, 50 is taken")
    return _DEFAULT_PRIORITY
