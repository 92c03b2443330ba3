"""An argument parser whose mistakes are errors like any other, with the nearest name (D-31)."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

from snf_image_host.errors import UserError
from snf_image_host.parameters.problems import ParseError, shown

T = TypeVar("T")
_UNRECOGNIZED: Final = re.compile(r"unrecognized arguments: (\S+)")
_CHOICE: Final = re.compile(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Raises :class:`~snf_image_host.errors.UserError` where argparse would end the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_HelpFormatter, allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but a command names its own unknown options itself, and before missing words."""
        words = list(args or ())
        known = self.option_names()
        if self._subparsers is None:
            for word in itertools.takewhile(lambda word: word != "--", words):
                if word.startswith("--") and word.partition("=")[0] not in known:
                    self.error(f"unrecognized arguments: {word}")
        result, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {rest[0]}")
        return result, rest

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        raise UserError(_explained(message, self), hint=hint)

    def commands(self) -> list[Parser]:
        """The parsers of the commands below this one."""
        found: list[Parser] = []
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no other way
                found += action.choices.values()
        return found

    def documented(self) -> list[tuple[str, str]]:
        """Arguments and options as they are written, each with its help, for the reference."""
        rows: list[tuple[str, str]] = []
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):  # noqa: SLF001
                continue
            value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else "")
            names = ", ".join(f"`{name}`" for name in action.option_strings)
            spelt = f"{names} {value}" if names else f"`{value}`"
            rows.append((spelt.strip(), (action.help or "") % {"default": action.default}))
        return rows

    def option_names(self) -> list[str]:
        """Every long option of this parser."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines; columns fit a terminal of 80 columns and more."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def _explained(message: str, parser: Parser) -> str:
    # difflib is only worth its loading once something is wrong.
    from snf_image_host.parameters.nearest import did_you_mean  # noqa: PLC0415

    if match := _UNRECOGNIZED.match(message):
        word = match[1].partition("=")[0]
        if not word.startswith("-"):
            return f"there is one argument too many: {shown(word)}"
        return f"unknown option {shown(word)}{did_you_mean(word, parser.option_names())}"
    if match := _CHOICE.match(message):
        words = [word.strip().strip("'") for word in match[3].split(",")]
        what = "there is no command" if match[1] == "COMMAND" else f"{match[1]}: there is no"
        return f"{what} {shown(match[2])}{did_you_mean(match[2], words)} (one of {', '.join(words)})"
    return message.removeprefix("argument ")


def typed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A parser of the tables as an argparse ``type``."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ParseError as error:
            echo = f", not {shown(text)}" if error.echo else ""
            raise argparse.ArgumentTypeError(f"{error}{echo}") from None

    return convert


class VersionAction(argparse.Action):
    """``--version``; the version is looked up only if it is asked for, because that is slow."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, *_: Any) -> NoReturn:
        sys.stdout.write(f"snf-image {version()}\n")
        raise SystemExit(0)


def version() -> str:
    """The version of this distribution."""
    import importlib.metadata  # noqa: PLC0415 - slow to load

    try:
        return importlib.metadata.version("snf-image")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
