"""Disks behind URIs: qemu-nbd, unprivileged, serves each on a private socket (R-DST-URI-1 to R-DST-URI-3).

No device of the kernel is involved: the copy writes by our own client, and the helper VM gets a connection.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final, Self

from snf_image_host.deployment import DiskServing, HelperSettings, TargetDisk
from snf_image_host.disks import Disk, ServedDisk, open_disks
from snf_image_host.errors import NodeError, UserError
from snf_image_host.inert import inert
from snf_image_host.locks import hold_lock
from snf_image_host.moments import uninterrupted
from snf_image_host.nbd import NbdClient, NbdError
from snf_image_host.parameters.disk_secrets import SECRET_ID, take_apart
from snf_image_host.parameters.disk_uris import disk_uri_identity, has_secret, hide_disk_uri
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account, account_for
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_process import PIPE, Deadline, ProcessError, Running, start

# Storage libraries have many threads, each with a stack and an arena.
_LIMITS: Final = Limits(address_space=8 << 30, files=1024, processes=1024, file_size=None)
_EXPORT: Final = "disk"
_CLIENTS: Final = 8
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 120.0
"""For what is still on its way to the storage."""
_NOT_FOUND: Final = 127


@contextlib.contextmanager
def open_every_disk(
    targets: Sequence[TargetDisk], serving: DiskServing, reporter: Reporter
) -> Iterator[tuple[Disk, ...]]:
    """Open and lock every disk, in order, those with a URI too; errors as of :func:`open_disks`."""
    with contextlib.ExitStack() as alive:
        local = iter(alive.enter_context(open_disks([disk for disk in targets if disk.uri is None])))
        disks: list[Disk] = []
        for target in targets:
            if target.uri is None:
                disks.append(next(local))
            else:
                disks.append(alive.enter_context(serve_disk(target, target.uri, serving, reporter)))
        yield tuple(disks)


@contextlib.contextmanager
def serve_disk(
    target: TargetDisk, uri: str, serving: DiskServing, reporter: Reporter
) -> Iterator[ServedDisk]:
    """The disk while the context lasts. A second deployment of this node to it is refused.

    :class:`UserError` if it is used or cannot be written, :class:`NodeError` if it cannot be served, or if
    the server fails when it ends.
    """
    asked = HelperSettings(
        directory="", user=serving.user, uid_range=serving.uid_range, runtime_dir=serving.runtime_dir
    )
    name = hashlib.sha256(disk_uri_identity(uri).encode()).hexdigest()[:32]
    with contextlib.ExitStack() as alive:
        if not alive.enter_context(hold_lock(serving.runtime_dir, f"disk-{name}.lock")):
            raise UserError(f"{target.path} is in use by another deployment")
        account = alive.enter_context(account_for(asked, reporter))
        directory = alive.enter_context(_private_directory(serving.runtime_dir, account))
        server = alive.enter_context(_Server(target, uri, serving, account, directory))
        yield server.disk()


class _Server:
    """One qemu-nbd. Leaving it ends the process and looks at its status (R-DST-URI-2)."""

    def __init__(
        self, target: TargetDisk, uri: str, serving: DiskServing, account: Account, directory: str
    ) -> None:
        self._target = target
        self._uri = uri
        self._program = serving.qemu_nbd
        self._socket = os.path.join(directory, "s")
        words = [
            *launcher(account, limits=_LIMITS),
            self._program,
            "--persistent",
            f"--shared={_CLIENTS}",
            "--discard=unmap",
            f"--socket={self._socket}",
            f"--export-name={_EXPORT}",
            *(["--read-only"] if target.read_only else []),
        ]
        try:
            with _opening(uri, account) as (what, descriptors), uninterrupted():
                self._running: Running = start([*words, *what], stderr=PIPE, pass_fds=descriptors)
        except ProcessError as error:
            raise NodeError(f"{self._program} cannot be started: {error.reason}") from None

    def disk(self) -> ServedDisk:
        """Once it serves."""
        disk = ServedDisk(
            index=self._target.index,
            path=self._target.path,
            size=0,
            socket_path=self._socket,
            export=_EXPORT,
            read_only=self._target.read_only,
        )
        connection = self._connected(disk)
        try:
            client = NbdClient(connection, _EXPORT)
        except NbdError as error:
            if self._running.wait(1.0) is not None:
                raise self._not_served() from None
            raise NodeError(f"{self._target.path} cannot be served: {error}") from None
        client.close()
        if client.is_read_only and not self._target.read_only:
            raise UserError(f"{self._target.path} can only be read, not written")
        if client.size == 0:
            raise UserError(f"{self._target.path} has no bytes")
        return dataclasses.replace(disk, size=client.size)

    def _connected(self, disk: ServedDisk) -> socket.socket:
        """The first connection. It listens only when it has opened the storage."""
        deadline = Deadline(_START_SECONDS)
        while True:
            with contextlib.suppress(NodeError):
                return disk.connect()
            if self._running.wait(0.01) is not None:
                raise self._not_served()
            if deadline.passed():
                raise NodeError(f"{self._target.path} did not answer within {_START_SECONDS:g} seconds")

    def _not_served(self) -> NodeError:
        status, said = self._running.wait(None), self._said()
        if status == _NOT_FOUND:
            return NodeError(f"{self._program} is not installed", hint="apt-get install qemu-utils")
        hint = "some kinds of storage need Debian's qemu-block-extra"
        return NodeError(
            f"{self._target.path} cannot be opened: {said or f'exit status {status}'}", hint=hint
        )

    def _said(self) -> str:
        """Its last complaint, without secrets of the URI."""
        stderr = self._running.stderr
        assert stderr is not None  # noqa: S101 - it was asked for
        os.set_blocking(stderr.fileno(), False)
        with contextlib.suppress(OSError):
            lines = os.read(stderr.fileno(), 65536).decode("utf-8", "replace").strip().splitlines()
            return inert(hide_disk_uri((lines or [""])[-1], self._uri)).removeprefix("qemu-nbd: ")[-300:]
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._running:
            was_gone = self._running.poll() is not None
            self._running.signal(signal.SIGTERM)
            status = self._running.wait(_END_SECONDS if kind is None else 5.0)
            said = self._said()
        if kind is None and (was_gone or status != 0):
            how = "did not end" if status is None else f"ended with status {status}"
            raise NodeError(
                f"the server of {self._target.path} {how}: what was written may not be there",
                details=(said,) if said else (),
            )


@contextlib.contextmanager
def _opening(uri: str, account: Account) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """What is to be opened, in arguments of qemu-nbd; a secret is read from a descriptor (R-SEC-1)."""
    if not has_secret(uri):
        yield ["--format=raw", "--", uri], ()
        return
    disk = take_apart(uri)
    with contextlib.ExitStack() as undo:
        with uninterrupted():
            fd = os.memfd_create("disk-secret", os.MFD_CLOEXEC)
            undo.callback(os.close, fd)
        os.write(fd, disk.secret.reveal().encode())
        # It is opened anew by its name in /proc, under the server's own account.
        if account.switch:
            os.fchown(fd, account.uid, account.gid)
        secret = f"secret,id={SECRET_ID},format={disk.encoding},file=/proc/self/fd/{fd}"
        opened = json.dumps({"driver": "raw", "file": disk.options})
        yield ["--object", secret, "--", f"json:{opened}"], (fd,)


@contextlib.contextmanager
def _private_directory(parent: str, account: Account) -> Iterator[str]:
    """For the socket: the account's, and nobody else's."""
    with contextlib.ExitStack() as undo:
        with uninterrupted():
            directory = tempfile.mkdtemp(prefix="disk-", dir=parent)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
        if account.switch:
            os.chown(directory, account.uid, account.gid)
        yield directory
