"""Golden documents: a change of the contract shows here and asks for a new version.

``SNF_IMAGE_WRITE_GOLDEN=1 pytest contract/tests`` writes them anew; then raise ``CONTRACT_VERSION`` unless
the change only adds a field with a default.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from snf_image_contract import codec, events, job
from snf_image_contract.names import ImageFormat, OsFamily, TaskName
from snf_image_contract.secret import Secret

GOLDEN = Path(__file__).parent / "golden"

FULL_JOB = job.Job(
    instance="web1.example.org",
    clock=1790000000.5,
    entropy=Secret("c2VlZA=="),
    image_format=ImageFormat.DISKDUMP,
    disks=(job.JobDisk(index=0), job.JobDisk(index=1, read_only=True)),
    os_family=OsFamily.LINUX,
    root_partition=1,
    skipped=(job.SkippedTask(task=TaskName.ADD_SWAP, reason="excluded by EXCLUDE_TASK_AddSwap"),),
    environment=(job.Variable(name="HOSTNAME", value=Secret("web1.example.org")),),
    operator_tasks=(job.OperatorTask(file="55InstallAgent"), job.OperatorTask(file="90Last", skipped="no")),
    fix_partition_table=job.FixPartitionTable(swap=job.SwapPartition(number=2, megabytes=256)),
    initialize_datasource=job.InitializeDatasource(user_data=Secret("I2Nsb3VkLWNvbmZpZwo="), instance_id="i"),
    add_swap=job.AddSwap(swap=job.SwapDisk(index=1)),
    assign_hostname=job.AssignHostname(name="web1.example.org"),
    change_password=job.ChangePassword(
        users=("root",),
        password=Secret("p ü"),
        made_hashes=(Secret("$6$salt$hash"),),
        keys=("ssh-ed25519 AAAA me",),
        method="sha512",
    ),
    configure_network=job.ConfigureNetwork(
        nics=(
            job.Nic(
                mac="aa:00:00:12:34:56",
                ipv4="static",
                address="192.0.2.10/24",
                gateway="192.0.2.1",
                ipv6="slaac",
            ),
        ),
        dns_servers=("192.0.2.53",),
    ),
    delete_ssh_keys=job.DeleteSSHKeys(host_keys_follow=True),
    enforce_personality=job.EnforcePersonality(
        files=(job.PersonalityFile(path="/etc/motd", contents=Secret("aGkK"), owner="root", mode=0o644),)
    ),
    run_custom_task=job.RunCustomTask(program=Secret("IyEvYmluL3NoCg==")),
)

HOST_KEYS = job.HostKeys(
    keys=(job.HostKey(type="ed25519", private=Secret("PRIVATE\nKEY"), public="ssh-ed25519 AAAA r@web1"),)
)

TASK = TaskName.ADD_SWAP
ALL_EVENTS: tuple[events.Event, ...] = (
    events.Hello(contract_version=job.CONTRACT_VERSION, build="b"),
    events.Awake(),
    events.JobAccepted(),
    events.TaskStarted(task=TASK),
    events.TaskEnded(task=TASK, seconds=0.25, skipped="because"),
    events.OperatorTaskStarted(task="InstallAgent"),
    events.OperatorTaskEnded(task="InstallAgent", seconds=0.5),
    events.Warned(message="careful", task=TASK),
    events.Changed(task=TASK, changes=(events.Change(path="/etc/fstab", change="modified", detail="d"),)),
    events.Detected(os_family=OsFamily.LINUX, root_partition=1, distribution="debian", version="12"),
    events.FoundPartition(number=1, start=2048, sectors=4096, type="0x83", filesystem="ext4", role="root"),
    events.FoundSystem(partition_table="mbr", os_family=OsFamily.LINUX, root_partition=1, title="Debian"),
    events.FoundUsers(users=("root",), more=2),
    events.WouldRun(task=TASK, skipped=None),
    events.OperatorTaskWouldRun(task="InstallAgent", skipped="why"),
    events.Failed(blame="image", messages=("it is bad",), task=TASK, stderr=("line",)),
    events.Succeeded(),
)


def golden(name: str, text: str) -> str:
    path = GOLDEN / name
    if os.environ.get("SNF_IMAGE_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    return path.read_text()


def test_the_job_of_this_version_is_as_committed() -> None:
    """D-21: job.json is the contract's Job."""
    text = codec.dumps(FULL_JOB, indent=2) + "\n"
    assert text == golden(f"job-v{job.CONTRACT_VERSION}.json", text)
    assert job.load_job(text.encode()) == FULL_JOB


def test_the_events_of_this_version_are_as_committed() -> None:
    """R-MON-8: one bounded JSON object a line."""
    lines = b"".join(events.encode_event(event, seq) for seq, event in enumerate(ALL_EVENTS)).decode()
    assert lines == golden(f"events-v{job.CONTRACT_VERSION}.jsonl", lines)
    decoded = [events.decode_event(line, seq) for seq, line in enumerate(lines.encode().splitlines())]
    assert tuple(decoded) == ALL_EVENTS


def test_host_keys_travel_as_one_line() -> None:
    """R-TASK-SSH-3: keys that follow the job."""
    line = job.dump_host_keys(HOST_KEYS)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.decode() == golden(f"host-keys-v{job.CONTRACT_VERSION}.jsonl", line.decode())
    assert job.load_host_keys(line) == HOST_KEYS
    with pytest.raises(codec.ContractError):
        job.load_host_keys(b'{"keys": 1}')


def test_every_kind_of_event_is_in_the_golden_file() -> None:
    assert {type(event) for event in ALL_EVENTS} == set(events.EVENT_TYPES.values())


def test_a_job_of_another_version_is_refused_by_number() -> None:
    other = json.loads(job.dump_job(FULL_JOB)) | {"contract_version": 99, "field_from_the_future": 1}
    said = f"contract version 99, this helper speaks {job.CONTRACT_VERSION}"
    with pytest.raises(codec.ContractError, match=said):
        job.load_job(json.dumps(other).encode())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"seq": 1, "kind": "succeeded"}\n', "number 0 was due, got 1"),
        (b'{"kind": "succeeded"}\n', "number 0 was due, got None"),
        (b'{"seq": true, "kind": "succeeded"}\n', "number 0 was due"),
        (b'{"seq": 0, "kind": "boo"}\n', "unknown kind 'boo'"),
        (b'{"seq": 0, "kind": "task-start", "task": "Nonsense"}\n', "task-start.task: must be one of"),
        (b'{"seq": 0, "kind": "succeeded", "x": 1}\n', "unknown field"),
        (b"[]\n", "expected object"),
        (b"garbage\n", "not valid JSON"),
        (b" " * 65536 + b"{}\n", "at most 65536 allowed"),
    ],
)
def test_a_line_that_is_not_of_the_contract_is_refused(line: bytes, complaint: str) -> None:
    """D-6: a line too long, malformed or out of order is refused."""
    with pytest.raises(codec.ContractError, match=complaint):
        events.decode_event(line, 0)


def test_long_lists_of_changes_are_split_over_events() -> None:
    """D-6: long file lists are split; nothing is lost and each line fits."""
    changes = tuple(events.Change(path=f"/{'ü' * 700}/{n}", change="created") for n in range(100))
    parts = list(events.split_changes(TASK, changes))
    assert len(parts) > 1
    assert tuple(change for part in parts for change in part.changes) == changes
    assert all(len(events.encode_event(part, 10**6)) <= events.MAX_LINE for part in parts)


def test_an_event_that_does_not_fit_is_not_sent() -> None:
    with pytest.raises(codec.ContractError, match="at most 65536"):
        events.encode_event(events.Warned(message="x" * 70_000), 0)


def test_tasks_run_in_the_order_of_their_numbers_and_names() -> None:
    """R-TASK-1: by number, then by name in byte order."""
    assert list(TaskName) == sorted(TaskName, key=lambda task: (task.number, task.value))


def test_attributes_of_tasks() -> None:
    """R-TASK-3: the letters of the table."""
    assert not TaskName.MOUNT_IMAGE.excludable
    assert [task for task in TaskName if task.resizes] == [
        TaskName.FILESYSTEM_RESIZE_UNMOUNTED,
        TaskName.FILESYSTEM_RESIZE_MOUNTED,
        TaskName.FILESYSTEM_RESIZE_AFTER_UMOUNT,
    ]
    assert all(task.mounted == (30 <= task.number <= 80) for task in TaskName)
    assert not TaskName.UMOUNT_IMAGE.replaceable
    assert TaskName.INSTALL_UNATTEND.left_to_cloud_init


def test_what_a_format_implies() -> None:
    """R-PROP-8: extdump is Linux, ntfsdump Windows, both with the root on partition 1."""
    assert ImageFormat.EXTDUMP.implied_family is OsFamily.LINUX
    assert ImageFormat.NTFSDUMP.implied_family is OsFamily.WINDOWS
    assert ImageFormat.NTFSDUMP.implied_root_partition == 1
    assert ImageFormat.DISKDUMP.implied_root_partition is None
