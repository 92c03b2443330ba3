"""Manual pages, bash completion and the default configuration, made from the tables.

``python3 -m snf_image_host.cli.manuals DIR`` writes them all into a directory.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from snf_image_host.cli.arguments import EXIT_CODES, build_parser
from snf_image_host.cli.parser import Parser
from snf_image_host.cli.update_helper import build_parser as build_update_parser
from snf_image_host.configuration.files import MAIN_FILES
from snf_image_host.configuration.variables import VARIABLES
from snf_image_host.parameters.table import Row

_FILES: Final = (
    *((path, "the node's configuration; the later file wins") for path in MAIN_FILES),
    ("/var/lib/snf-image/helper", "the helper image (HELPER_DIR)"),
    ("/var/log/snf-image", "receipts and console logs of each instance (LOG_DIR)"),
    ("/usr/share/ganeti/os/snf-image", "the OS definition of Ganeti"),
)
_DEFAULT_HEAD: Final = """\
# Configuration of snf-image; see snf-image.conf(5). The file holds assignments as in a shell and is never
# executed. What is commented out shows the default.
"""
DEFAULT_FILE: Final = "default"
COMPLETION: Final = "completion"


def manual_pages() -> dict[str, str]:
    """Text of each page in roff, by the name of its file."""
    top = build_parser()
    pages = {"snf-image.1": _top_page(top), "snf-image.conf.5": _configuration_page()}
    for command in (*top.commands(), build_update_parser()):
        pages[f"{_name(command)}.1"] = _command_page(command)
    return pages


def default_configuration() -> str:
    """``/etc/default/snf-image``: every variable with its default, commented out."""
    parts = [_DEFAULT_HEAD]
    for row in VARIABLES:
        words = textwrap.fill(
            f"{row.help} ({row.values})", width=100, initial_indent="# ", subsequent_indent="# ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        # Where words stand for the default, it depends on the node.
        default = "" if row.default_shown else row.default
        parts.append(f'{words}\n#{row.name}="{default}"\n')
    return "\n".join(parts)


def completion() -> str:
    """Bash completion of the commands and their options; other words are names of files."""
    cases = []
    for parser in _all_commands(build_parser()):
        words = [command.prog.rpartition(" ")[2] for command in parser.commands()]
        cases.append(f'        "{parser.prog}") words="{" ".join([*words, *parser.option_names()])}" ;;')
    names = "|".join(sorted({name.prog.rpartition(" ")[2] for name in _all_commands(build_parser())}))
    update = " ".join(build_update_parser().option_names())
    return (
        _COMPLETION.replace("@CASES@", "\n".join(cases)).replace("@NAMES@", names).replace("@UPDATE@", update)
    )


def write_all(directory: str) -> None:
    """Write every page, the completion and the default configuration into ``directory``."""
    os.makedirs(directory, exist_ok=True)
    files = manual_pages() | {DEFAULT_FILE: default_configuration(), COMPLETION: completion()}
    for name, text in files.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


_COMPLETION: Final = """\
# bash completion of snf-image

_snf_image() {
    local words="" path="snf-image" word
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            @NAMES@) path="$path $word" ;;
            *) break ;;
        esac
    done
    case $path in
@CASES@
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}")
}

_snf_image_update_helper() {
    mapfile -t COMPREPLY < <(compgen -W "@UPDATE@" -- "${COMP_WORDS[COMP_CWORD]}")
}

complete -o default -F _snf_image snf-image
complete -o default -F _snf_image_update_helper snf-image-update-helper
"""


def _top_page(parser: Parser) -> str:
    commands = "".join(
        _item(f"\\fB{_escape(_name(command))}\\fR(1)", _first_sentence(command.description or ""))
        for command in parser.commands()
    )
    files = "".join(_item(f"\\fI{_escape(path)}\\fR", text) for path, text in _FILES)
    others = ["snf-image-update-helper(1)", "snf-image.conf(5)", "gnt-os(8)"]
    return _page(
        ("snf-image", "1", "deploy untrusted operating system images onto disks"),
        ("SYNOPSIS", "\\fBsnf-image\\fR [\\fB\\-\\-version\\fR] \\fICOMMAND\\fR ...\n"),
        ("DESCRIPTION", _description(parser.description or "")),
        ("COMMANDS", commands),
        ("EXIT STATUS", _exit_codes()),
        ("FILES", files),
        ("SEE ALSO", _escape(", ".join(others)) + "\n"),
    )


def _command_page(parser: Parser) -> str:
    options = _options(parser)
    for command in parser.commands():
        options += f".SS {_escape(command.prog)}\n{_escape(command.description or '')}\n{_options(command)}"
    return _page(
        (_name(parser), "1", _first_sentence(parser.description or "").rstrip(".")),
        ("SYNOPSIS", "".join(f".B {_escape(usage)}\n.br\n" for usage in _usages(parser))),
        ("DESCRIPTION", _description(parser.description or "")),
        ("OPTIONS", options),
        ("EXIT STATUS", _exit_codes()),
        ("SEE ALSO", "snf\\-image(1), snf\\-image.conf(5)\n"),
    )


def _configuration_page() -> str:
    text = (
        f"Assignments as in a shell, in {MAIN_FILES[0]} and {MAIN_FILES[1]}; the later file wins. "
        "The files are parsed and never executed. They must belong to root and nobody else may write them."
    )
    return _page(
        ("snf-image.conf", "5", "configuration of snf-image"),
        ("DESCRIPTION", _escape(text) + "\n"),
        ("VARIABLES", "".join(_item(f"\\fB{row.name}\\fR", _about(row)) for row in VARIABLES)),
        ("SEE ALSO", "snf\\-image(1)\n"),
    )


def _about(row: Row) -> str:
    return f"{row.help} Value: {row.values}. Default: {row.shown_default or 'empty'}."


def _usages(parser: Parser) -> Iterator[str]:
    if parser.commands():
        yield from (" ".join(command.format_usage().split()[1:]) for command in parser.commands())
    else:
        yield " ".join(parser.format_usage().split()[1:])


def _options(parser: Parser) -> str:
    rows = ((spelt.replace("`", ""), text) for spelt, text in parser.documented())
    return "".join(_item(f"\\fB{_escape(spelt)}\\fR", text) for spelt, text in rows)


def _exit_codes() -> str:
    return "".join(_item(f"\\fB{code}\\fR", text) for code, text in EXIT_CODES)


def _description(text: str) -> str:
    """Prose is filled, the examples keep their lines."""
    prose, mark, examples = text.partition("\nexample")
    shown = f".PP\nExample{examples.partition(':')[0]}:\n.nf\n" if mark else ""
    body = "".join(f"{_escape(line)}\n" for line in examples.partition(":")[2].strip("\n").split("\n"))
    return f"{_escape(prose.strip())}\n" + (f"{shown}{body}.fi\n" if mark else "")


def _page(head: tuple[str, str, str], *sections: tuple[str, str]) -> str:
    name, number, purpose = head
    text = f'.TH "{_escape(name).upper()}" "{number}" "" "snf\\-image" ""\n'
    text += f".SH NAME\n{_escape(name)} \\- {_escape(purpose)}\n"
    return text + "".join(f".SH {title}\n{body}" for title, body in sections)


def _item(term: str, text: str) -> str:
    return f".TP\n{term}\n{_escape(' '.join(text.split()))}\n"


def _escape(text: str) -> str:
    """Text as roff takes it literally: no escapes, no requests at the start of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def _first_sentence(text: str) -> str:
    return " ".join(re.split(r"(?<=[.:])\s", text.strip(), maxsplit=1)[0].split()).rstrip(".:")


def _name(parser: Parser) -> str:
    return parser.prog.replace(" ", "-")


def _all_commands(parser: Parser) -> Iterable[Parser]:
    yield parser
    for command in parser.commands():
        yield from _all_commands(command)


if __name__ == "__main__":
    write_all(sys.argv[1])
