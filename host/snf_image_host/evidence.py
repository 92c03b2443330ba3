"""What a failed deployment leaves behind, so that it can be understood and replayed (D-5).

One private directory per deployment: the command, the job with every secret replaced by a marker, qemu's
arguments, the console and the events. It goes away with a success, and with an interruption by the user.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator

from snf_image_contract import codec
from snf_image_host.deployment import Deployment
from snf_image_host.errors import SnfImageError


@contextlib.contextmanager
def evidence_directory(deployment: Deployment) -> Iterator[str]:
    """A directory (mode 0700) for evidence; kept and named in the error if the deployment fails."""
    # Under root's own rules for temporary files; /tmp may be a small memory file system.
    directory = tempfile.mkdtemp(prefix="snf-image-", dir=os.environ.get("TMPDIR", "/var/tmp"))  # noqa: S108 - private
    keep = deployment.keep
    try:
        _write(directory, "job.json", codec.dumps(deployment.job, redact=True, indent=2))
        # Our command line holds no secret: each is read from a file (D-17).
        _write(directory, "command", shlex.join(sys.argv))
        yield directory
    except SnfImageError as error:
        keep = True
        error.kept = directory
        raise
    except Exception:
        keep = True  # a bug of ours needs the evidence most
        raise
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _write(directory: str, name: str, text: str) -> None:
    path = os.path.join(directory, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
