"""SSH host keys made on the host."""

from __future__ import annotations

import os
import queue
import time
from pathlib import Path

import pytest

from snf_image_contract.job import HostKey
from snf_image_host.host_keys import HostKeyMaker
from snf_image_host.reporter import Event, Reporter, Warning
from snf_image_process import run

pytestmark = pytest.mark.requires("ssh-keygen")


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


def test_keys_of_three_types_are_made_and_are_whole() -> None:
    """R-TASK-SSH-2: rsa of 3072 bits, ecdsa and ed25519, with the comment that was asked for."""
    with HostKeyMaker("root@web1", launcher=(), reporter=Reporter()) as maker:
        keys = maker.keys()
    assert [key.type for key in keys] == ["rsa", "ecdsa", "ed25519"]
    for key in keys:
        listed = run(["ssh-keygen", "-l", "-f", "/dev/stdin"], timeout=20, stdin=key.public.encode()).text
        assert "root@web1" in listed
        assert key.private.reveal().startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert run(["ssh-keygen", "-l", "-f", "/dev/stdin"], timeout=20, stdin=keys[0].public.encode()).text[
        :5
    ] == ("3072 ")


def test_no_file_of_a_key_is_made(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-SSH-3: only anonymous memory holds a key, and its descriptor is closed afterwards."""
    before = set(os.listdir("/proc/self/fd"))
    with HostKeyMaker("root@web1", launcher=(), reporter=Reporter()) as maker:
        maker.keys()
    after = {fd for fd in os.listdir("/proc/self/fd") if fd not in before}
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in after if os.path.exists(f"/proc/self/fd/{fd}")]
    assert not [name for name in names if "ssh-host-key" in name]


def test_the_keys_are_handed_over_when_they_are_made() -> None:
    """R-TASK-SSH-2: nobody waits for them."""
    got: queue.SimpleQueue[tuple[HostKey, ...]] = queue.SimpleQueue()
    with HostKeyMaker("root@web1", launcher=(), reporter=Reporter()) as maker:
        maker.hand_over(got.put)
        keys = got.get(timeout=60)
    assert [key.type for key in keys] == ["rsa", "ecdsa", "ed25519"]


def test_a_deployment_that_ends_sooner_waits_for_no_key(tmp_path: Path) -> None:
    """The programs are ended, and nobody is told that they failed."""
    recorder = Recorder()
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ >>{tmp_path}/pids\nexec sleep 100\n")
    slow.chmod(0o755)
    begun = time.monotonic()
    with HostKeyMaker("root@web1", launcher=(str(slow),), reporter=Reporter(recorder)) as maker:
        maker.hand_over(lambda _: None)
        while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 2:
            time.sleep(0.01)
    assert time.monotonic() - begun < 50
    assert recorder.events == []
    for pid in (tmp_path / "pids").read_text().split():
        assert not os.path.exists(f"/proc/{pid}")


def test_a_failing_program_leaves_the_keys_to_the_helper() -> None:
    """A node without a working ssh-keygen still deploys: a warning, and the helper makes the keys."""
    recorder = Recorder()
    with HostKeyMaker("root@web1", launcher=("false",), reporter=Reporter(recorder)) as maker:
        assert maker.keys() == ()
    assert [type(event) for event in recorder.events] == [Warning]


def test_programs_that_have_ended_are_not_ended_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-HLP-13: their numbers may be those of somebody else's processes by then."""
    killed: list[int] = []
    with HostKeyMaker("root@web1", launcher=(), reporter=Reporter()) as maker:
        assert len(maker.keys()) == 3
        monkeypatch.setattr(os, "killpg", lambda group, _: killed.append(group))
    assert killed == []


def test_whatever_goes_wrong_here_the_helper_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-SSH-2: it waits for an answer, and makes the keys itself if there are none."""

    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    got: queue.SimpleQueue[tuple[HostKey, ...]] = queue.SimpleQueue()
    recorder = Recorder()
    with HostKeyMaker("root@web1", launcher=(), reporter=Reporter(recorder)) as maker:
        maker.hand_over(got.put)
        assert got.get(timeout=30) == ()
    assert [type(event) for event in recorder.events] == [Warning]
