"""Signals wait for the end of what they must not break."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from snf_image_host.cli.interruption import Interrupted, interruptible
from snf_image_host.moments import uninterrupted

pytestmark = pytest.mark.usefixtures("heeded_signals")


def interrupted(work: Callable[[], None]) -> Interrupted:
    """What becomes of work during which a signal arrives."""
    with pytest.raises(Interrupted) as caught, interruptible():
        work()
    return caught.value


def test_a_signal_waits_for_the_end_of_the_moment() -> None:
    """R-HLP-13: what was made in it can be undone, because all of it has happened."""
    steps = []

    def work() -> None:
        with uninterrupted():
            with uninterrupted():
                os.kill(os.getpid(), signal.SIGTERM)
                steps.append("made")
            steps.append("registered")
        steps.append("never")

    assert interrupted(work).exit_code == 143
    assert steps == ["made", "registered"]


def test_without_such_a_moment_it_interrupts_at_once() -> None:
    """R-HLP-13: and an earlier moment has no part in it."""
    steps = []

    def work() -> None:
        with uninterrupted():
            steps.append("earlier")
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("never")

    assert interrupted(work).exit_code == 130
    assert steps == ["earlier"]


def test_an_error_in_the_moment_does_not_hide_the_signal() -> None:
    """R-HLP-13: the signal comes first, the error is its context."""

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("too")

    assert isinstance(interrupted(work).__context__, ValueError)
