"""The commands ``history`` and ``show``: what was done to the instances of this node."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, Final

from snf_image_host.cli.asking import config_files
from snf_image_host.cli.output import print_json, print_result
from snf_image_host.configuration.node_config import load_config
from snf_image_host.errors import NodeError
from snf_image_host.history import Entry, entries, instances, read_entry

_COLUMNS: Final = ("entry", "instance", "result", "image", "seconds", "warnings")
_MAX_CONSOLE: Final = 64 * 1024 * 1024


def run_history(arguments: argparse.Namespace) -> int:
    """One line for each run, the newest last."""
    directory = _directory(arguments)
    names = (arguments.instance,) if arguments.instance else instances(directory)
    found = sorted(
        (entry for name in names for entry in entries(directory, name)), key=lambda entry: entry.name
    )
    if arguments.json:
        print_json([_as_json(entry) for entry in found])
    elif found:
        print_result("\n".join(_table([_row(entry) for entry in found])))
    else:
        print_result(f"no instance has a history in {directory}")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """One run as a whole, or its console log."""
    entry = read_entry(_directory(arguments), arguments.instance, arguments.entry)
    if arguments.console:
        print_result(_console(entry))
    elif arguments.json:
        print_json(_as_json(entry) | {"receipt": entry.document})
    else:
        print_result("\n".join(_lines(entry)))
    return 0


def _directory(arguments: argparse.Namespace) -> str:
    return load_config(config_files(arguments)).log_dir


def _console(entry: Entry) -> str:
    if entry.console is None:
        raise NodeError(f"{entry.instance}: {entry.name} has no console log")
    try:
        with open(entry.console, encoding="utf-8", errors="backslashreplace") as file:
            return file.read(_MAX_CONSOLE).rstrip("\n")
    except OSError as error:
        raise NodeError(f"{entry.console} cannot be read: {error.strerror}") from None


def _as_json(entry: Entry) -> dict[str, Any]:
    row = dict(zip(_COLUMNS, _row(entry), strict=True))
    return row | {"console": entry.console, "evidence": entry.evidence}


def _row(entry: Entry) -> tuple[str, ...]:
    document = entry.document or {}
    seconds = document.get("seconds") or {}
    all_of_it = seconds.get("all", sum(value for key, value in seconds.items() if key != "all"))
    return (
        entry.name,
        entry.instance,
        str(document.get("result") or "unfinished"),
        str((document.get("image") or {}).get("name") or "-"),
        f"{all_of_it:.1f}" if seconds else "-",
        str(len(document.get("warnings") or ())),
    )


def _table(rows: list[tuple[str, ...]]) -> Iterable[str]:
    cells = [_COLUMNS, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _lines(entry: Entry) -> list[str]:
    document = entry.document
    lines = [f"instance  {entry.instance}", f"entry     {entry.name}"]
    if document is None:
        lines.append("result    unfinished: it still runs, or it was killed")
    else:
        lines += _result_lines(document)
    lines += [
        f"{name:<9} {path}"
        for name, path in (("console", entry.console), ("evidence", entry.evidence))
        if path
    ]
    return lines


def _result_lines(document: dict[str, Any]) -> list[str]:
    lines = [f"result    {document.get('result')}"]
    error = document.get("error") or {}
    lines += [f"  {error['class']}"] if error.get("class") else []
    lines += [f"  - {message}" for message in error.get("messages", ())]
    lines += [f"disk      {document['disk']}"] if document.get("disk") else []
    image = document.get("image") or {}
    if image:
        digest = f", sha256 {image['sha256']}" if image.get("sha256") else ""
        lines.append(f"image     {image.get('name')} ({image.get('format')}){digest}")
    system = document.get("system") or {}
    if system:
        lines.append(
            f"system    {system.get('distribution') or system.get('os_family')} {system.get('version')}"
        )
    lines += _asked_lines(document.get("asked") or {})
    lines += [
        "seconds   "
        + ", ".join(f"{key} {value:.1f}" for key, value in (document.get("seconds") or {}).items())
    ]
    lines += [f"warning   {warning}" for warning in document.get("warnings", ())]
    for task in document.get("tasks", ()):
        skipped = f", skipped: {task['skipped']}" if task.get("skipped") else ""
        skipped += ", what it changed is not known" if task.get("changes", ()) is None else ""
        lines.append(f"task      {task.get('name')}: {task.get('seconds', 0):.2f} s{skipped}")
        lines += [
            f"            {change.get('change')} {change.get('path')}"
            + (f" ({change['detail']})" if change.get("detail") else "")
            for change in task.get("changes") or ()
        ]
    return lines


def _asked_lines(asked: dict[str, Any]) -> list[str]:
    words = []
    for name, value in asked.items():
        if value is True:
            words.append(name)
        elif value not in (None, False, 0, [], ""):
            words.append(f"{name}={value}")
    return [f"asked     {', '.join(words)}"] if words else []
