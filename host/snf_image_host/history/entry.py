"""Reading the history: one entry for each run, by instance and by time."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import Any, Final

from snf_image_host.errors import NodeError, UserError

RECEIPT: Final = ".json"
CONSOLE: Final = ".console"
EVIDENCE: Final = ".evidence"
ENTRY_NAME: Final = re.compile(r"([0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[a-z]+)(\.json|\.console|\.evidence)")
INSTANCE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}")
_MAX_RECEIPT: Final = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run. ``name``: when it began (UTC) and what it was, such as ``20261121T101500.123456Z-create``.

    ``document``: its receipt, None while it runs or after it was killed. ``console``, ``evidence``: paths of
    what else is there.
    """

    instance: str
    name: str
    document: dict[str, Any] | None
    console: str | None
    evidence: str | None


def instances(directory: str) -> tuple[str, ...]:
    """Instances with a history, in alphabetical order."""
    try:
        with os.scandir(directory) as found:
            names = [item.name for item in found if item.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise NodeError(f"{directory} cannot be read: {error.strerror}", hint="run it as root") from None
    return tuple(sorted(name for name in names if INSTANCE_NAME.fullmatch(name)))


def entries(directory: str, instance: str) -> tuple[Entry, ...]:
    """The runs of an instance, oldest first; :class:`UserError` if it has no history."""
    place = _place(directory, instance)
    try:
        found = os.listdir(place)
    except FileNotFoundError:
        raise UserError(
            f"nothing is known of the instance {instance}", hint="`snf-image history` lists those that are"
        ) from None
    except OSError as error:
        raise NodeError(f"{place} cannot be read: {error.strerror}", hint="run it as root") from None
    names = sorted({match[1] for name in found if (match := ENTRY_NAME.fullmatch(name))})
    return tuple(_entry(place, instance, name, found) for name in names)


def read_entry(directory: str, instance: str, which: str | None) -> Entry:
    """The entry named ``which``, or the newest that has a receipt, or the newest."""
    known = entries(directory, instance)
    if which is not None:
        for entry in known:
            if entry.name == which:
                return entry
        raise UserError(
            f"the instance {instance} has no entry {which}", hint=f"`snf-image history {instance}` lists them"
        )
    if not known:
        raise UserError(f"nothing is known of the instance {instance}")
    finished = [entry for entry in known if entry.document is not None]
    return (finished or list(known))[-1]


def _place(directory: str, instance: str) -> str:
    if not INSTANCE_NAME.fullmatch(instance):
        raise UserError("INSTANCE: must be the name of an instance")
    return os.path.join(directory, instance)


def _entry(place: str, instance: str, name: str, found: list[str]) -> Entry:
    def path(suffix: str) -> str | None:
        return os.path.join(place, name + suffix) if name + suffix in found else None

    receipt = path(RECEIPT)
    return Entry(
        instance=instance,
        name=name,
        document=None if receipt is None else _read(receipt),
        console=path(CONSOLE),
        evidence=path(EVIDENCE),
    )


def _read(path: str) -> dict[str, Any] | None:
    """A receipt; None for what is none, such as the rest of one after the disk was full."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(_MAX_RECEIPT))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
