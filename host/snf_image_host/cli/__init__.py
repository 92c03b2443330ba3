"""The command ``snf-image``."""

from __future__ import annotations

import signal


def start() -> int:
    """Run the command; its exit status.

    Nothing is imported before, and so long there is nothing to clean up: Ctrl-C ends it like any program,
    and Python has no traceback to print.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from snf_image_host.cli.main import main  # noqa: PLC0415 - after the line above

    return main()
