"""A node that has no room for another helper VM: deployments wait, and say for what."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.reporter import Reporter
from snf_image_host.vm import room
from snf_image_host.vm.room import directory_of, room_aside, room_for_vm
from snf_image_process import PIPE, start

if TYPE_CHECKING:
    from tests.vm.conftest import Recorder

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def meminfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "meminfo"
    monkeypatch.setattr(room, "MEMINFO", str(path))
    monkeypatch.setattr(room, "_POLL_SECONDS", 0.01)
    set_available(path, 100_000)
    return path


def set_available(path: Path, mib: int) -> None:
    path.write_text(f"MemTotal: 999999999 kB\nMemFree: 5 kB\nMemAvailable: {mib * 1024} kB\n")


def in_thread(settings: HelperSettings, reporter: Reporter, entered: threading.Event) -> threading.Thread:
    def work() -> None:
        with room_for_vm(settings, reporter):
            entered.set()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def another(settings: HelperSettings, memory: int, *, age: float = 0.0) -> contextlib.ExitStack:
    """A VM of somebody else."""
    path = Path(directory_of(settings), f"vm-1-{memory}")
    os.makedirs(directory_of(settings), exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age, time.time() - age))
    held = contextlib.ExitStack()
    locker = held.enter_context(
        start(["flock", str(path), "sh", "-c", "echo locked; exec sleep 100"], stdout=PIPE)
    )
    assert locker.stdout is not None
    assert locker.stdout.readline() == b"locked\n"
    return held


def test_nothing_is_left_and_nobody_waits_where_there_is_room(settings: HelperSettings) -> None:
    with room_for_vm(settings, Reporter()):
        assert len(os.listdir(directory_of(settings))) == 1
    assert os.listdir(directory_of(settings)) == []


def test_a_node_without_memory_is_an_error(
    settings: HelperSettings, meminfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nobody else to wait for, it does not wait for long."""
    monkeypatch.setattr(room, "_ALONE_SECONDS", 0.05)
    set_available(meminfo, 600)
    wanted = dataclasses.replace(settings, memory=512)
    with pytest.raises(NodeError, match="needs 704 MiB of memory, 600 MiB are available") as raised:
        room_for_vm(wanted, Reporter()).__enter__()
    assert "HELPER_MEMORY" in raised.value.hint


def test_it_waits_for_memory_that_others_give_back(
    settings: HelperSettings, meminfo: Path, recorder: Recorder, reporter: Reporter
) -> None:
    """What another has just been promised is not there any more, although it does not use it yet."""
    set_available(meminfo, 1000)
    entered = threading.Event()
    with another(settings, 704):
        thread = in_thread(settings, reporter, entered)
        assert not entered.wait(0.3)
    assert entered.wait(5)
    thread.join()
    assert recorder.infos == [
        "waiting to start the helper VM: it needs 704 MiB of memory, 296 MiB are available"
    ]


def test_memory_in_use_is_not_counted_twice(settings: HelperSettings, meminfo: Path) -> None:
    set_available(meminfo, 1000)
    with another(settings, 704, age=60), room_for_vm(settings, Reporter()):
        pass


def test_as_many_as_the_operator_allows(
    settings: HelperSettings, recorder: Recorder, reporter: Reporter
) -> None:
    """R-HLP-14: HELPER_PARALLEL."""
    limited = dataclasses.replace(settings, parallel=1)
    entered = threading.Event()
    with another(settings, 704):
        thread = in_thread(limited, reporter, entered)
        assert not entered.wait(0.3)
        with room_for_vm(dataclasses.replace(settings, parallel=3), Reporter()):
            pass
    assert entered.wait(5)
    thread.join()
    assert recorder.infos == ["waiting to start the helper VM: 1 others run, HELPER_PARALLEL=1"]


def test_the_wait_has_an_end(settings: HelperSettings) -> None:
    limited = dataclasses.replace(settings, parallel=1, wait_timeout=0.05)
    with another(settings, 704), pytest.raises(NodeError, match="HELPER_PARALLEL=1"):
        room_for_vm(limited, Reporter()).__enter__()


def test_one_that_was_killed_takes_no_room(settings: HelperSettings) -> None:
    limited = dataclasses.replace(settings, parallel=1)
    os.makedirs(directory_of(settings))
    Path(directory_of(settings), "vm-1-704").touch()
    with room_for_vm(limited, Reporter()):
        pass
    assert os.listdir(directory_of(settings)) == []


def test_a_kernel_that_does_not_say_holds_nobody_up(settings: HelperSettings, meminfo: Path) -> None:
    meminfo.unlink()
    with room_for_vm(settings, Reporter()):
        pass


def test_what_runs_aside_takes_no_place(settings: HelperSettings) -> None:
    """R-HLP-14, D-8: whoever deploys next does not wait for the state that is saved for later."""
    limited = dataclasses.replace(settings, parallel=1, wait_timeout=0.05)
    with room_aside(limited) as first, room_for_vm(limited, Reporter()), room_aside(limited) as second:
        assert first
        assert second
        with pytest.raises(NodeError, match="1 others run, HELPER_PARALLEL=1"):
            room_for_vm(limited, Reporter()).__enter__()
    assert os.listdir(directory_of(settings)) == []


def test_what_runs_aside_leaves_memory_for_a_deployment(settings: HelperSettings, meminfo: Path) -> None:
    """R-HLP-14: it begins only beside the next one, and at once or not at all."""
    begun = time.monotonic()
    needed = settings.memory + room.OVERHEAD_MIB
    for available, is_room in ((2 * needed - 1, False), (2 * needed, True)):
        set_available(meminfo, available)
        with room_aside(settings) as found:
            assert found == is_room
            assert len(os.listdir(directory_of(settings))) == is_room
    with another(settings, needed), room_aside(settings) as found:
        assert not found
    assert time.monotonic() - begun < 5


def test_the_memory_of_what_runs_aside_is_counted(
    settings: HelperSettings, meminfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-14: the node's memory is not promised twice: of two that begin meanwhile, one waits."""
    needed = settings.memory + room.OVERHEAD_MIB
    set_available(meminfo, 2 * needed)
    hasty = dataclasses.replace(settings, wait_timeout=0.05)
    with room_aside(settings) as found, room_for_vm(hasty, Reporter()):
        assert found
        with pytest.raises(NodeError, match=f"needs {needed} MiB of memory, 0 MiB are available"):
            room_for_vm(hasty, Reporter()).__enter__()
