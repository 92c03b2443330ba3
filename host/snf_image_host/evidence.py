"""What a failed deployment leaves behind, so that it can be understood and replayed (D-5).

One private directory per deployment: the command, the job with every secret replaced by a marker, qemu's
arguments, the console and the events. It goes away with a success, with an interruption by the user (unless
it was asked for), and with a request that was refused before anything began.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

from snf_image_contract import codec
from snf_image_host.deployment import Deployment
from snf_image_host.errors import NodeError, SnfImageError
from snf_image_host.moments import uninterrupted
from snf_image_host.reporter import Reporter

COMMAND: Final = "command"
"""The file that does the same again, as a shell script; files with secrets must still be there."""
_OURS: Final = (COMMAND, "job.json")
_MAKE_ROOM: Final = "make room there, or set TMPDIR to another directory"


@contextlib.contextmanager
def evidence_directory(deployment: Deployment, reporter: Reporter) -> Iterator[str]:
    """A directory (mode 0700) for evidence; if it is kept, the error names it, or ``reporter`` is told."""
    keep = deployment.keep
    with contextlib.ExitStack() as undo:
        with uninterrupted():
            directory = _make_directory(deployment.evidence)
            undo.callback(lambda: None if keep else shutil.rmtree(directory, ignore_errors=True))
        try:
            _write(directory, "job.json", codec.dumps(deployment.job, redact=True, indent=2))
            _write(directory, COMMAND, deployment.again or _again())
            yield directory
            if keep:
                reporter.info("the evidence is kept", details=directory)
        except SnfImageError as error:
            # Where no helper was started there is nothing to look at: the error says it all.
            keep = keep or any(name not in _OURS for name in os.listdir(directory))
            error.kept = directory if keep else None
            raise
        except Exception as bug:
            keep = True  # a bug of ours needs the evidence most
            bug.add_note(f"kept for a look: {directory}")
            raise
        except BaseException as interruption:
            if keep:
                interruption.add_note(f"kept for a look: {directory}")
            raise


def _again() -> str:
    """A line for a shell that does the same again. It holds no secret: each is read from a file (D-17)."""
    with contextlib.suppress(FileNotFoundError):
        return f"cd {shlex.quote(os.getcwd())} && {shlex.join(sys.argv)}"
    return shlex.join(sys.argv)


def _make_directory(parent: str | None) -> str:
    if parent is None:
        # /tmp may be a small file system in memory.
        parent = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - the directory in it is private
    try:
        return tempfile.mkdtemp(prefix="snf-image-", dir=parent)
    except OSError as error:
        raise NodeError(
            f"no temporary directory can be made in {parent}: {error.strerror}", hint=_MAKE_ROOM
        ) from None


def _write(directory: str, name: str, text: str) -> None:
    path = os.path.join(directory, name)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            # Names of files come back as the bytes that they are.
            file.write(os.fsencode(text + "\n"))
    except OSError as error:
        raise NodeError(f"{path} cannot be written: {error.strerror}", hint=_MAKE_ROOM) from None
