"""What the tests of the helper VM share: a recorder of events, and a VM whose qemu is a script."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snf_image_contract.job import CONTRACT_VERSION, AssignHostname, Job, JobDisk
from snf_image_host.deployment import HelperSettings
from snf_image_host.reporter import ConsoleLine, Event, HelperSaid, Info, Reporter, Warning
from snf_image_host.vm import Account, Choice, HelperVm, start_helper

HERE = os.path.dirname(os.path.abspath(__file__))


class Recorder:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass

    @property
    def said(self) -> list[Any]:
        return [event.event for event in self.events if isinstance(event, HelperSaid)]

    @property
    def console(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, ConsoleLine)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warning)]

    @property
    def infos(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Info)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """A helper image as the VM sees it."""

    kernel: str
    initrd: str
    root: str
    build: str = "build-1"
    contract_version: int = CONTRACT_VERSION
    cmdline: str = "console=ttyS0"
    cmdline_tcg: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    fd: int
    index: int = 0
    read_only: bool = False
    size: int = 1024 * 1024
    is_block: bool = False


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def reporter(recorder: Recorder) -> Reporter:
    return Reporter(recorder)


@pytest.fixture
def job() -> Job:
    return Job(
        instance="web1",
        clock=0.0,
        disks=(JobDisk(index=0), JobDisk(index=1, read_only=True)),
        assign_hostname=AssignHostname(name="web1"),
    )


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[Disk, ...]]:
    """A writable disk and a read-only one, as files of 1 MiB."""
    with contextlib.ExitStack() as opened:
        made = []
        for index, read_only in enumerate((False, True)):
            path = tmp_path / f"disk{index}"
            path.write_bytes(b"")
            os.truncate(path, 1024 * 1024)
            fd = os.open(path, os.O_RDWR)
            opened.callback(os.close, fd)
            made.append(Disk(fd=fd, index=index, read_only=read_only))
        yield tuple(made)


@pytest.fixture
def settings(tmp_path: Path) -> HelperSettings:
    return HelperSettings(
        directory=str(tmp_path),
        accelerator="tcg",
        tcg_factor=1.0,
        qemu=os.path.join(HERE, "fake_qemu.py"),
        soft_timeout=20.0,
        hard_timeout=5.0,
        start_timeout=20.0,
        state_dir=str(tmp_path / "state"),
        runtime_dir=str(tmp_path / "run"),
    )


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str], Image]:
    """A helper image that makes the script play a part."""

    def make(play: str) -> Image:
        for name in ("kernel", "initrd", "root"):
            if not (tmp_path / name).exists():
                (tmp_path / name).write_bytes(name.encode())
        return Image(
            kernel=str(tmp_path / "kernel"),
            initrd=str(tmp_path / "initrd"),
            root=str(tmp_path / "root"),
            cmdline=f"console=ttyS0 play={play}",
        )

    return make


StartVm = Callable[..., HelperVm]


@pytest.fixture
def start_vm(
    settings: HelperSettings, image: Callable[[str], Image], reporter: Reporter, tmp_path: Path
) -> Iterator[StartVm]:
    """Starts a VM that plays a part; keyword arguments change its settings."""
    with contextlib.ExitStack() as alive:

        def start(play: str, **changed: Any) -> HelperVm:
            return alive.enter_context(
                start_helper(
                    dataclasses.replace(settings, **changed),
                    image(play),
                    reporter,
                    str(tmp_path / "evidence"),
                    account=Account.of_caller(),
                    choice=Choice(accelerator="tcg"),
                )
            )

        yield start


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits for something that happens in another process."""

    def wait(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)

    return wait
