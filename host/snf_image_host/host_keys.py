"""SSH host keys, made on the host while the image is copied and customised (R-TASK-SSH-2, R-TASK-SSH-3).

An RSA key of 3072 bits takes 5 to 20 seconds under full emulation and half a second here. The keys exist
in memory only: ssh-keygen writes each into an anonymous memory file and never into a directory.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal, Self

from snf_image_contract.job import HostKey
from snf_image_contract.secret import Secret
from snf_image_host.reporter import Reporter
from snf_image_process import Completed, ProcessError, Running, run

KeyType = Literal["rsa", "ecdsa", "ed25519"]
_BITS: Final[dict[KeyType, str]] = {"rsa": "3072", "ecdsa": "256", "ed25519": "256"}
_TIMEOUT: Final = 120.0
# ssh-keygen ends with 255 because it cannot put a .pub file beside an anonymous memory file; whether the
# private key is whole is found out by deriving the public one from it.
_SAVED_PRIVATE_ONLY: Final = 255
# ssh-keygen insists on an account for its uid. A uid of a deployment's own has none, so inside a user
# namespace it is called nobody; outside it stays what it is, apart from every other deployment's.
_NAMED: Final = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")


class HostKeyMaker:
    """Makes one key of each type in the background. A context manager; leaving it ends the programs."""

    def __init__(
        self,
        comment: str,
        *,
        launcher: Sequence[str],
        reporter: Reporter,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """``launcher``: the words before the program that drop its privileges, if we have any.

        ``owner``: uid and gid the program then has; None: ours.
        """
        self._owner = owner
        self._comment = comment
        self._launcher = (*launcher, *(_NAMED if owner is not None else ()))
        self._reporter = reporter
        self._lock = threading.Lock()
        self._running: set[Running] = set()
        self._stopping = False
        # One for the RSA key, one for the others and then for handing them over.
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=2, thread_name_prefix="host-keys")
        self._keys = [self._pool.submit(self._make, kind) for kind in _BITS]

    def keys(self) -> tuple[HostKey, ...]:
        """The keys, once all are made. None at all if making one failed: then the helper makes them."""
        try:
            return tuple(future.result() for future in self._keys)
        except (ProcessError, OSError, ValueError) as error:
            if not self._stopping:
                self._reporter.warn(
                    "SSH host keys could not be made on the host, the helper makes them", details=str(error)
                )
            return ()

    def hand_over(self, receive: Callable[[tuple[HostKey, ...]], None]) -> None:
        """Call ``receive`` with :meth:`keys` as soon as they are made, in another thread."""
        self._pool.submit(lambda: receive(self.keys()))

    def _make(self, kind: KeyType) -> HostKey:
        fd = os.memfd_create("ssh-host-key", os.MFD_CLOEXEC)
        try:
            # Nobody else may open it, and ssh-keygen refuses a private key that others could.
            os.fchmod(fd, 0o600)
            if self._owner is not None:
                os.fchown(fd, *self._owner)
            path = f"/proc/self/fd/{fd}"
            generate = ["ssh-keygen", "-q", "-t", kind, "-b", _BITS[kind], "-N", "", "-C", self._comment]
            self._run(
                [*generate, "-f", path],
                fd,
                stdin=b"y\n",  # the memory file is there already: yes, overwrite it
                accept=(0, _SAVED_PRIVATE_ONLY),
            )
            public = self._run(["ssh-keygen", "-y", "-f", path], fd).text.strip()
            private = os.pread(fd, 65536, 0)
        finally:
            os.close(fd)
        return HostKey(type=kind, private=Secret(private.decode("ascii")), public=public)

    def _run(
        self, argv: Sequence[str], fd: int, *, stdin: bytes | None = None, accept: Sequence[int] = (0,)
    ) -> Completed:
        mine: list[Running] = []

        def started(running: Running) -> None:
            with self._lock:
                mine.append(running)
                self._running.add(running)
                if self._stopping:
                    running.stop()

        try:
            return run(
                [*self._launcher, *argv],
                timeout=_TIMEOUT,
                stdin=stdin,
                accept=accept,
                pass_fds=(fd,),
                on_start=started,
            )
        finally:
            # Once it has ended, its number may become that of somebody else's process.
            with self._lock:
                self._running.difference_update(mine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._stopping = True
            for running in self._running:
                running.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
