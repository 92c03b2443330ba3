"""Each check of the node, and something that breaks it (D-32)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snf_image_contract.job import CONTRACT_VERSION
from snf_image_host import doctor
from snf_image_host.cli.main import main
from snf_image_host.configuration import ConfigFile, NodeConfig
from snf_image_host.doctor import Finding, Node, Places, examine
from snf_image_host.errors import NodeError
from snf_image_host.fetching import confined
from snf_image_host.helper_image import load
from snf_image_host.planning.helper_settings import helper_settings
from snf_image_host.planning.request import Overrides
from snf_image_host.vm.accelerator import Verdict
from snf_image_host.vm.kvm import KvmAccess

PROGRAMS = ("mke2fs", "debugfs", "setpriv", "prlimit", "ssh-keygen", "qemu-system-x86_64")


def program(directory: Path, name: str, text: str = "true") -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def helper_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "helper"
    directory.mkdir()
    files = {"kernel": b"k", "initrd": b"i", "root.img": b"r"}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    manifest = {
        "format": 1,
        "build": "b" * 40,
        "contract_version": CONTRACT_VERSION,
        "cmdline": "quiet",
        "packages": [],
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture
def places(tmp_path: Path) -> Places:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        program(programs, name, "echo QEMU emulator version 7.2.9")
    (tmp_path / "evidence").mkdir()
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1 kB\nMemAvailable:    2000000 kB\n")
    return Places(
        search_path=str(programs),
        evidence_dir=str(tmp_path / "evidence"),
        meminfo=str(meminfo),
        subuid=str(tmp_path / "subuid"),
    )


@pytest.fixture
def node(helper_dir: Path, places: Places, tmp_path: Path) -> Node:
    config = NodeConfig.defaults(
        helper_dir=str(helper_dir), qemu="qemu-system-x86_64", variants_dir=str(tmp_path / "variants")
    )
    settings = dataclasses.replace(
        helper_settings(config, Overrides()),
        state_dir=str(tmp_path / "state"),
        runtime_dir=str(tmp_path / "run"),
    )
    return Node(config=config, settings=settings, places=places, helper=load(str(helper_dir)), probe=False)


def settings(node: Node, **changes: Any) -> Node:
    return dataclasses.replace(node, settings=dataclasses.replace(node.settings, **changes))


def only(check: Callable[[Node], Any], node: Node) -> Finding:
    [finding] = check(node)
    assert isinstance(finding, Finding)
    assert finding.status == "fine" or finding.advice
    return finding


def kvm(monkeypatch: pytest.MonkeyPatch, access: KvmAccess, verdict: Verdict | None = None) -> list[bool]:
    """A node whose KVM is like this; returns what each trial was asked (``again``)."""
    trials: list[bool] = []

    def check(*_: object, again: bool, **__: object) -> Verdict:
        trials.append(again)
        assert verdict is not None
        return verdict

    monkeypatch.setattr(doctor, "kvm_access", lambda account: access)
    monkeypatch.setattr(doctor, "check_kvm", check)
    return trials


def test_a_good_node(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    kvm(monkeypatch, KvmAccess(allowed=True), Verdict(works=True))
    monkeypatch.setattr(confined, "landlock_version", lambda: 2)
    findings = [finding for check in doctor.CHECKS for finding in check(node)]
    assert {finding.status for finding in findings} == {"fine"}
    assert len(findings) == len(doctor.CHECKS)


@pytest.mark.parametrize("name", ["mke2fs", "debugfs", "setpriv", "prlimit"])
def test_a_missing_program(name: str, node: Node) -> None:
    os.unlink(os.path.join(node.places.search_path, name))
    finding = only(doctor.check_programs, node)
    assert finding.status == "problem"
    assert finding.message == f"{name} is not installed"
    assert finding.advice.startswith("apt-get install ")


def test_a_missing_ssh_keygen(node: Node) -> None:
    os.unlink(os.path.join(node.places.search_path, "ssh-keygen"))
    [warning, _] = doctor.check_programs(node)
    assert warning.status == "warning"
    assert "ssh-keygen" in warning.message


def test_a_missing_qemu(node: Node) -> None:
    finding = only(doctor.check_qemu, settings(node, qemu="qemu-system-none"))
    assert finding.status == "problem"
    assert "qemu-system-none is not installed" in finding.message


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 127", "problem"),
        ("echo QEMU emulator version 5.2.0", "warning"),
        ("echo QEMU version 10.0.1", "fine"),
    ],
)
def test_a_broken_or_old_qemu(script: str, status: str, node: Node) -> None:
    program(Path(node.places.search_path), "qemu-system-x86_64", script)
    assert only(doctor.check_qemu, node).status == status


def test_no_helper_image(node: Node, tmp_path: Path) -> None:
    """R-HLP-17: the advice says how to get one."""
    finding = only(
        doctor.check_helper, dataclasses.replace(settings(node, directory=str(tmp_path)), helper=None)
    )
    assert finding.status == "problem"
    assert "snf-image helper build" in finding.advice


def test_a_damaged_helper_image(node: Node, helper_dir: Path) -> None:
    """R-HLP-18"""
    (helper_dir / "root.img").write_bytes(b"x")
    finding = only(doctor.check_helper, node)
    assert finding.status == "problem"
    assert "root.img has sha256" in finding.message


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("there is no /dev/kvm", "virtualisation"),
        ("permission denied: /dev/kvm has group root and mode 0600", "chgrp kvm"),
    ],
)
def test_kvm_that_may_not_be_used(
    reason: str, advice: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-1: no permission is told from no KVM; emulation works, if it may."""
    kvm(monkeypatch, KvmAccess(allowed=False, reason=reason))
    finding = only(doctor.check_accelerator, node)
    assert (finding.status, finding.message) == ("warning", f"no KVM: {reason}")
    assert advice in finding.advice
    finding = only(doctor.check_accelerator, settings(node, accelerator="kvm"))
    assert finding.status == "problem"
    assert "HELPER_ACCEL=kvm" in finding.message


def test_kvm_under_which_no_guest_runs(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-25: a remembered failure is shown, and tried again by --probe."""
    verdict = Verdict(
        works=False, reason="a guest under KVM does not get past its early boot", remembered=True
    )
    trials = kvm(monkeypatch, KvmAccess(allowed=True), verdict)
    finding = only(doctor.check_accelerator, node)
    assert finding.status == "warning"
    assert "early boot, known from an earlier trial; --probe tries again" in finding.message
    assert "HELPER_ACCEL=tcg" in finding.advice
    assert trials == [False]
    only(doctor.check_accelerator, dataclasses.replace(node, probe=True))
    assert trials == [False, True]


def test_no_account_for_the_helper(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise NodeError("no user id is left")

    monkeypatch.setattr(doctor, "account_for", none_left)
    finding = only(doctor.check_accelerator, node)
    assert (finding.status, finding.message) == ("problem", "no user id is left")


def test_kvm_is_not_tried_without_a_helper(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = kvm(monkeypatch, KvmAccess(allowed=True))
    finding = only(doctor.check_accelerator, dataclasses.replace(node, helper=None))
    assert finding.status == "fine"
    assert "not tried" in finding.message
    assert trials == []


def test_kvm_is_not_looked_at_if_it_is_not_wanted(node: Node) -> None:
    assert "not tried" in only(doctor.check_accelerator, settings(node, accelerator="tcg")).message


def test_no_space(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    finding = only(doctor.check_space, node)
    assert finding.status == "problem"
    assert "has 1 MiB left, 64 MiB are needed" in finding.message


def test_no_directory_for_evidence(node: Node) -> None:
    places = dataclasses.replace(node.places, evidence_dir="/nonexistent")
    assert only(doctor.check_space, dataclasses.replace(node, places=places)).status == "problem"


def test_a_directory_that_cannot_be_written(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    [problem, warning] = doctor.check_space(node)
    assert (problem.status, warning.status) == ("problem", "warning")
    assert "cannot be written" in problem.message
    assert "trial of KVM is repeated" in warning.message


def test_no_memory(node: Node) -> None:
    finding = only(doctor.check_memory, settings(node, memory=65536))
    assert finding.status == "problem"
    assert "1953 MiB are available, a deployment needs 65728 MiB" in finding.message


def test_memory_that_cannot_be_told(node: Node) -> None:
    Path(node.places.meminfo).write_text("")
    [finding] = doctor.check_memory(node)
    assert finding.status == "warning"


@pytest.mark.requires("root")
def test_variants(node: Node, tmp_path: Path) -> None:
    """R-SCR-3: each file is read as it would be for an instance."""
    variants = tmp_path / "variants"
    variants.mkdir()
    (variants / "default.conf").write_text("")
    (variants / "bad.conf").write_text("HELPER_MEMORY=1\n")
    (variants / "-odd.conf").write_text("")
    (variants / "README").write_text("not one")
    [warning, problem, fine] = doctor.check_variants(node)
    assert (warning.status, problem.status, fine.status) == ("warning", "problem", "fine")
    assert "bad.conf:1: HELPER_MEMORY" in problem.message
    assert fine.message == f"1 in {variants}"


def test_no_variants(node: Node) -> None:
    assert "only Ganeti needs" in only(doctor.check_variants, node).message


def test_user_ids_that_somebody_has(node: Node) -> None:
    """D-7"""
    somebody = next(entry for entry in pwd.getpwall() if entry.pw_uid >= 1)
    clash = only(doctor.check_accounts, settings(node, uid_range=(somebody.pw_uid, somebody.pw_uid)))
    assert clash.status == "problem"
    assert f"overlaps with {somebody.pw_name}" in clash.message


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("me:2100065535:1", "problem"),
        ("me:2100065536:9", "fine"),
        ("me:1:2100000000", "problem"),
        ("x", "fine"),
    ],
)
def test_user_ids_of_containers(line: str, status: str, node: Node) -> None:
    """D-7"""
    Path(node.places.subuid).write_text(f"# comment\n{line}\n")
    assert only(doctor.check_accounts, node).status == status


def test_one_account_for_all(node: Node) -> None:
    """D-7"""
    finding = only(doctor.check_accounts, settings(node, user="nobody"))
    assert finding.status == "warning"
    assert "HELPER_USER=nobody" in finding.message


def test_a_kernel_that_cannot_keep_curl_from_files(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-FETCH-4: that prevents no deployment."""
    monkeypatch.setattr(confined, "landlock_version", lambda: 0)
    finding = only(doctor.check_fetching, node)
    assert finding.status == "warning"
    assert "no Landlock" in finding.message


@pytest.fixture
def config_file(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> ConfigFile:
    kvm(monkeypatch, KvmAccess(allowed=False, reason="there is no /dev/kvm"))
    path = tmp_path / "conf"
    path.write_text(
        f"HELPER_DIR={node.settings.directory}\nVARIANTS_DIR=/nonexistent\nQEMU=qemu-system-x86_64\n"
    )
    return ConfigFile(path=str(path), owners=(os.geteuid(),))


def test_a_broken_configuration(config_file: ConfigFile, places: Places) -> None:
    """The other checks go on with defaults."""
    with open(config_file.path, "a", encoding="ascii") as file:
        file.write("HELPER_MEMORY=1\nif true; then\n")
    findings = examine([config_file], Overrides(), places=places)
    broken = [finding for finding in findings if finding.check == "configuration"]
    assert [finding.status for finding in broken] == ["problem", "problem"]
    assert f"{config_file.path}:4: HELPER_MEMORY" in broken[0].message
    assert {finding.check for finding in findings} >= {"qemu", "memory", "accounts"}


def test_an_odd_configuration(config_file: ConfigFile, places: Places) -> None:
    with open(config_file.path, "a", encoding="ascii") as file:
        file.write("HELPER_MEMROY=1\n")
    first = examine([config_file], Overrides(), places=places)[0]
    assert (first.check, first.status) == ("configuration", "warning")


def test_the_command(
    config_file: ConfigFile,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """D-32: status 0, for people and for programs."""
    monkeypatch.setattr(doctor, "Places", lambda: places)
    assert main(["doctor", "--config", config_file.path]) == 0
    text = capsys.readouterr().out
    assert "warning  accelerator: no KVM: there is no /dev/kvm\n           -> enable virtualisation" in text
    assert text.endswith("this machine can deploy\n")
    assert main(["doctor", "--config", config_file.path, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == 0
    assert {"check", "status", "message", "advice"} == set(document["findings"][0])


def test_the_command_on_a_broken_node(
    config_file: ConfigFile,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """D-32: status 5 if something prevents deployments."""
    monkeypatch.setattr(doctor, "Places", lambda: places)
    os.unlink(os.path.join(places.search_path, "setpriv"))
    assert main(["doctor", "--config", config_file.path]) == 5
    text = capsys.readouterr().out
    assert "PROBLEM  programs: setpriv is not installed\n           -> apt-get install util-linux" in text
    assert text.endswith("this machine cannot deploy\n")
    assert main(["doctor", "--config", config_file.path, "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["exit_code"] == 5
