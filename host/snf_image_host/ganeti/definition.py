"""The directory of the OS definition, made from the tables: what Ganeti finds below one of its paths."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shlex
import stat
from typing import Final

from snf_image_host.errors import NodeError
from snf_image_host.ganeti.environment import API_VERSION
from snf_image_host.ganeti.node_files import DEFAULT_VARIANT
from snf_image_host.ganeti.scripts import SCRIPTS
from snf_image_host.parameters.os_parameters import OS_PARAMETERS

DEFAULT_DIRECTORY: Final = "/usr/share/ganeti/os/snf-image"
VARIANTS_LIST: Final = "variants.list"
_PROGRAM: Final = 0o755
_TEXT: Final = 0o644


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionFile:
    """``keep``: a file that is there already belongs to the operator."""

    name: str
    text: str
    mode: int = _TEXT
    keep: bool = False


def script_text(name: str, interpreter: str) -> str:
    """A script: nothing but who runs it, in isolation from the environment and the working directory."""
    return f'#!/bin/sh\nexec {shlex.quote(interpreter)} -I -m snf_image_host.ganeti {name} "$@"\n'


def parameters_list() -> str:
    """Each OS parameter with a word about it; Ganeti takes neither blank lines nor comments there."""
    return "".join(f"{row.name} {row.help}\n" for row in OS_PARAMETERS)


def definition_files(interpreter: str) -> tuple[DefinitionFile, ...]:
    """Every file of the definition; ``interpreter``: the Python that has this package."""
    scripts = (
        DefinitionFile(name=name, text=script_text(name, interpreter), mode=_PROGRAM) for name in SCRIPTS
    )
    return (
        *scripts,
        DefinitionFile(name="ganeti_api_version", text=f"{API_VERSION}\n"),
        DefinitionFile(name="parameters.list", text=parameters_list()),
        DefinitionFile(name=VARIANTS_LIST, text=f"{DEFAULT_VARIANT}\n", keep=True),
    )


def install(directory: str, variants_dir: str, *, interpreter: str) -> tuple[str, ...]:
    """Make or renew the definition; returns the paths that were written.

    The operator's variants.list stays, and so does what else lies there. An empty file of the default variant
    is made if there is none (D-27). :class:`NodeError` if something cannot be written.
    """
    written = []
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        for file in definition_files(interpreter):
            path = os.path.join(directory, file.name)
            if not (file.keep and os.path.lexists(path)):
                _replace(path, file.text, file.mode)
                written.append(path)
        os.makedirs(variants_dir, mode=0o755, exist_ok=True)
        default = os.path.join(variants_dir, f"{DEFAULT_VARIANT}.conf")
        if not os.path.lexists(default):
            _replace(default, "# What is set here is for the default variant only.\n", _TEXT)
            written.append(default)
    except OSError as error:
        raise NodeError(
            f"the OS definition cannot be written: {error.filename}: {error.strerror}",
            hint="run it as root; --os-dir names another directory",
        ) from None
    return tuple(written)


def find_distrust(path: str) -> str | None:
    """The first directory on the way to ``path``, or the file, that others than root can write to.

    Root runs what is there.
    """
    parts = os.path.realpath(path).split("/")
    for count in range(1, len(parts) + 1):
        part = "/".join(parts[:count]) or "/"
        try:
            status = os.lstat(part)
        except OSError:
            return part
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky):
            return part
    return None


def _replace(path: str, text: str, mode: int) -> None:
    """Whole or not at all: a script may just be running."""
    partial = f"{path}.{secrets.token_hex(4)}"
    try:
        with open(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8"
        ) as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        os.rename(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
