"""The receipt: its exact shape, nothing secret in it, whole or not there at all."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from snf_image_contract.events import (
    Change,
    Changed,
    Detected,
    Event,
    Hello,
    OperatorTaskEnded,
    Succeeded,
    TaskEnded,
    Warned,
)
from snf_image_contract.job import (
    AddSwap,
    AssignHostname,
    ChangePassword,
    EnforcePersonality,
    InitializeDatasource,
    InstallUnattend,
    Job,
    JobDisk,
    Nic,
    OperatorTask,
    PersonalityFile,
    RunCustomTask,
    SkippedTask,
    SwapDisk,
    SwapPartition,
)
from snf_image_contract.job import ConfigureNetwork as Network
from snf_image_contract.names import ImageFormat, OsFamily, TaskName
from snf_image_contract.secret import Secret
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import Deployment, HelperSettings, ImageSource, TargetDisk
from snf_image_host.errors import NodeError, UserError
from snf_image_host.helper_image import HelperImage
from snf_image_host.receipt import Receipt, build_receipt, check_receipt_path, write_receipt
from snf_image_host.vm import Outcome

SECRET = "c0rrect-h0rse"


def job(**changed: Any) -> Job:
    fields: dict[str, Any] = {
        "instance": "web1",
        "clock": 0.0,
        "disks": (JobDisk(index=0),),
        "assign_hostname": AssignHostname(name="web1.example.org"),
    }
    return Job(**fields | changed)


def deployment(**changed: Any) -> Deployment:
    fields: dict[str, Any] = {
        "instance": "web1",
        "image": ImageSource(path="/srv/x.raw", shown="x.raw", format=ImageFormat.DISKDUMP),
        "disks": (TargetDisk(index=0, path="/dev/vg/web1"),),
        "helper": HelperSettings(directory="/usr/lib/snf"),
        "job": job(),
    }
    return Deployment(**fields | changed)


def outcome(*events: Event) -> Outcome:
    return Outcome(
        accelerator="tcg",
        hello=Hello(contract_version=1, build="b" * 64),
        events=events,
        warnings_left_out=3,
        start_seconds=4.5,
        job_seconds=6.25,
        total_seconds=11.0,
    )


def helper() -> HelperImage:
    image = object.__new__(HelperImage)
    for field in dataclasses.fields(HelperImage):
        object.__setattr__(image, field.name, {"build": "b" * 64, "contract_version": 1}.get(field.name))
    return image


COPIED = CopyResult(
    image_bytes=1000,
    sha256="a" * 64,
    written=900,
    skipped=100,
    seconds=1.0,
    user_seconds=0.5,
    system_seconds=0.2,
    direct=True,
)
EVENTS: tuple[Event, ...] = (
    Hello(contract_version=1, build="b" * 64),
    Detected(os_family=OsFamily.LINUX, root_partition=1, distribution="debian", version="12"),
    Changed(task=TaskName.ADD_SWAP, changes=(Change(path="/etc/fstab", change="modified"),)),
    Changed(task=TaskName.ADD_SWAP, changes=(Change(path="disk 0", change="swap", detail="d"),)),
    Warned(message="odd", task=TaskName.ADD_SWAP),
    Warned(message="odder"),
    TaskEnded(task=TaskName.ADD_SWAP, seconds=0.5),
    TaskEnded(task=TaskName.CHANGE_PASSWORD, seconds=0, skipped="not asked for"),
    Succeeded(),
)


def receipt(asked: Deployment | None = None, *events: Event) -> Receipt:
    return build_receipt(
        asked or deployment(),
        copied=COPIED,
        outcome=outcome(*(events or EVENTS)),
        helper=helper(),
        seconds={"copy": 1.23456, "customize": 6.2},
        warnings=("the node is slow",),
    )


def test_the_document_is_exactly_this() -> None:
    """R-SEC-2, D-30: what was asked, done, changed, warned of, and how long it took."""
    document = json.loads(json.dumps(receipt().as_json()))
    assert isinstance(document.pop("version"), str)
    assert document == {
        "format": 1,
        "result": "success",
        "instance": "web1",
        "disk": "/dev/vg/web1",
        "image": {
            "name": "x.raw",
            "format": "diskdump",
            "copied_bytes": 1000,
            "sha256": "a" * 64,
            "source_sha256": None,
            "written_bytes": 900,
        },
        "helper": {
            "build": "b" * 64,
            "contract_version": 1,
            "accelerator": "tcg",
            "warm": False,
            "start_seconds": 4.5,
            "job_seconds": 6.25,
            "total_seconds": 11.0,
        },
        "system": {"os_family": "linux", "distribution": "debian", "version": "12", "root_partition": 1},
        "asked": {
            "hostname": "web1.example.org",
            "users": [],
            "password": False,
            "password_hash": False,
            "keys": 0,
            "swap": None,
            "cloud_init": False,
            "user_data": False,
            "machine_id": "auto",
            "nics": [],
            "files": [],
            "custom_task": False,
            "excluded": [],
        },
        "tasks": [
            {
                "name": "AddSwap",
                "seconds": 0.5,
                "skipped": None,
                "changes": [
                    {"path": "/etc/fstab", "change": "modified", "detail": ""},
                    {"path": "disk 0", "change": "swap", "detail": "d"},
                ],
            },
            {"name": "ChangePassword", "seconds": 0, "skipped": "not asked for", "changes": []},
        ],
        "complete": True,
        "warnings": ["the node is slow", "AddSwap: odd", "odder"],
        "warnings_left_out": 3,
        "seconds": {"copy": 1.235, "customize": 6.2},
    }


def test_without_copy_and_helper_the_fields_are_there_and_empty() -> None:
    """A reader finds every field, whatever was done."""
    built = build_receipt(deployment(), copied=None, outcome=None, helper=None, seconds={}, warnings=())
    assert built.as_json().keys() == receipt().as_json().keys()
    assert built.as_json()["helper"] is None
    assert built.as_json()["image"]["copied_bytes"] is None
    assert built.summary().startswith("web1: done, /dev/vg/web1 is ready\n")


def test_nothing_secret_is_in_it() -> None:
    """R-SEC-1, R-SEC-2: of every secret only that it was given."""
    secret = Secret(SECRET)
    asked = job(
        change_password=ChangePassword(
            users=("root",), password=secret, password_hash=secret, keys=(SECRET,)
        ),
        initialize_datasource=InitializeDatasource(user_data=secret),
        install_unattend=InstallUnattend(answer_file=secret, product_key=secret),
        enforce_personality=EnforcePersonality(files=(PersonalityFile(path="/etc/motd", contents=secret),)),
        run_custom_task=RunCustomTask(program=secret),
        configure_network=Network(nics=(Nic(mac="aa:00:00:00:00:01", ipv4="dhcp"),)),
        add_swap=AddSwap(swap=SwapPartition(number=2, megabytes=256)),
        skipped=(SkippedTask(task=TaskName.ADD_SWAP, reason="excluded"),),
    )
    built = receipt(deployment(job=asked))
    assert SECRET not in json.dumps(built.as_json()) + built.summary()
    told = built.as_json()["asked"]
    assert (told["password"], told["password_hash"], told["keys"], told["user_data"]) == (True, True, 1, True)
    assert told["files"] == ["/etc/motd"]
    assert told["custom_task"] is True
    assert told["excluded"] == ["AddSwap"]
    assert told["hostname"] == "web1.example.org"
    assert told["swap"] == {"kind": "partition", "number": 2, "megabytes": 256}
    assert told["nics"][0]["mac"] == "aa:00:00:00:00:01"


def test_a_hostname_that_was_not_asked_for_is_not_told() -> None:
    """R-SEC-2, D-31: the instance's name stands in for it only inside the job."""
    skipped = (SkippedTask(task=TaskName.ASSIGN_HOSTNAME, reason="not asked"),)
    built = receipt(deployment(job=job(skipped=skipped)))
    assert built.as_json()["asked"]["hostname"] is None


def test_swap_on_a_disk_is_told_apart() -> None:
    told = receipt(deployment(job=job(add_swap=AddSwap(swap=SwapDisk(index=1))))).as_json()["asked"]
    assert told["swap"] == {"kind": "disk", "index": 1}


@pytest.mark.parametrize(
    ("changed", "skipped", "complete"),
    [
        ({}, None, True),
        ({"run_custom_task": RunCustomTask(program=Secret("eA=="))}, None, False),
        ({"run_custom_task": RunCustomTask(program=Secret("eA=="))}, "excluded", True),
        ({"allow_task_overwriting": True}, None, False),
    ],
)
def test_it_is_incomplete_after_a_program_of_others(
    changed: dict[str, Any], skipped: str | None, *, complete: bool
) -> None:
    """D-30: what it changed is not known."""
    ran = TaskEnded(task=TaskName.RUN_CUSTOM_TASK, seconds=1, skipped=skipped)
    assert receipt(deployment(job=job(**changed)), ran).as_json()["complete"] is complete


def test_what_a_task_of_the_operator_changed_is_not_known() -> None:
    """D-30, D-34: null in its place, and `complete` is false; one that was skipped changed nothing."""
    ran = OperatorTaskEnded(task="InstallAgent", seconds=1)
    built = receipt(None, *EVENTS, ran).as_json()
    assert built["tasks"][-1] == {"name": "InstallAgent", "seconds": 1, "skipped": None, "changes": None}
    assert not built["complete"]
    assert "tasks: 2 done, 2 changes" in receipt(None, *EVENTS, ran).summary()
    asked = job(operator_tasks=(OperatorTask(file="55InstallAgent", skipped="excluded"),))
    built = receipt(
        deployment(job=asked), OperatorTaskEnded(task="InstallAgent", seconds=0, skipped="excluded")
    ).as_json()
    assert built["tasks"][0]["changes"] == []
    assert built["complete"]
    assert built["asked"]["excluded"] == ["InstallAgent"]


def test_the_summary_says_it_all_in_a_few_lines() -> None:
    assert receipt().summary().splitlines() == [
        "web1: done, /dev/vg/web1 is ready",
        f"image: x.raw, sha256 {'a' * 64}",
        "system: debian 12",
        "tasks: 1 done, 2 changes, 3 warnings",
        "time: copy 1.2 s, customize 6.2 s",
    ]


def test_it_is_written_for_its_owner_only_and_replaces_the_last(tmp_path: Path) -> None:
    """D-30: mode 0600 whatever the umask and the file before; nothing else is left in the directory."""
    path = tmp_path / "receipt.json"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        write_receipt(str(path), receipt())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["format"] == 1
    assert os.listdir(tmp_path) == ["receipt.json"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_it_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """D-30: the last receipt stays until the new one is whole; a failing disk says so."""
    path = tmp_path / "receipt.json"
    path.write_text("old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    expected = NodeError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_receipt(str(path), receipt())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["receipt.json"]


def test_a_place_for_it_is_looked_for_before_the_work(tmp_path: Path) -> None:
    """What could not be written after an hour of work is refused at once; devices are never replaced."""
    check_receipt_path(str(tmp_path / "new.json"))
    (tmp_path / "old.json").write_text("")
    check_receipt_path(str(tmp_path / "old.json"))
    with pytest.raises(UserError, match="is no directory"):
        check_receipt_path(str(tmp_path / "missing" / "receipt.json"))
    (tmp_path / "link").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/stdout", str(tmp_path), str(tmp_path / "link"), str(tmp_path / "pipe")):
        with pytest.raises(UserError, match="no regular file"):
            check_receipt_path(path)
