"""From the command line to an exit status; errors are printed here and nowhere else."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable
from typing import Final

from snf_image_host.cli.arguments import parse_arguments
from snf_image_host.cli.interruption import Interrupted, interruptible
from snf_image_host.cli.output import flush, prepare_streams
from snf_image_host.cli.session import Session
from snf_image_host.errors import SnfImageError


def main(argv: list[str] | None = None) -> int:
    """Run one command. ``argv``: the words behind the program's name, None for those of the process."""
    words = sys.argv[1:] if argv is None else argv
    prepare_streams()
    # A core file would hold passwords (R-SEC-1); what we start inherits the limit.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    session = Session(as_json="--json" in words)
    try:
        with interruptible():
            return _run(words, session)
    except SnfImageError as error:
        from snf_image_host.cli.failure import report_error  # noqa: PLC0415 - loaded when it is used

        return report_error(error, as_json=session.as_json)
    except Interrupted as interrupted:
        from snf_image_host.cli.failure import report_interruption  # noqa: PLC0415 - loaded when it is used

        return report_interruption(interrupted, touched=session.spoiled, as_json=session.as_json)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a bug of ours, and users see no traceback
        from snf_image_host.cli.failure import report_bug  # noqa: PLC0415 - loaded when it is used

        return report_bug(error, secrets=session.secrets, as_json=session.as_json)


def _run(words: list[str], session: Session) -> int:
    try:
        arguments = parse_arguments(words)
    except SystemExit as end:  # --help and --version
        flush()
        return int(end.code or 0)
    except BrokenPipeError:  # a reader left that does not want the rest of a long --help
        flush()
        return 0
    session.as_json = arguments.json
    return _COMMANDS[arguments.command](arguments, session)


def _deploy(arguments: argparse.Namespace, session: Session) -> int:
    from snf_image_host.cli.deploying import run_deploy  # noqa: PLC0415 - loaded when it is used

    return run_deploy(arguments, session)


def _inspect(arguments: argparse.Namespace, session: Session) -> int:
    from snf_image_host.cli.deploying import run_inspect  # noqa: PLC0415 - loaded when it is used

    return run_inspect(arguments, session)


def _helper(arguments: argparse.Namespace, session: Session) -> int:
    from snf_image_host.cli.helper import run_helper  # noqa: PLC0415 - loaded when it is used

    return run_helper(arguments, session)


def _ganeti(arguments: argparse.Namespace, _: Session) -> int:
    from snf_image_host.cli.ganeti import run_ganeti  # noqa: PLC0415 - loaded when it is used

    return run_ganeti(arguments)


def _history(arguments: argparse.Namespace, _: Session) -> int:
    from snf_image_host.cli.history import run_history  # noqa: PLC0415 - loaded when it is used

    return run_history(arguments)


def _show(arguments: argparse.Namespace, _: Session) -> int:
    from snf_image_host.cli.history import run_show  # noqa: PLC0415 - loaded when it is used

    return run_show(arguments)


def _doctor(arguments: argparse.Namespace, session: Session) -> int:
    from snf_image_host.cli.doctor import run_doctor  # noqa: PLC0415 - loaded when it is used

    return run_doctor(arguments, session)


# Each command is loaded when it is run, so that --help answers at once.
_COMMANDS: Final[dict[str, Callable[[argparse.Namespace, Session], int]]] = {
    "deploy": _deploy,
    "customize": _deploy,
    "inspect": _inspect,
    "helper": _helper,
    "doctor": _doctor,
    "ganeti": _ganeti,
    "history": _history,
    "show": _show,
}
