"""Make the saved state that later helper VMs start from: boot one, let it load what jobs need, save it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from typing import Final

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.reporter import Reporter
from snf_image_host.vm.accelerator import HelperFiles
from snf_image_host.vm.machine import HelperVm
from snf_image_host.vm.qmp import QmpError
from snf_image_host.vm.saved_state import StateError, StateStore

_MIB: Final = 1024 * 1024
_DEVICES_MIB: Final = 64
"""What a state holds beside the guest's memory, at most."""


def make_state(
    settings: HelperSettings, image: HelperFiles, reporter: Reporter, *, again: bool = False
) -> str | None:
    """The path of the state that fits; made if it is not there, or ``again``. None: somebody else makes it.

    :class:`NodeError` if it cannot be made. To be called in the main thread.
    """
    evidence = tempfile.mkdtemp(prefix="snf-image-warm-")
    try:
        with contextlib.ExitStack() as alive:
            vm = alive.enter_context(HelperVm(settings, image, reporter, evidence))
            vm.decide()
            store = vm.store
            if store.exists() and not again:
                return store.path
            if not alive.enter_context(store.being_made()):
                return None
            alive.callback(store.abandon)
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
        hello = vm.save(theirs)
    finally:
        vm.close()  # the last end of the pipe that could be written to, whatever happened
        thread.join()
    if failures:
        raise failures[0]
    store.commit(hello)
