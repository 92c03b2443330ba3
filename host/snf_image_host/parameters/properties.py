"""Image properties: two JSON objects, merged, folded to upper case, parsed by their table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from snf_image_contract.job import HashMethod, MachineIdMode, NetworkBackend, SwapDisk, SwapPartition
from snf_image_contract.names import OsFamily, TaskName
from snf_image_host.parameters.json_text import Number, load_json
from snf_image_host.parameters.nearest import did_you_mean, nearest
from snf_image_host.parameters.problems import ParseError, Problems, shown
from snf_image_host.parameters.property_table import BY_NAME, EXCLUDE_TASK, PROPERTIES, PropertyRow
from snf_image_host.parameters.values import parse_boolean

MAX_TEXT: Final = 16 * 1024 * 1024
"""Longest JSON text of properties, in characters; CUSTOM_TASK is in it."""
MAX_NAME: Final = 128

Value = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageProperties:
    """The merged properties, parsed. Fields are the names of the table in lower case.

    ``custom_task`` is canonical base64. ``exclude_tasks``: by EXCLUDE_TASK_<TaskName>. ``merged``: every
    property as text, unknown ones too, for custom tasks. ``unknown``: names that no table knows.
    """

    osfamily: OsFamily | None
    root_partition: int | None
    users: tuple[str, ...]
    do_sync: bool
    ignore_unattend: bool
    allow_mounted_task_overwriting: bool
    offline_ntfsresize: bool
    offline_ntfsresize_nocheck: bool
    passwd_hashing_method: HashMethod | None
    swap: SwapPartition | SwapDisk | None
    cloud_init: bool
    custom_task: str | None
    nm_networking: bool
    exclude_all_tasks: bool
    exclude_mounted_tasks: bool
    exclude_filesystemresize_tasks: bool
    allow_unclean_ntfs: bool
    machine_id: MachineIdMode
    net_backend: NetworkBackend | Literal["auto"]
    container: str
    exclude_tasks: frozenset[str] = frozenset()
    merged: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    unknown: tuple[str, ...] = ()


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object of ``img_properties`` or ``inst_properties``, values unread (R-PROP-1)."""
    data = load_json(text, limit=MAX_TEXT, fold_keys=True)
    if not isinstance(data, dict):
        raise ParseError("must be a JSON object", echo=False)
    return data


def parse_properties(
    image: Mapping[str, Any],
    instance: Mapping[str, Any],
    problems: Problems,
    operator_tasks: Iterable[str] = (),
) -> ImageProperties:
    """Merge and parse two objects of :func:`parse_object`; ``instance`` wins (R-PROP-2 to R-PROP-6).

    ``operator_tasks``: names of tasks that the operator added to the helper.
    """
    tasks: dict[str, str] = {task.upper(): task for task in (*TaskName, *operator_tasks)}
    merged = _values("img_properties", image, problems) | _values("inst_properties", instance, problems)
    given = {name: value for name, value in merged.items() if value is not None}
    fields: dict[str, Any] = {row.field: _parse_default(row) for row in PROPERTIES}
    excluded: set[str] = set()
    unknown: list[str] = []
    for name, value in given.items():
        row = BY_NAME.get(name)
        if row is not None:
            fields[row.field] = _parse(row, value, problems)
        elif name.startswith(EXCLUDE_TASK):
            excluded |= _parse_exclusion(name, value, tasks, problems)
        else:
            unknown.append(name)
            _warn_of_unknown(name, tasks, problems)
    return ImageProperties(
        **fields,
        exclude_tasks=frozenset(excluded),
        merged=tuple((name, _text(value)) for name, value in sorted(given.items())),
        unknown=tuple(unknown),
    )


def for_family(properties: ImageProperties, family: OsFamily, problems: Problems) -> ImageProperties:
    """Properties that do not apply to ``family`` back at their defaults, with a warning each (R-PROP-7)."""
    given = {name for name, _ in properties.merged}
    changes: dict[str, Any] = {}
    for row in PROPERTIES:
        if row.name in given and row.families and family not in row.families:
            problems.warn(f"property {row.name} does not apply to {family} images and is ignored")
            changes[row.field] = _parse_default(row)
    return dataclasses.replace(properties, **changes)


def _parse_default(row: PropertyRow) -> Any:
    return None if row.default is None else row.parse(row.default)


def _values(parameter: str, given: Mapping[str, Any], problems: Problems) -> dict[str, Value | None]:
    """Names folded, values as text; None for JSON null (R-PROP-2, R-PROP-4)."""
    result: dict[str, Value | None] = {}
    for key, value in given.items():
        # "ß" and its like change their length by folding; only ASCII is allowed anyway.
        if not (key.isascii() and key.replace("_", "a").isalnum() and len(key) <= MAX_NAME):
            problems.error(
                f"{parameter}: property name {shown(key)} must be 1 to {MAX_NAME} letters, digits and _"
            )
            continue
        name = key.upper()
        try:
            result[name] = _value(name, value)
        except ParseError as error:
            problems.error(f"{parameter}: property {name}: {error}")
    return result


def _value(name: str, value: Any) -> Value | None:
    if isinstance(value, Number):
        return value.decimal_text()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, str):
        return value
    if name == "USERS" and isinstance(value, list) and all(type(item) is str for item in value):
        return tuple(value)
    expected = "text or an array of names" if name == "USERS" else "text, a number, true, false or null"
    raise ParseError(f"must be {expected}")


def _text(value: Value) -> str:
    return value if isinstance(value, str) else "\n".join(value)


def _parse(row: PropertyRow, value: Value, problems: Problems) -> Any:
    if isinstance(value, tuple):
        return value
    if row.is_boolean and not value.strip():
        problems.warn(f"property {row.name} is set but empty, which means no")
        return False
    return problems.parse(f"property {row.name}", row.parse, value, secret=row.secret)


def _excludable(task: str) -> bool:
    """Those of the operator all are."""
    return task.excludable if isinstance(task, TaskName) else True


def _parse_exclusion(name: str, value: Value, tasks: Mapping[str, str], problems: Problems) -> set[str]:
    """The task that ``EXCLUDE_TASK_<name>`` excludes; a name that excludes none is warned of (R-PROP-6)."""
    word = name.removeprefix(EXCLUDE_TASK)
    task = tasks.get(word)
    if task is None:
        known = (known for known in tasks.values() if _excludable(known))
        problems.warn(f"property {name} names no task{did_you_mean(word, known)}")
        return set()
    if not _excludable(task):
        problems.warn(f"property {name} has no effect: task {task} cannot be excluded alone")
        return set()
    if not _text(value).strip():
        problems.warn(f"property {name} is set but empty, which means no")
        return set()
    return {task} if problems.parse(f"property {name}", parse_boolean, _text(value)) else set()


def _warn_of_unknown(name: str, tasks: Mapping[str, str], problems: Problems) -> None:
    known = (*BY_NAME, *(EXCLUDE_TASK + word for word, task in tasks.items() if _excludable(task)))
    found = nearest(name, known)
    if found:
        problems.warn(f"property {name} is not known, did you mean {found}? Only custom tasks see it")
