"""What holds for every test."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine is slow: that says nothing about what a property test looks for.
settings.register_profile("snf-image", deadline=None)
settings.load_profile("snf-image")


@pytest.fixture
def heeded_signals() -> Iterator[None]:
    """For tests that interrupt: what is started here takes SIGINT and SIGHUP as from a terminal.

    A shell has what it starts in the background ignore the one, nohup the other, and who is told to ignore a
    signal goes on doing so.
    """
    heeding = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heeding.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
