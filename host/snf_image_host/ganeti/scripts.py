"""From a script's name to its exit status: 0 done, 1 failed, 2 called wrongly (R-SCR-1, D-16)."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from typing import Final

from snf_image_host.cli.failure import redact, write_bug_report
from snf_image_host.cli.interruption import Interrupted, interruptible
from snf_image_host.cli.output import prepare_streams
from snf_image_host.errors import SnfImageError
from snf_image_host.ganeti.call import Call
from snf_image_host.ganeti.summary import class_of, failure_lines, plain

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2


def _create(call: Call) -> None:
    from snf_image_host.ganeti.create import create  # noqa: PLC0415 - loaded when it is used

    create(call)


def _verify(call: Call) -> None:
    from snf_image_host.ganeti.verify import verify  # noqa: PLC0415 - loaded when it is used

    verify(call)


def _rename(call: Call) -> None:
    from snf_image_host.ganeti.rename import rename  # noqa: PLC0415 - loaded when it is used

    rename(call)


def _export(call: Call) -> None:
    from snf_image_host.ganeti.export import export  # noqa: PLC0415 - loaded when it is used

    export(call)


def _import(call: Call) -> None:
    from snf_image_host.ganeti.importing import import_disk  # noqa: PLC0415 - loaded when it is used

    import_disk(call)


SCRIPTS: Final[dict[str, tuple[Callable[[Call], None], str]]] = {
    "create": (_create, "Deploys the image img_id onto the disks of the instance and customises it."),
    "verify": (_verify, "Checks the OS parameters. Takes the word `parameters`, or none."),
    "rename": (_rename, "Changes the hostname in the image, if RENAME_GUEST=yes."),
    "export": (_export, "Writes a disk of the instance to standard output."),
    "import": (_import, "Writes standard input to a disk of the instance."),
}
"""Each script of the OS definition and what it does."""


def main(words: Sequence[str], call: Call | None = None) -> int:
    """Run a script. ``words``: its name and its arguments; ``call`` None: as Ganeti started this process."""
    prepare_streams()
    # A core file would hold passwords (R-SEC-1).
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    call = call or Call(environment=dict(os.environ))
    name = words[0] if words else ""
    if name not in SCRIPTS:
        _say(call, [f"usage: python3 -m snf_image_host.ganeti {'|'.join(SCRIPTS)}"])
        return WRONG_USAGE
    arguments = list(words[1:])
    if arguments and arguments[0] in ("-h", "--help"):
        _say(call, [f"usage: {name}{' [parameters]' if name == 'verify' else ''}", SCRIPTS[name][1]])
        return DONE
    if arguments and (name != "verify" or arguments != ["parameters"]):
        _say(call, [f"snf-image: {name}: wrong usage: unknown argument {plain(repr(arguments[0]))}"])
        return WRONG_USAGE
    return _run(name, call)


def _run(name: str, call: Call) -> int:
    try:
        with interruptible():
            SCRIPTS[name][0](call)
    except SnfImageError as error:
        lines = failure_lines(
            name,
            class_of(error),
            error.messages,
            instance=call.name,
            stays=call.stays,
            details=error.details,
            hint=error.hint,
            kept=error.kept,
            receipt=call.written,
        )
    except Interrupted as interrupted:
        causes = [f"ended by {interrupted.signal.name}"]
        lines = failure_lines(
            name, "interrupted", causes, instance=call.name, stays=call.stays, receipt=call.written
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a bug of ours, and users see no traceback
        causes = [redact(f"{type(error).__name__}: {error}", call.secrets).split("\n", 1)[0]]
        path = write_bug_report(error, secrets=call.secrets)
        hint = f"please send the report {path}" if path else "the report could not be written"
        lines = failure_lines(
            name, "a bug in snf-image", causes, instance=call.name, stays=call.stays, hint=hint
        )
    else:
        return DONE
    _say(call, lines)
    return FAILED


def _say(call: Call, lines: Sequence[str]) -> None:
    try:
        call.log.write("".join(f"{line}\n" for line in lines))
        call.log.flush()
    except OSError:
        pass  # nobody listens any more; the status still tells
