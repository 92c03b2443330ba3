"""Make the saved state that later helper VMs start from: boot one, let it load what jobs need, save it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from typing import Final, NoReturn

from snf_image_contract.events import encode_event
from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.reporter import Reporter
from snf_image_host.vm.accelerator import HelperFiles
from snf_image_host.vm.commandline import UsedAccelerator
from snf_image_host.vm.machine import HelperVm
from snf_image_host.vm.qmp import QmpError
from snf_image_host.vm.room import room_aside, room_for_vm
from snf_image_host.vm.saved_state import StateError, StateStore, store_of
from snf_image_process import Deadline

_MIB: Final = 1024 * 1024
_SAVE_SECONDS: Final = 10.0
_DEVICES_MIB: Final = 64
"""What a state holds beside the guest's memory, at most."""


def make_state(
    settings: HelperSettings,
    image: HelperFiles,
    reporter: Reporter,
    *,
    again: bool = False,
    aside: bool = False,
) -> str | None:
    """The path of the state that fits; made if it is not there, or ``again``. None: somebody else makes it.

    The VM waits for room like that of a deployment; made ``aside`` it takes nobody's place, and None is
    returned where there is no room for it at once. :class:`NodeError` if it cannot be made. To be called
    in the main thread.
    """
    evidence = tempfile.mkdtemp(prefix="snf-image-warm-")
    try:
        with contextlib.ExitStack() as alive:
            vm = alive.enter_context(HelperVm(settings, image, reporter, evidence))
            vm.decide()
            store = store_of(settings, image, vm.accelerator)
            if store.exists() and not again:
                return store.path
            if not alive.enter_context(store.being_made()):
                return None
            alive.callback(store.abandon)
            if not aside:
                alive.enter_context(room_for_vm(settings, reporter))
            elif not alive.enter_context(room_aside(settings)):
                return None
            vm.boot_to_be_saved()
            _save(vm, store, limit=(settings.memory + _DEVICES_MIB) * _MIB)
            return store.path
    except (StateError, QmpError) as error:
        raise NodeError(f"no helper state could be saved: {error}") from None
    except OSError as error:
        raise NodeError(f"no helper state could be saved: {error.strerror}") from None
    finally:
        shutil.rmtree(evidence, ignore_errors=True)


def _save(vm: HelperVm, store: StateStore, *, limit: int) -> None:
    """qemu writes into a pipe, and we the file: a program that a guest could take over has no hold on it."""
    vm.wait_ready()
    version = vm.qemu.qmp.version
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    failures: list[StateError] = []

    def receive() -> None:
        try:
            store.receive(ours, limit=limit)
        except StateError as error:
            failures.append(error)
        finally:
            os.close(ours)

    thread = threading.Thread(target=receive, name="helper-state")
    thread.start()
    try:
        hello = _write_out(vm, theirs)
    finally:
        vm.close()  # the last end of the pipe that could be written to, whatever happened
        thread.join()
    if failures:
        raise failures[0]
    store.commit(hello, version)


def _write_out(vm: HelperVm, stream: int) -> bytes:
    """Have the state written; returns the hello of the VM, which is of no more use."""
    hello = vm.wait_ready()
    assert hello is not None  # noqa: S101 - a foreign helper is not saved
    try:
        vm.qemu.save(stream)
    finally:
        os.close(stream)
    deadline = Deadline(vm.scaled(_SAVE_SECONDS))
    while not vm.qemu.saved():
        if deadline.passed():
            raise StateError("it could not be saved in time")
        time.sleep(0.02)
    return encode_event(hello, 0)


def make_state_later(settings: HelperSettings, image: HelperFiles, accelerator: UsedAccelerator) -> None:
    """If there is no state yet, leave a process behind that makes it: nobody waits for it.

    It is a copy of this one, with the same settings, out of reach of the terminal and of who waits for us.
    Where it finds no room aside from that of deployments it ends, and the next deployment leaves another.
    """
    if not settings.warm or settings.debug or settings.protocol == "text":
        return
    if store_of(settings, image, accelerator).exists():
        return
    with contextlib.suppress(OSError):  # no memory for a process: then later
        child = os.fork()
        if child == 0:
            _become_detached(settings, image)
        os.waitpid(child, 0)


def _become_detached(settings: HelperSettings, image: HelperFiles) -> NoReturn:
    """In the child: make the state in a grandchild that init adopts. Never returns."""
    try:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            os.nice(10)
            make_state(settings, image, Reporter(), aside=True)
    finally:
        os._exit(0)
