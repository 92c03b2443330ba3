"""Helpers that continue from a saved state, played by a program: whatever is wrong, deployments go on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snf_image_contract.events import Awake
from snf_image_contract.job import CONTRACT_VERSION, Job
from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.reporter import Reporter
from snf_image_host.vm import Account, commandline, machine, room, saved_state
from snf_image_host.vm import warm as warm_module
from snf_image_host.vm.commandline import VmSpec
from snf_image_host.vm.qemu import Qemu
from snf_image_host.vm.room import room_for_vm
from snf_image_host.vm.saved_state import StateError, StateStore, store_of
from snf_image_host.vm.warm import make_state, make_state_later

if TYPE_CHECKING:
    from tests.vm.conftest import Disk, Image, Recorder, StartVm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
def warm(settings: HelperSettings, tmp_path: Path) -> HelperSettings:
    (tmp_path / "run").mkdir()
    return dataclasses.replace(settings, warm=True, user=None)


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The player runs as the caller, whoever runs the tests."""

    class Ours:
        def __enter__(self) -> Account:
            return Account.of_caller()

        def __exit__(self, *exc: object) -> None:
            pass

    monkeypatch.setattr(machine, "account_for", lambda *_: Ours())


def made(warm: HelperSettings, image: Image, reporter: Reporter) -> str:
    path = make_state(warm, image, reporter)
    assert path is not None
    return path


def record_of(path: str) -> str:
    return path.removesuffix(".state") + ".json"


def test_a_vm_continues_from_the_state(
    *, warm: HelperSettings, image: Any, reporter: Reporter, recorder: Recorder, start_vm: StartVm, job: Job,
    disks: tuple[Disk, ...],
) -> None:  # fmt: skip
    """R-HLP-4, D-8, D-20: its hello is the one it said before, and the job is done as ever."""
    path = made(warm, image("good"), reporter)
    assert os.stat(path).st_mode & 0o777 == os.stat(record_of(path)).st_mode & 0o777 == 0o600
    before = Path(path).read_bytes()
    vm = start_vm("good", warm=True)
    hello = vm.wait_ready()
    assert hello is not None
    assert hello.build == "build-1"
    outcome = vm.run_job(job, disks)
    assert outcome.warm
    assert outcome.start_seconds is not None
    assert recorder.warnings == []
    assert Path(path).read_bytes() == before
    # The player wants the descriptor read-only; its command line is the one that booted, and waits.
    argv = Path(warm.directory, "evidence", "qemu.argv").read_text()
    assert "-incoming defer" in argv
    assert "snf_image_preload" in argv


def test_a_restored_helper_is_asked_before_anybody_waits_for_it(
    *, warm: HelperSettings, image: Any, reporter: Reporter, recorder: Recorder, start_vm: StartVm
) -> None:
    """R-HLP-4: its answer comes while the image is copied, although loading the state loses a byte."""
    made(warm, image("good"), reporter)
    start_vm("good", warm=True)
    end = time.monotonic() + 10
    while Awake() not in recorder.said and time.monotonic() < end:
        time.sleep(0.01)
    assert Awake() in recorder.said


def test_without_a_state_or_when_told_so_it_boots(
    *, warm: HelperSettings, image: Any, reporter: Reporter, start_vm: StartVm, job: Job,
    disks: tuple[Disk, ...],
) -> None:  # fmt: skip
    for settings in ({"warm": True}, {"warm": False}, {"warm": True, "debug": True}):
        outcome = start_vm("good", **settings).run_job(job, disks)
        assert not outcome.warm
        made(warm, image("good"), reporter)


def truncate(path: str) -> None:
    os.truncate(path, 100)


def flip(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[1000] ^= 0x10
    Path(path).write_bytes(data)


def rewrite(path: str) -> None:
    """A state that is whole, has its digest, and is not what qemu expects."""
    data = b"OTHER\n" * 1000
    Path(path).write_bytes(data)
    record = json.loads(Path(record_of(path)).read_text())
    record |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    Path(record_of(path)).write_text(json.dumps(record))


def share(path: str) -> None:
    os.chmod(path, 0o644)


def no_record(path: str) -> None:
    Path(record_of(path)).write_text("[")


def other_hello(path: str) -> None:
    record = json.loads(Path(record_of(path)).read_text())
    Path(record_of(path)).write_text(json.dumps(record | {"hello": '{"seq": 0, "kind": "awake"}\n'}))


def other_contract(path: str) -> None:
    record = json.loads(Path(record_of(path)).read_text())
    other = record["hello"].replace(f'"contract_version": {CONTRACT_VERSION}', '"contract_version": 1')
    assert other != record["hello"]
    Path(record_of(path)).write_text(json.dumps(record | {"hello": other}))


def other_build(path: str) -> None:
    text = Path(record_of(path)).read_text()
    assert "build-1" in text
    Path(record_of(path)).write_text(text.replace("build-1", "build-3"))


def other_qemu(path: str) -> None:
    record = json.loads(Path(record_of(path)).read_text())
    assert json.loads(record["qemu"])["qemu"] == {"major": 7, "minor": 2, "micro": 22}
    other = record["qemu"].replace('"micro": 22', '"micro": 23')
    Path(record_of(path)).write_text(json.dumps(record | {"qemu": other}))


def link(path: str) -> None:
    os.rename(path, f"{path}.moved")
    os.symlink(f"{path}.moved", path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (truncate, "it has 100 bytes, 6000 were saved"),
        (flip, "its digest is not the one that was recorded"),
        (rewrite, "qemu is gone|it does not answer"),
        (share, "is not private to us"),
        (no_record, "its record cannot be read"),
        (other_hello, "its record holds no hello"),
        (other_contract, "it is of another helper"),
        (other_build, "it is of another helper"),
        (other_qemu, "it is of another qemu"),
        (link, "Too many levels of symbolic links"),
    ],
)
def test_a_state_that_is_wrong_is_given_up_with_one_warning(
    *, spoil: Callable[[str], None], why: str, warm: HelperSettings, image: Any, reporter: Reporter,
    recorder: Recorder, start_vm: StartVm, job: Job, disks: tuple[Disk, ...],
) -> None:  # fmt: skip
    """D-8: and never the reason why a deployment fails; the next one does not stumble over it again."""
    path = made(warm, image("good"), reporter)
    spoil(path)
    outcome = start_vm("good", warm=True).run_job(job, disks)
    assert not outcome.warm
    (warning,) = recorder.warnings
    assert re.search(why, warning)
    assert "starts anew" in warning
    assert not os.path.exists(path)
    assert not os.path.exists(record_of(path))


def test_a_restored_helper_that_has_heard_nothing_is_asked_again(
    *, warm: HelperSettings, image: Any, reporter: Reporter, recorder: Recorder, start_vm: StartVm
) -> None:
    """R-HLP-4: what it was asked at first may be lost."""
    made(warm, image("loses-more"), reporter)
    start_vm("loses-more", warm=True).wait_ready()
    assert Awake() in recorder.said
    assert recorder.warnings == []


@pytest.mark.parametrize(
    ("play", "why"),
    [("deaf", "it does not answer"), ("qmp-stalls", "answer to migrate-incoming: nothing came in time")],
)
def test_a_restored_helper_that_does_not_answer_is_replaced(
    *, play: str, why: str, warm: HelperSettings, image: Any, reporter: Reporter, recorder: Recorder,
    start_vm: StartVm, job: Job, disks: tuple[Disk, ...], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """R-HLP-4: after as long as RESTORE_SECONDS says, whichever of the two says nothing: it or qemu."""
    pids: list[int] = []
    spawn = Qemu._spawn

    def spawned(qemu: Qemu, spec: VmSpec) -> None:
        spawn(qemu, spec)
        pids.append(qemu.running.pid)

    monkeypatch.setattr(Qemu, "_spawn", spawned)
    monkeypatch.setattr(machine, "RESTORE_SECONDS", 0.5)
    made(warm, image(play), reporter)
    pids.clear()
    begun = time.monotonic()
    outcome = start_vm(play, warm=True).run_job(job, disks)
    assert 0.5 < time.monotonic() - begun < 10
    assert not outcome.warm
    (warning,) = recorder.warnings
    assert warning.endswith(f"cannot be used: {why}")
    assert len(pids) == 2
    assert not os.path.exists(f"/proc/{pids[0]}")


def test_the_key_changes_with_everything_that_could_make_a_state_wrong(
    warm: HelperSettings, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-4: the helper, qemu, its machine, the host's processor and kernel, the contract."""
    first = image("good")

    def key(**changed: Any) -> str:
        return store_of(dataclasses.replace(warm, **changed), first, "tcg").path

    keys = [key(), key(memory=600), key(cpus=2), key(qemu="/bin/true")]
    qemu = tmp_path / "qemu"
    for number in range(2):
        qemu.write_text("another version" * (number + 1))
        keys.append(key(qemu=str(qemu)))
    keys.append(store_of(warm, first, "kvm").path)
    keys.append(store_of(warm, dataclasses.replace(first, build="other"), "tcg").path)
    keys.append(store_of(warm, image("other words"), "tcg").path)
    for name in ("kernel", "initrd", "root"):
        (tmp_path / name).write_bytes(b"changed " + name.encode())
        keys.append(key())
    monkeypatch.setattr(commandline, "_MACHINE", "q35")
    keys.append(key())
    monkeypatch.setitem(commandline._CPU, "tcg", "qemu64")
    keys.append(key())
    system = os.uname()
    for position in (2, 3, 4):  # the kernel's release and version, the processor's architecture
        other = os.uname_result([*system[:position], "another", *system[position + 1 :]])
        monkeypatch.setattr(os, "uname", lambda other=other: other)
        keys.append(key())
    monkeypatch.setattr(os, "uname", lambda: system)
    monkeypatch.setattr(saved_state, "CONTRACT_VERSION", 99)
    keys.append(key())
    monkeypatch.setattr(saved_state, "_processor", lambda: "another")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    renamed = os.uname_result([system[0], "another name", *system[2:]])
    monkeypatch.setattr(os, "uname", lambda: renamed)
    assert key() == key(soft_timeout=1.0) == keys[-1]


@pytest.mark.parametrize("play", ["unsaved", "saves-too-much", "hangs-at-boot", "dies-at-boot"])
def test_what_goes_wrong_while_it_is_made_leaves_nothing(
    play: str, warm: HelperSettings, image: Any, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(warm, start_timeout=1.0, memory=128 if play != "saves-too-much" else 0)
    player = image(play)
    if play == "saves-too-much":
        monkeypatch.setattr(warm_module, "_DEVICES_MIB", 1)
    with pytest.raises(NodeError):
        make_state(settings, player, reporter)
    left = os.listdir(saved_state.directory_of(settings))
    assert left == ["lock"]


def test_it_is_made_once(warm: HelperSettings, image: Any, reporter: Reporter) -> None:
    path = made(warm, image("good"), reporter)
    inode = os.stat(path).st_ino
    assert made(warm, image("good"), reporter) == path
    assert os.stat(path).st_ino == inode
    make_state(warm, image("good"), reporter, again=True)
    assert os.stat(path).st_ino != inode


def test_only_one_makes_it_at_a_time(warm: HelperSettings, image: Any, reporter: Reporter) -> None:
    """R-HLP-14"""
    with store_of(warm, image("good"), "tcg").being_made() as ours:
        assert ours
        assert make_state(warm, image("good"), reporter) is None


def test_it_is_made_only_where_there_is_room(
    warm: HelperSettings, image: Any, reporter: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-14: if somebody asks for it, its VM takes the memory of a deployment's, and counts like one."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemAvailable: {(warm.memory + 191) * 1024} kB\n")
    monkeypatch.setattr(room, "MEMINFO", str(meminfo))
    monkeypatch.setattr(room, "_ALONE_SECONDS", 0.05)
    with pytest.raises(NodeError, match="MiB of memory"):
        make_state(warm, image("good"), reporter)
    assert not store_of(warm, image("good"), "tcg").exists()
    meminfo.write_text(f"MemAvailable: {(warm.memory + 192) * 1024} kB\n")
    made(warm, image("good"), reporter)


def test_states_of_other_settings_are_few(tmp_path: Path) -> None:
    for number in range(6):
        store = StateStore(str(tmp_path), f"key{number}")
        receive(store, b"x")
        store.commit(b'{"seq": 0, "kind": "hello", "contract_version": 2, "build": "b"}\n', "7.2")
        os.utime(store.path, (number, number))
        if number == 1:
            os.unlink(record_of(store.path))  # whoever made another was killed between the two
            (tmp_path / "key9.new").write_bytes(b"and somebody else earlier still")
    states = sorted(name for name in os.listdir(tmp_path) if name.endswith(".state"))
    assert states == ["key3.state", "key4.state", "key5.state"]
    assert len(os.listdir(tmp_path)) == 6


def receive(store: StateStore, data: bytes, limit: int = 100) -> None:
    ours, theirs = os.pipe()

    def write() -> None:
        with open(theirs, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        store.receive(ours, limit=limit)
    finally:
        os.close(ours)
        thread.join()


def test_a_state_beyond_its_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="larger than 100 bytes"):
        receive(StateStore(str(tmp_path), "key"), b"x" * 101)


def test_the_vm_that_saves_is_gone_afterwards(warm: HelperSettings, image: Any, reporter: Reporter) -> None:
    made(warm, image("good"), reporter)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    assert [pid for pid in children if b"fake_qemu" in Path(f"/proc/{pid}/cmdline").read_bytes()] == []


def test_the_first_deployment_leaves_somebody_behind_who_makes_it(
    *, warm: HelperSettings, image: Any, eventually: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for it: not the terminal, not who waits for our output, not we."""
    player = image("good")
    settings = dataclasses.replace(warm, user=None)
    store = store_of(settings, player, "tcg")
    begun = time.monotonic()
    make_state_later(settings, player, "tcg")
    assert time.monotonic() - begun < 1
    eventually(store.exists)
    eventually(lambda: not os.path.exists(store.path + ".new"))
    inode = os.stat(store.path).st_ino
    make_state_later(settings, player, "tcg")
    time.sleep(0.2)
    assert os.stat(store.path).st_ino == inode
    assert capfd.readouterr() == ("", "")


def test_nobody_waits_for_the_state_that_is_left_to_be_made(
    *, warm: HelperSettings, image: Any, reporter: Reporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """R-HLP-14: with one place, it is made beside a deployment; without memory for both it is not made."""
    limited = dataclasses.replace(warm, parallel=1, wait_timeout=0.05)
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(room, "MEMINFO", str(meminfo))
    meminfo.write_text(f"MemAvailable: {(3 * (warm.memory + 192) - 1) * 1024} kB\n")
    with room_for_vm(limited, reporter):
        assert make_state(limited, image("good"), reporter, aside=True) is None
        assert not store_of(warm, image("good"), "tcg").exists()
        meminfo.write_text(f"MemAvailable: {3 * (warm.memory + 192) * 1024} kB\n")
        assert make_state(limited, image("good"), reporter, aside=True) is not None


@pytest.mark.parametrize("changed", [{"warm": False}, {"debug": True}, {"protocol": "text"}])
def test_where_no_state_would_be_used_none_is_made(
    changed: dict[str, Any], warm: HelperSettings, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise AssertionError

    monkeypatch.setattr(os, "fork", fork)
    make_state_later(dataclasses.replace(warm, **changed), image("good"), "tcg")
    assert not os.path.exists(saved_state.directory_of(warm))
