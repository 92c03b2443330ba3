"""The reference pages, made from the tables: ``python3 -m snf_image_host.cli.reference DIR``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Final

from snf_image_contract.names import OsFamily, TaskName
from snf_image_host.cli.arguments import EXIT_CODES, build_parser
from snf_image_host.cli.parser import Parser
from snf_image_host.cli.update_helper import build_parser as build_update_parser
from snf_image_host.configuration.variables import OBSOLETE, OBSOLETE_PREFIXES, VARIABLES
from snf_image_host.parameters.os_parameters import OS_PARAMETERS
from snf_image_host.parameters.property_table import EXCLUDE_TASK, PROPERTIES
from snf_image_host.parameters.table import Row
from snf_image_host.parameters.values import FALSE_WORDS, TRUE_WORDS

_GENERATED: Final = (
    "<!-- Made by `python3 -m snf_image_host.cli.reference docs/reference`; edit the tables instead. -->"
)
_EMPTY: Final = {
    "error": "an error",
    "missing": "as if not given",
    "unset": "as if not given, with a warning",
}


def os_parameters_page() -> str:
    """The twelve OS parameters."""
    parts = [
        _GENERATED,
        "# OS parameters",
        (
            "The secret ones are best handed over as private or secret OS parameters. `img_passwd` and "
            "`img_passwd_hash` exclude each other. Every mistake is reported, one line each."
        ),
    ]
    for row in OS_PARAMETERS:
        parts += [f"## {row.name}", row.help, _facts(row, f"- empty: {_EMPTY[row.empty]}")]
    return _page(parts)


def properties_page() -> str:
    """The image properties."""
    excludable = ", ".join(f"`{task}`" for task in TaskName if task.excludable)
    parts = [
        _GENERATED,
        "# Image properties",
        (
            "Properties are the members of the JSON objects `img_properties` and `inst_properties`, or "
            "`--property NAME=VALUE` on the command line. Names are folded to upper case; `inst_properties` "
            "replaces `img_properties` by name; `null` takes a property back. Numbers and booleans of JSON "
            "are taken as their text."
        ),
        (
            f"Yes is any of {_words(TRUE_WORDS)}; no is any of {_words(FALSE_WORDS)}, in any letter case. "
            "Any other word is an error."
        ),
        (
            "Unknown properties are handed to custom tasks; one that looks like a mistyped known one gets a "
            "warning. A property that does not apply to the family of the image is ignored with a warning."
        ),
    ]
    for row in PROPERTIES:
        families = ", ".join(family for family in OsFamily if family in row.families) or "all"
        parts += [f"## {row.name}", row.help, _facts(row, f"- families: {families}")]
    parts += [f"## {EXCLUDE_TASK}*TaskName*", f"Yes skips one task. It can be one of {excludable}."]
    return _page(parts)


def configuration_page() -> str:
    """The configuration variables."""
    obsolete = [f"| `{name}` | {text} |" for name, text in sorted(OBSOLETE.items())]
    obsolete += [f"| `{prefix}*` | Pithos needs a back-end of its own |" for prefix in OBSOLETE_PREFIXES]
    obsolete += ["| `KVM` | still read, as the old name of `QEMU` |", "| `CURL` | see `FETCH_INSECURE` |"]
    parts = [
        _GENERATED,
        "# Configuration variables",
        (
            "They are read from `/etc/default/snf-image`, then `/etc/snf-image/snf-image.conf`; the later "
            "wins. The files hold assignments as in a shell and are never executed. A name of an OS "
            "parameter in upper case, such as `IMG_FORMAT`, gives it a default."
        ),
    ]
    for row in VARIABLES:
        empty = "none" if row.empty_is_value else "the default"
        parts += [f"## {row.name}", row.help, _facts(row, f"- an empty value means: {empty}")]
    parts += ["## Obsolete variables", "They are ignored, with a warning."]
    parts += ["\n".join(["| variable | instead |", "|---|---|", *obsolete])]
    return _page(parts)


def command_line_page() -> str:
    """Every command with its options."""
    parts = [_GENERATED, "# Command line"]
    for name, parser in (*_commands(build_parser()), *_commands(build_update_parser())):
        parts += [f"## {name}", f"```text\n{(parser.description or '').strip()}\n```"]
        rows = [f"| {_cell(spelt)} | {_cell(text)} |" for spelt, text in parser.documented()]
        if rows:
            parts.append("\n".join(["| argument | meaning |", "|---|---|", *rows]))
    codes = [f"| {code} | {text} |" for code, text in EXIT_CODES]
    parts += ["## Exit codes", "\n".join(["| code | meaning |", "|---|---|", *codes])]
    return _page(parts)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "os-parameters.md": os_parameters_page,
    "properties.md": properties_page,
    "configuration.md": configuration_page,
    "command-line.md": command_line_page,
}


def write_pages(directory: str) -> None:
    """Write every page into ``directory``."""
    os.makedirs(directory, exist_ok=True)
    for name, page in PAGES.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(page())


def _commands(parser: Parser) -> Iterable[tuple[str, Parser]]:
    yield parser.prog, parser
    for command in parser.commands():
        yield from _commands(command)


def _facts(row: Row, *more: str) -> str:
    lines = [f"- value: {row.values}", f"- default: {_code(row.shown_default)}", *more]
    if row.example:
        lines.append(f"- example: {_code(row.example)}")
    if row.secret:
        lines.append("- secret: never shown or logged")
    lines.append(f"- since: {row.since}")
    return "\n".join(lines)


def _code(text: str) -> str:
    return text if text == "not set" else f"`{text}`"


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    write_pages(sys.argv[1])
