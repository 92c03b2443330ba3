"""Building a helper image from a source tree: the same program that ``make helper-image`` runs."""

from __future__ import annotations

import os
import sys
from typing import Final, Literal

from snf_image_host.errors import NodeError, UserError
from snf_image_process import start

Engine = Literal["buildah", "docker"]

_PASSED: Final = (
    "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
"""Variables by which this machine says where its container service and its network are."""


def source_directory() -> str | None:
    """The source tree this code runs from, None if it was installed without one."""
    here = os.path.dirname(os.path.abspath(__file__))
    source = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    return source if os.path.exists(os.path.join(source, "helper-image/build")) else None


def build(
    *, output: str, source: str | None = None, engine: Engine = "buildah", base: str | None = None,
    refresh: bool = False, tasks: str | None = None,
) -> None:  # fmt: skip
    """Build into the directory ``output``; progress goes to standard error.

    ``refresh``: install the packages anew, for their updates. ``tasks``: a directory of task files to add.
    """
    source = source or source_directory()
    if source is None or not os.path.exists(os.path.join(source, "helper-image/build")):
        raise UserError(
            "a helper image is built from snf-image's source tree, which is not here",
            hint="give it with --source DIR, or install the package that carries a helper image",
        )
    if engine == "buildah" and os.geteuid() != 0:
        raise NodeError("Buildah needs root to build the helper image", hint="run the command as root")
    argv = [
        sys.executable,
        os.path.join(source, "helper-image/build"),
        "--output",
        output,
        "--engine",
        engine,
    ]
    argv += ["--base", base] if base else []
    argv += ["--refresh"] if refresh else []
    argv += ["--tasks", tasks] if tasks else []
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    with start(argv, stdout=sys.stderr.fileno(), stderr=sys.stderr.fileno(), env=env) as running:
        status = running.wait(None)
    if status:
        raise NodeError("the helper image was not built", hint="the lines above say why")
