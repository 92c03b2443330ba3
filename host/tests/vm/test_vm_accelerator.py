"""Which accelerator is used: what was tried counts, not what is seen."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.reporter import Reporter
from snf_image_host.vm import Account, Verdict, accelerator, check_kvm, choose_accelerator
from snf_image_host.vm.accelerator import ProbeMemory
from snf_image_host.vm.kvm import KvmAccess, kvm_access

if TYPE_CHECKING:
    from tests.vm.conftest import Image, Recorder

ME = Account(uid=os.getuid(), gid=os.getgid(), switch=False)
OTHER = Account(uid=2100000000, gid=2100000000, switch=True)
ALLOWED = KvmAccess(allowed=True, groups=(106,))


@pytest.fixture
def auto(settings: HelperSettings, monkeypatch: pytest.MonkeyPatch) -> HelperSettings:
    """Settings of ``auto`` on a node whose /dev/kvm opens."""
    monkeypatch.setattr(accelerator, "kvm_access", lambda _: ALLOWED)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    return dataclasses.replace(settings, accelerator="auto")


def test_a_guest_that_starts_means_kvm(
    auto: HelperSettings, image: Callable[[str], Image], reporter: Reporter, recorder: Recorder
) -> None:
    """R-HLP-1, D-25: the trial boot answers on the second port; the device's group goes with it (D-1)."""
    choice = choose_accelerator(auto, image("probe"), ME, reporter)
    assert (choice.accelerator, choice.groups) == ("kvm", (106,))
    assert recorder.events == []


@pytest.mark.parametrize(
    ("play", "reason"),
    [
        ("hangs-at-boot", "a guest under KVM does not get past its early boot within 0.4 s"),
        ("dies-at-boot", "a guest under KVM ends before it has started"),
        ("early-success", "a guest under KVM does not get past its early boot within 0.4 s"),
        ("no-start", "qemu does not start under KVM: qemu-system-x86_64: could not load kernel"),
    ],
)
def test_auto_is_not_fooled_by_a_device_that_opens(
    *,
    play: str,
    reason: str,
    auto: HelperSettings,
    image: Callable[[str], Image],
    reporter: Reporter,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T-49, R-HLP-1: falls back to TCG, with one line of information that says why."""
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 0.4)
    choice = choose_accelerator(auto, image(play), ME, reporter)
    assert (choice.accelerator, choice.groups) == ("tcg", ())
    text = "the helper VM runs in emulation (TCG), slower than with KVM: "
    assert recorder.infos == [text + reason]
    assert len(recorder.events) == 1


def test_a_verdict_is_remembered(
    auto: HelperSettings, image: Callable[[str], Image], reporter: Reporter, recorder: Recorder
) -> None:
    """D-25: tried once; ``again`` (doctor --probe) tries in any case. The file is private."""
    assert choose_accelerator(auto, image("no-start"), ME, reporter).accelerator == "tcg"
    assert choose_accelerator(auto, image("probe"), ME, reporter).accelerator == "tcg"
    assert recorder.infos[1].endswith("(known from an earlier trial)")
    assert check_kvm(auto, image("probe"), ME, again=True) == Verdict(works=True)
    assert check_kvm(auto, image("hangs-at-boot"), ME) == Verdict(works=True, remembered=True)
    [name] = os.listdir(auto.state_dir)
    assert stat.S_IMODE(os.stat(os.path.join(auto.state_dir, name)).st_mode) == 0o600


def test_a_timeout_on_a_busy_node_is_not_remembered(
    auto: HelperSettings, image: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-25: the guest may have been slow only because of the load."""
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 0.4)
    assert not check_kvm(auto, image("hangs-at-boot"), ME).works
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 10.0)
    assert check_kvm(auto, image("probe"), ME) == Verdict(works=True)


def test_how_long_a_verdict_lasts(
    settings: HelperSettings, image: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-25: a failure until the node restarts and for a day at most; a success until something changes."""
    memory = ProbeMemory(settings, image(""))
    memory.remember(Verdict(works=False, reason="why"))
    assert memory.recall() == Verdict(works=False, reason="why", remembered=True)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 24 * 3600 + 1)
    assert memory.recall() is None
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert memory.recall() is not None
    monkeypatch.setattr(accelerator, "_boot_id", lambda: "another boot")
    assert memory.recall() is None
    memory.remember(Verdict(works=True))
    monkeypatch.setattr(time, "time", lambda: now + 10**9)
    monkeypatch.setattr(accelerator, "_boot_id", lambda: "and another")
    assert memory.recall() == Verdict(works=True, remembered=True)
    rebuilt = dataclasses.replace(image(""), build="build-2")
    assert ProbeMemory(settings, rebuilt).recall() is None
    other_qemu = dataclasses.replace(settings, qemu="/bin/true")
    assert ProbeMemory(other_qemu, image("")).recall() is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"KEY": 1}', '{"KEY": {"works": "yes"}}', '{"KEY": {"works": false}}']
)
def test_a_broken_memory_counts_as_empty(
    content: str, settings: HelperSettings, image: Callable[[str], Image]
) -> None:
    """D-25: it is then tried again, which costs seconds, not a deployment."""
    memory = ProbeMemory(settings, image(""))
    os.makedirs(settings.state_dir)
    Path(memory._path).write_text(content.replace("KEY", memory._key))
    assert memory.recall() is None


def test_a_memory_that_others_can_write_is_not_believed(
    settings: HelperSettings, image: Callable[[str], Image]
) -> None:
    """D-25: a verdict forged by another user would choose how the helper runs."""
    memory = ProbeMemory(settings, image(""))
    memory.remember(Verdict(works=True))
    os.chmod(memory._path, 0o666)
    assert memory.recall() is None


def test_a_memory_that_cannot_be_written_harms_nobody(
    settings: HelperSettings, image: Callable[[str], Image], tmp_path: Path
) -> None:
    """D-25: no state directory, no memory."""
    (tmp_path / "file").write_bytes(b"")
    memory = ProbeMemory(dataclasses.replace(settings, state_dir=str(tmp_path / "file" / "x")), image(""))
    memory.remember(Verdict(works=True))
    assert memory.recall() is None


def test_tcg_asks_nobody(settings: HelperSettings, image: Callable[[str], Image], reporter: Reporter) -> None:
    """R-HLP-1: HELPER_ACCEL=tcg."""
    assert choose_accelerator(settings, image("no-start"), ME, reporter).accelerator == "tcg"


def test_kvm_demanded_but_not_to_be_had(
    settings: HelperSettings,
    image: Callable[[str], Image],
    reporter: Reporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-HLP-1: HELPER_ACCEL=kvm is an error then, never a silent change."""
    denied = KvmAccess(allowed=False, reason="there is no /dev/kvm")
    monkeypatch.setattr(accelerator, "kvm_access", lambda _: denied)
    with pytest.raises(NodeError, match="cannot be used: there is no /dev/kvm"):
        choose_accelerator(dataclasses.replace(settings, accelerator="kvm"), image(""), ME, reporter)
    monkeypatch.setattr(accelerator, "kvm_access", lambda _: ALLOWED)
    choice = choose_accelerator(dataclasses.replace(settings, accelerator="kvm"), image(""), ME, reporter)
    assert (choice.accelerator, choice.groups) == ("kvm", (106,))


@pytest.mark.parametrize(
    ("mode", "gid", "access"),
    [
        (0o666, 0, KvmAccess(allowed=True)),
        (0o660, 106, KvmAccess(allowed=True, groups=(106,))),
        (0o660, 0, None),  # root's own group is not given away
        (0o600, 106, None),
        (0o640, 106, None),
        (0o664, 0, None),
    ],
)
def test_access_to_the_device(
    mode: int, gid: int, access: KvmAccess | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-1: told from owner, group and mode; a refusal is called by its name."""
    state = os.stat_result((stat.S_IFCHR | mode, 0, 0, 1, 0, gid, 0, 0, 0, 0))
    monkeypatch.setattr(os, "stat", lambda *_, **__: state)
    got = kvm_access(OTHER)
    if access is None:
        assert not got.allowed
        assert got.reason.startswith("permission denied: /dev/kvm has group ")
        assert got.groups == ()
    else:
        assert got == access


def test_no_device_is_not_called_a_refusal(tmp_path: Path) -> None:
    """D-1: and a file that is no device is neither."""
    assert kvm_access(OTHER, str(tmp_path / "kvm")).reason.startswith("there is no ")
    (tmp_path / "file").write_bytes(b"")
    assert kvm_access(OTHER, str(tmp_path / "file")).reason.endswith("is not a device")


def test_the_memory_is_small(settings: HelperSettings, image: Callable[[str], Image]) -> None:
    """D-25: it keeps the newest verdict, and nothing that grows."""
    for build in range(20):
        ProbeMemory(settings, dataclasses.replace(image(""), build=str(build))).remember(Verdict(works=True))
    with open(os.path.join(settings.state_dir, "kvm-probe.json"), encoding="ascii") as file:
        assert len(json.load(file)) == 1
    assert os.listdir(settings.state_dir) == ["kvm-probe.json"]
