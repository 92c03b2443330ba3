"""One qemu process: its ports, its QMP conversation, its start and its end.

Everything reaches it as an inherited descriptor: the ports and QMP are socket pairs, so that there is no
socket in any directory and nothing that two deployments could share (R-HLP-14); kernel and initial RAM
disk are copies in memory, which the unprivileged process can read wherever the helper is installed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import threading
from collections.abc import Sequence
from typing import Final, Self

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.vm.account import Account
from snf_image_host.vm.commandline import (
    TRANSLATION_BUFFER,
    ColdDisk,
    Slots,
    UsedAccelerator,
    VmSpec,
    qemu_argv,
)
from snf_image_host.vm.evidence import EvidenceFile, OutputTail
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_host.vm.qmp import Qmp, QmpError
from snf_image_host.vm.serial import Port
from snf_image_process import Deadline, ProcessError, Running, start

MIB: Final = 1024 * 1024
# What qemu needs beside the guest's memory: libraries, stacks and arenas of its threads.
_OWN_ADDRESS_SPACE: Final = 3072 * MIB
_FILES: Final = 1024
_PROCESSES: Final = 256
_GREETING_SECONDS: Final = 30.0
_UNBOUNDED: Final = 1 << 40
"""Bytes a second: the default holds a migration back for the sake of a network."""


class Qemu:
    """A VM from its start to its end. A context manager: leaving it ends the process, whatever happened."""

    def __init__(
        self,
        settings: HelperSettings,
        *,
        account: Account,
        groups: Sequence[int],
        accelerator: UsedAccelerator,
        ports: Sequence[Port],
        evidence_dir: str | None,
    ) -> None:
        """``ports``: the serial ports, first to third; they are started and closed here.

        ``groups``: supplementary groups that the process keeps, for /dev/kvm (D-1).
        """
        self._settings = settings
        self._account = account
        self._groups = tuple(groups)
        self._accelerator: UsedAccelerator = accelerator
        self._ports = tuple(ports)
        self._evidence_dir = evidence_dir
        self._stack = contextlib.ExitStack()
        self._stderr_log = EvidenceFile(evidence_dir, "qemu.log")
        self._output = OutputTail(self._stderr_log)
        self._output_port = Port("qemu", self._output)
        self._running: Running | None = None
        self._qmp: Qmp | None = None
        self._status: int | None = None

    def start(
        self,
        *,
        kernel: str,
        initrd: str,
        words: str,
        root: str | None,
        disks: Sequence[ColdDisk] = (),
        slots: Slots | None = None,
        incoming: bool = False,
    ) -> None:
        """Start it and greet it. ``kernel``, ``initrd``, ``root``: files; ``words``: the kernel's.
        ``disks``, ``slots``: see :class:`~snf_image_host.vm.commandline.VmSpec`. ``incoming``: it waits for
        :meth:`restore` instead of booting.

        :class:`NodeError` with what qemu printed, if it does not come up. To be called in the main
        thread: the kernel ends the process when the thread that started it ends.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("qemu must be started by the main thread, with which it dies")
        ours, theirs = socket.socketpair()
        self._qmp = Qmp(ours)
        with contextlib.ExitStack() as ours_to_close, theirs:
            spec = VmSpec(
                qemu=self._settings.qemu,
                accelerator=self._accelerator,
                memory=self._settings.memory,
                cpus=self._settings.cpus,
                kernel_fd=_copied(kernel, ours_to_close),
                initrd_fd=_copied(initrd, ours_to_close),
                kernel_words=words,
                root_fd=None if root is None else _opened(root, ours_to_close),
                qmp_fd=theirs.fileno(),
                serial_fds=tuple(port.theirs.fileno() for port in self._ports),
                debug_port=self._settings.debug,
                disks=tuple(disks),
                slots=slots,
                incoming=incoming,
            )
            self._spawn(spec)
        for port in (*self._ports, self._output_port):
            port.start()
        try:
            self._qmp.greet(Deadline(_GREETING_SECONDS))
        except QmpError as error:
            raise self._not_started(str(error)) from None

    @property
    def qmp(self) -> Qmp:
        assert self._qmp is not None, "not started"  # noqa: S101 - a bug of the caller's
        return self._qmp

    @property
    def running(self) -> Running:
        assert self._running is not None, "not started"  # noqa: S101 - a bug of the caller's
        return self._running

    @property
    def printed(self) -> tuple[str, ...]:
        """The last lines of what qemu printed."""
        return self._output.tail

    def debug_terminal(self) -> str | None:
        """The pseudo-terminal of the debug shell, if there is one."""
        if not self._settings.debug:
            return None
        with contextlib.suppress(QmpError, KeyError, TypeError):
            for chardev in self.qmp.execute("query-chardev"):
                if chardev["label"] == "debug":
                    return str(chardev["filename"]).removeprefix("pty:")
        return None

    def restore(self, state: int, deadline: Deadline) -> None:
        """Continue from the saved state that is read from this descriptor; :class:`QmpError`.

        Returns at once. The guest runs when the state is loaded, because it ran when it was saved.
        """
        self.qmp.execute("getfd", {"fdname": "state"}, fds=(state,), deadline=deadline)
        self.qmp.execute("migrate-incoming", {"uri": "fd:state"}, deadline=deadline)

    def save(self, stream: int) -> None:
        """Write the state of the guest to a descriptor, after which it stands still; :class:`QmpError`."""
        self.qmp.execute("migrate-set-parameters", {"max-bandwidth": _UNBOUNDED})
        self.qmp.execute("getfd", {"fdname": "state"}, fds=(stream,))
        self.qmp.execute("migrate", {"uri": "fd:state"})

    def saved(self) -> bool:
        """Whether the whole state is written; :class:`QmpError` if it cannot be."""
        answer = self.qmp.execute("query-migrate")
        status = answer.get("status") if isinstance(answer, dict) else None
        if status in ("failed", "cancelled"):
            raise QmpError(f"the state could not be saved: {answer.get('error-desc', status)}")
        return status == "completed"

    def wait(self, seconds: float | None) -> int | None:
        """The exit status once the process is gone, None if it still runs after ``seconds``."""
        return self.running.wait(seconds)

    def settle(self) -> None:
        """After the end of the process: everything it wrote is dealt with. Raises what went wrong there."""
        for port in (*self._ports, self._output_port):
            port.join(10.0)
            if port.failure is not None:
                raise port.failure
        with contextlib.suppress(QmpError):
            self.qmp.drain(Deadline(5.0))

    def close(self) -> None:
        """End the process, if it runs, and give everything back. May be called twice."""
        if self._running is not None:
            running, self._running = self._running, None
            running.stop()
        for port in (*self._ports, self._output_port):
            port.close()
        if self._qmp is not None:
            self._qmp.close()
        self._stderr_log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _spawn(self, spec: VmSpec) -> None:
        limits = Limits(
            address_space=spec.memory * MIB + TRANSLATION_BUFFER * MIB + _OWN_ADDRESS_SPACE,
            files=_FILES,
            processes=_PROCESSES,
        )
        argv = (*launcher(self._account, groups=self._groups, limits=limits), *qemu_argv(spec))
        if self._evidence_dir is not None:
            record = EvidenceFile(self._evidence_dir, "qemu.argv")
            record.write_line(shlex.join(argv))
            record.close()
        output = self._output_port.theirs.fileno()
        try:
            self._running = start(argv, stdout=output, stderr=output, pass_fds=spec.inherited)
        except ProcessError as error:
            raise NodeError(
                "the helper VM could not be started", details=(str(error),), hint="install util-linux"
            ) from None

    def _not_started(self, reason: str) -> NodeError:
        status = self.wait(2.0)
        self._output_port.join(2.0)
        how = reason if status is None else f"exit status {status}"
        return NodeError(
            f"the helper VM could not start: {os.path.basename(self._settings.qemu)}: {how}",
            hint="`snf-image doctor` checks qemu and what it needs",
            details=self.printed,
        )


def _opened(path: str, stack: contextlib.ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NodeError(
            f"the helper image's {os.path.basename(path)} cannot be opened: {error.strerror}",
            hint="build the helper image with `snf-image helper build`",
            details=(path,),
        ) from None
    stack.callback(os.close, fd)
    return fd


def _copied(path: str, stack: contextlib.ExitStack) -> int:
    """A copy of the file in memory: readable by whoever inherits it, whatever the file's mode."""
    with contextlib.ExitStack() as only_here:
        source = _opened(path, only_here)
        copy = os.memfd_create(os.path.basename(path), os.MFD_CLOEXEC)
        stack.callback(os.close, copy)
        try:
            while os.sendfile(copy, source, None, 64 * MIB):
                pass
        except OSError as error:
            raise NodeError(f"{os.path.basename(path)} cannot be read: {error.strerror}") from None
        return copy
