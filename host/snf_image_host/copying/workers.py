"""Threads that work at one thing, and somebody who watches that they get on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from snf_image_host.errors import NodeError

LOOK: Final = 0.1
"""Seconds between two looks at the threads, and the longest wait of a thread for anything but the kernel."""
CLOSING: Final = 30.0
"""Seconds that threads get to end; one that hangs in the kernel is left to it."""


class StoppedError(Exception):
    """Raised in a thread: another one has failed, or the copy is given up."""


class Workers:
    """Runs jobs in threads of their own. Jobs count what they get done in :attr:`moved`."""

    def __init__(
        self,
        idle_timeout: float,
        tell: Callable[[], None],
        where: Callable[[], int],
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        """``idle_timeout`` in seconds, 0 for none. ``tell`` is called at each look, ``where``: the byte.

        ``abandon`` ends what threads may wait for, when all is given up.
        """
        self.moved = 0
        self._idle_timeout = idle_timeout
        self._tell = tell
        self._where = where
        self._abandon = abandon
        self._stop = threading.Event()
        self._failures: queue.Queue[BaseException] = queue.Queue()

    def check(self) -> None:
        """For jobs, between two steps: end if the others have."""
        self.moved += 1
        self.check_stopped()

    def check_stopped(self) -> None:
        """For jobs that wait for others: nothing got done, but end if the others have."""
        if self._stop.is_set():
            raise StoppedError

    def run(self, *jobs: Callable[[], None]) -> None:
        """Run ``jobs`` to their ends; raises what went wrong first, or what interrupted the watching."""
        threads = []
        try:
            for job in jobs:
                threads.append(threading.Thread(target=self._guarded, args=(job,), daemon=True))
                threads[-1].start()
            self._watch(threads)
        except BaseException:
            self._stop.set()
            raise
        finally:
            if self._stop.is_set():
                self._abandon()
            # What hangs does not touch the disk any more, but for the one write it is in.
            end = time.monotonic() + CLOSING
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, end - time.monotonic()))
        if not self._failures.empty():
            raise self._failures.get()

    def _watch(self, threads: list[threading.Thread]) -> None:
        seen, since = -1, time.monotonic()
        while running := [thread for thread in threads if thread.is_alive()]:
            if self._stop.is_set():
                return
            running[0].join(LOOK)
            self._tell()
            if self.moved != seen:
                seen, since = self.moved, time.monotonic()
            elif self._idle_timeout and time.monotonic() - since > self._idle_timeout:
                raise NodeError(
                    f"nothing was copied for {self._idle_timeout:g} seconds, at byte {self._where()}",
                    hint="look at the health of the disks; COPY_IDLE_TIMEOUT sets this limit",
                )

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that watches
            self._failures.put(error)
            self._stop.set()
