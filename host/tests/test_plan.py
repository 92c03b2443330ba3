"""The plan: from what was asked to a deployment."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from snf_image_contract.job import (
    CONTRACT_VERSION,
    Job,
    OperatorTask,
    SkippedTask,
    SwapDisk,
    SwapPartition,
    dump_job,
    load_job,
)
from snf_image_contract.names import ImageFormat, OsFamily, TaskName
from snf_image_contract.secret import MARKER, Secret
from snf_image_host.configuration import NodeConfig
from snf_image_host.deployment import Deployment, TargetDisk
from snf_image_host.errors import UserError
from snf_image_host.plan import plan
from snf_image_host.planning.request import AskedImage, AskedNic, Overrides, Request

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x01k").decode()
SCRIPT = base64.b64encode(b"#!/bin/sh\ntrue\n").decode()
NIC = AskedNic(mac="aa:00:00:12:34:56", ip="192.0.2.10", subnet="192.0.2.0/24", name="web", link="br0")


def disks(count: int = 1, **changes: Any) -> tuple[TargetDisk, ...]:
    return tuple(
        TargetDisk(index=index, path=f"/disks/web{index}.raw", **(changes if index == count - 1 else {}))
        for index in range(count)
    )


def request(
    properties: dict[str, Any] | None = None, parameters: dict[str, str] | None = None, **changes: Any
) -> Request:
    texts = dict(parameters or {})
    if properties is not None:
        texts["inst_properties"] = json.dumps(properties)
    asked: dict[str, Any] = {
        "action": "deploy",
        "image": AskedImage(path="/images/debian.raw", shown="debian.raw"),
        "disks": disks(),
        "hostname": "web1.example.org",
        "nics": (),
        "parameters": {name: Secret(text) for name, text in texts.items()},
    }
    return Request(**(asked | changes))


def decide(
    properties: dict[str, Any] | None = None, config: NodeConfig | None = None, **changes: Any
) -> Deployment:
    return plan(request(properties, **changes), config or NodeConfig.defaults(), clock=1790000000.0)


def job(properties: dict[str, Any] | None = None, **changes: Any) -> Job:
    return decide(properties, **changes).job


def refused(properties: dict[str, Any] | None = None, **changes: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        decide(properties, **changes)
    return caught.value.messages


def not_asked(properties: dict[str, Any], **changes: Any) -> dict[TaskName, str]:
    reasons = {entry.task: entry.reason for entry in job(properties, **changes).skipped}
    return {task: reason for task, reason in reasons.items() if reason.startswith("not asked: ")}


def skipped(properties: dict[str, Any], **changes: Any) -> dict[TaskName, str]:
    reasons = {entry.task: entry.reason for entry in job(properties, **changes).skipped}
    return {task: reason for task, reason in reasons.items() if not reason.startswith("not asked: ")}


def environment(properties: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    return {variable.name: variable.value.reveal() for variable in job(properties, **changes).environment}


def test_a_plain_deployment() -> None:
    deployment = decide()
    assert deployment.instance == "web1.example.org"
    assert deployment.copy
    assert deployment.run_helper
    assert deployment.want_host_keys == "root@web1"
    assert deployment.warnings == ()
    assert deployment.job.clock == 1790000000.0
    assert deployment.job.image_format is ImageFormat.DISKDUMP
    assert deployment.job.assign_hostname.name == "web1.example.org"
    assert deployment.job.environment == ()
    assert (deployment.job.os_family, deployment.job.root_partition) == (None, None)


def test_the_job_passes_the_contract() -> None:
    decided = job(
        {"SWAP": "2:256", "USERS": "root a", "CUSTOM_TASK": SCRIPT, "NOTE": "é\n"},
        parameters={"img_passwd": "pä"},
        nics=(NIC,),
    )
    assert load_job(dump_job(decided)) == decided


def test_overrides_replace_the_configuration() -> None:
    overrides = Overrides(
        helper_dir="/other", accelerator="kvm", memory=1024, cpus=4, soft_timeout=0.0, warm=False, debug=True
    )
    helper = decide(config=NodeConfig.defaults(helper_accel="tcg"), overrides=overrides).helper
    assert (helper.directory, helper.memory, helper.cpus, helper.accelerator) == ("/other", 1024, 4, "kvm")
    assert (helper.soft_timeout, helper.warm, helper.debug) == (0.0, False, True)


def test_defaults_of_the_configuration_are_replaced_by_what_is_asked() -> None:
    """R-OSP-1"""
    config = NodeConfig.defaults(os_parameters={"img_passwd": Secret("old"), "img_format": Secret("extdump")})
    decided = decide(config=config, parameters={"img_passwd": "new"}).job
    assert decided.change_password.password == Secret("new")
    assert decided.image_format is ImageFormat.EXTDUMP


def test_everything_wrong_is_told_at_once() -> None:
    """R-OSP-16"""
    messages = refused(
        {"OSFAMILY": "linus", "SWAP": "b"},
        parameters={"img_passwd": ""},
        hostname="a b",
        nics=(AskedNic(mac="x"),),
    )
    assert len(messages) == 5


@pytest.mark.parametrize("name", ["web1\n", "web\n1", "a b", "", "-x"])
def test_hostnames_that_are_refused(name: str) -> None:
    """R-TASK-HOST-1"""
    [message] = refused(hostname=name)
    assert message.startswith("hostname: must be ")
    assert message.isprintable()


def test_an_underscore_is_tolerated() -> None:
    """D-24"""
    deployment = decide(hostname="web_1")
    assert deployment.job.assign_hostname.name == "web_1"
    assert "'_'" in deployment.warnings[0]


def test_without_a_hostname_the_image_keeps_its_own() -> None:
    deployment = decide(hostname=None)
    assert deployment.instance == "web0"
    assert deployment.want_host_keys == "root@localhost"
    assert TaskName.ASSIGN_HOSTNAME in not_asked({}, hostname=None)
    assert TaskName.ASSIGN_HOSTNAME not in not_asked({})


def test_a_network_that_was_not_spoken_of_stays() -> None:
    """R-NET-7: unlike an instance that has no interface."""
    assert TaskName.CONFIGURE_NETWORK in not_asked({}, nics=None)
    assert TaskName.CONFIGURE_NETWORK not in not_asked({}, nics=())


def test_tasks_without_their_input_are_not_asked() -> None:
    """R-TASK-4, D-31: said by the host, so that an inspection says it too."""
    optional = {
        TaskName.INITIALIZE_DATASOURCE,
        TaskName.ADD_SWAP,
        TaskName.CHANGE_PASSWORD,
        TaskName.ENFORCE_PERSONALITY,
        TaskName.RUN_CUSTOM_TASK,
    }
    assert set(not_asked({})) == optional
    everything = {"CLOUD_INIT": "yes", "SWAP": "2:256", "CUSTOM_TASK": SCRIPT}
    parameters = {"img_passwd": "p", "img_personality": '[{"path": "/a", "contents": "aGk="}]'}
    assert not_asked(everything, parameters=parameters) == {}
    assert TaskName.CHANGE_PASSWORD not in not_asked({}, parameters={"img_passwd_hash": "$6$a$b"})
    assert TaskName.CHANGE_PASSWORD not in not_asked({}, parameters={"auth_keys": KEY})
    assert skipped({"EXCLUDE_TASK_AddSwap": "yes"})


def test_programs_of_the_image_may_do_what_was_not_asked() -> None:
    """R-TASK-8"""
    allowed = NodeConfig.defaults(allow_task_overwriting=True)
    assert not_asked({"ALLOW_MOUNTED_TASK_OVERWRITING": "yes"}, config=allowed) == {}


def test_swap() -> None:
    partition = job({"SWAP": "2:256"})
    assert partition.fix_partition_table.swap == SwapPartition(number=2, megabytes=256)
    assert partition.add_swap.swap == partition.fix_partition_table.swap
    disk = job({"SWAP": "b"}, disks=disks(2))
    assert disk.fix_partition_table.swap is None
    assert disk.add_swap.swap == SwapDisk(index=1)


def test_swap_on_a_disk_that_will_not_do() -> None:
    """R-TASK-SWAP-2"""
    assert refused({"SWAP": "a"}) == ("property SWAP: disk a holds the image",)
    assert refused({"SWAP": "c"}, disks=disks(2)) == (
        "property SWAP: there is no disk c, the number of disks is 2",
    )
    assert refused({"SWAP": "b"}, disks=disks(2, read_only=True)) == ("property SWAP: disk b is read-only",)


def test_disks() -> None:
    """R-DST-2"""
    assert refused(disks=()) == ("there is no disk",)
    assert "read-only" in refused(disks=disks(read_only=True))[0]
    assert [disk.read_only for disk in job(disks=disks(2, read_only=True)).disks] == [False, True]


def test_a_disk_that_is_something_else_too(tmp_path: Path) -> None:
    """It would be overwritten while it is read; links do not hide it."""
    image = tmp_path / "image.raw"
    image.write_bytes(b"")
    (tmp_path / "hard.raw").hardlink_to(image)
    (tmp_path / "soft.raw").symlink_to(image)
    asked = AskedImage(path=str(image), shown="image.raw")
    for name in ("image.raw", "hard.raw", "soft.raw"):
        target = TargetDisk(index=0, path=str(tmp_path / name))
        assert refused(image=asked, disks=(target,)) == (f"disk 0 ({target.path}) is the same as the image",)
        assert decide(image=asked, disks=(target,), action="inspect").disks == (target,)
    twice = (TargetDisk(index=0, path="/new/a"), TargetDisk(index=1, path="/new/../new/a"))
    assert refused(disks=twice) == ("disk 1 (/new/../new/a) is the same as disk 0",)


def test_the_receipt_does_not_replace_what_was_deployed(tmp_path: Path) -> None:
    image, link = tmp_path / "image", tmp_path / "receipt"
    image.write_bytes(b"x")
    os.link(image, link)
    asked = AskedImage(path=str(image), shown="image")
    assert refused(image=asked, report=str(link)) == (f"the receipt ({link}) would replace the image",)
    assert refused(report="/disks/../disks/web0.raw") == (
        "the receipt (/disks/../disks/web0.raw) would replace disk 0",
    )
    assert decide(image=asked, report=str(tmp_path / "new")).report == str(tmp_path / "new")


def test_exclusion_of_one_task() -> None:
    """R-TASK-3"""
    assert skipped({"EXCLUDE_TASK_AddSwap": "yes", "EXCLUDE_TASK_ChangePassword": "no"}) == {
        TaskName.ADD_SWAP: "task AddSwap is excluded by property EXCLUDE_TASK_AddSwap"
    }


def test_exclusion_of_groups() -> None:
    """R-TASK-3"""
    resizes = skipped({"EXCLUDE_FilesystemResize_TASKS": "yes"})
    assert set(resizes) == {task for task in TaskName if task.resizes}
    mounted = skipped({"EXCLUDE_MOUNTED_TASKS": "yes"})
    assert set(mounted) == {task for task in TaskName if 30 <= task.number <= 80}
    cloud = skipped({"CLOUD_INIT": "yes"})
    assert set(cloud) == {task for task in TaskName if task.left_to_cloud_init}


def test_the_first_reason_in_order_is_given() -> None:
    """R-TASK-3: E, F, M, C."""
    task = TaskName.FILESYSTEM_RESIZE_MOUNTED
    properties = {"CLOUD_INIT": "yes"}
    for name, word in [
        ("CLOUD_INIT", "CLOUD_INIT"),
        ("EXCLUDE_MOUNTED_TASKS", "EXCLUDE_MOUNTED_TASKS"),
        ("EXCLUDE_FILESYSTEMRESIZE_TASKS", "EXCLUDE_FilesystemResize_TASKS"),
        ("EXCLUDE_TASK_FILESYSTEMRESIZEMOUNTED", "EXCLUDE_TASK_FilesystemResizeMounted"),
    ]:
        properties[name] = "yes"
        assert word in skipped(properties)[task]


def test_exclusion_changes_nothing_else() -> None:
    """R-TASK-3"""
    plain = job({"SWAP": "2:256"})
    without = job({"SWAP": "2:256", "EXCLUDE_TASK_AddSwap": "yes", "EXCLUDE_TASK_FixPartitionTable": "yes"})
    assert dataclasses.replace(without, skipped=plain.skipped) == plain


def test_no_task_at_all() -> None:
    """R-HLP-15: the VM is not started; one warning."""
    deployment = decide({"EXCLUDE_ALL_TASKS": "yes"})
    assert deployment.copy
    assert not deployment.run_helper
    assert deployment.want_host_keys is None
    assert deployment.warnings == ("no task is run, the image is only copied (property EXCLUDE_ALL_TASKS)",)


def test_an_inspection_always_looks() -> None:
    """D-28: detection runs whatever is excluded, and nothing is written."""
    deployment = decide({"EXCLUDE_ALL_TASKS": "yes"}, action="inspect", disks=disks(read_only=True))
    assert deployment.run_helper
    assert not deployment.copy
    assert deployment.job.action == "inspect"
    assert {entry.task for entry in deployment.job.skipped} == set(TaskName)
    assert decide(action="inspect").want_host_keys is None


def test_an_inspection_has_the_tasks_of_a_deployment() -> None:
    """D-28"""
    properties = {"SWAP": "b", "EXCLUDE_TASK_ChangePassword": "yes"}
    inspected = job(properties, action="inspect", disks=disks(read_only=True))
    deployed = job(properties, disks=disks(2))
    assert inspected.skipped == deployed.skipped


def test_without_a_copy() -> None:
    nothing = AskedImage(path=None, shown="null")
    customized = decide(action="customize", image=nothing)
    assert not customized.copy
    assert customized.run_helper
    assert not decide(image=nothing).copy
    assert "not null" in refused(image=nothing, parameters={"img_format": "extdump"})[0]


@pytest.mark.parametrize(
    ("properties", "comment"),
    [
        ({}, "root@web1"),
        ({"OSFAMILY": "linux"}, "root@web1"),
        ({"CLOUD_INIT": "yes"}, None),
        ({"EXCLUDE_TASK_DeleteSSHKeys": "yes"}, None),
        ({"EXCLUDE_MOUNTED_TASKS": "yes"}, None),
    ],
)
def test_ssh_host_keys_are_wanted_where_they_may_be_used(
    properties: dict[str, str], comment: str | None
) -> None:
    """R-TASK-SSH-2, R-TASK-SSH-4"""
    assert decide(properties).want_host_keys == comment


def test_cloud_init() -> None:
    """R-TASK-CI-4, T-100: the instance id differs from deployment to deployment."""
    parameters = {"cloud_userdata": "I2Nsb3Vk"}
    first = job({"CLOUD_INIT": "yes"}, parameters=parameters).initialize_datasource
    second = job({"CLOUD_INIT": "yes"}, parameters=parameters).initialize_datasource
    assert first.user_data == Secret("I2Nsb3Vk")
    assert first.instance_id.startswith("web1.example.org-")
    assert first.instance_id != second.instance_id
    assert job({}).initialize_datasource.instance_id == ""


def test_the_family_of_a_file_system_dump_reaches_the_helper() -> None:
    """R-PROP-8, T-22"""
    decided = job(parameters={"img_format": "extdump"})
    assert (decided.os_family, decided.root_partition) == (OsFamily.LINUX, 1)
    decided = job(parameters={"img_format": "ntfsdump"})
    assert (decided.os_family, decided.root_partition) == (OsFamily.WINDOWS, 1)
    legacy = {"img_format": "ntfsdump", "img_properties": '{"OSFAMILY": "windows-legacy"}'}
    assert job(parameters=legacy).os_family is OsFamily.WINDOWS_LEGACY


def test_passwords_and_keys() -> None:
    change = job(
        {"USERS": "root debian", "PASSWD_HASHING_METHOD": "sha512"}, parameters={"img_passwd": "p"}
    ).change_password
    assert change.users == ("root", "debian")
    assert change.password == Secret("p")
    assert change.password_hash is None
    assert change.method == "sha512"
    assert job().change_password.method is None
    assert job(parameters={"img_passwd_hash": "$6$a$b"}).change_password.password_hash == Secret("$6$a$b")


@pytest.mark.parametrize(
    ("properties", "backend"),
    [
        ({}, None),
        ({"NET_BACKEND": "auto"}, None),
        ({"NET_BACKEND": "networkd"}, "networkd"),
        ({"NM_NETWORKING": "yes"}, "nm"),
        ({"NM_NETWORKING": "yes", "NET_BACKEND": "networkd"}, "nm"),
    ],
)
def test_the_network_back_end(properties: dict[str, str], backend: str | None) -> None:
    """R-NET-11"""
    assert job(properties).configure_network.backend == backend


def test_name_servers() -> None:
    """R-NET-6"""
    network = job(config=NodeConfig.defaults(dns_servers=("192.0.2.53",), dns_search=("example.org",)))
    assert network.configure_network.dns_servers == ("192.0.2.53",)
    assert network.configure_network.dns_search == ("example.org",)


def test_other_properties_reach_their_tasks() -> None:
    decided = job({"DO_SYNC": "yes", "MACHINE_ID": "empty", "CUSTOM_TASK": SCRIPT})
    assert decided.filesystem_resize_unmounted.sync is True
    assert decided.change_machine_id.mode == "empty"
    assert decided.run_custom_task.program == Secret(SCRIPT)


def test_the_environment_is_for_custom_tasks_only() -> None:
    """R-SEC-1: nobody else gets the password twice."""
    assert environment(parameters={"img_passwd": "p"}) == {}
    assert environment({"CUSTOM_TASK": SCRIPT, "EXCLUDE_TASK_RunCustomTask": "yes"}) == {}
    allowed = NodeConfig.defaults(allow_task_overwriting=True)
    assert environment({"ALLOW_MOUNTED_TASK_OVERWRITING": "yes"}, config=allowed) != {}


def test_the_environment_of_custom_tasks() -> None:
    """R-PROP-6, D-34: what is not set is absent."""
    variables = environment(
        {"CUSTOM_TASK": SCRIPT, "kernel": "6.1", "USERS": "a b"},
        parameters={"img_passwd": "p", "img_format": "diskdump", "img_properties": '{"KERNEL": "5"}'},
        nics=(NIC,),
    )
    assert variables["PASSWD"] == variables["PASSWORD"] == "p"
    assert variables["HOSTNAME"] == "web1.example.org"
    assert variables["TYPE"] == "diskdump"
    assert variables["PROPERTY_KERNEL"] == "6.1"
    assert variables["PROPERTY_CUSTOM_TASK"] == SCRIPT
    assert json.loads(variables["PROPERTIES"]) == {"KERNEL": "5"}
    assert json.loads(variables["INST_PROPERTIES"])["kernel"] == "6.1"
    assert variables["NIC_COUNT"] == "1"
    assert variables["NIC_0_MAC"] == "aa:00:00:12:34:56"
    assert variables["NIC_0_NETWORK_SUBNET"] == "192.0.2.0/24"
    assert variables["NIC_0_LINK"] == "br0"
    assert variables["DEFAULT_NIC_CONFIG"] == "dhcp"
    for absent in ("PASSWD_HASH", "AUTH_KEYS", "PERSONALITY", "CLOUD_INIT_DEBUG", "NIC_0_NETWORK_GATEWAY6"):
        assert absent not in variables


def helper_with(tmp_path: Path, *files: str) -> NodeConfig:
    """A node whose helper image has these tasks of the operator."""
    empty = {"size": 0, "sha256": ""}
    document = {
        "format": 1, "build": "b", "contract_version": CONTRACT_VERSION, "cmdline": "", "packages": [],
        "files": dict.fromkeys(("kernel", "initrd", "root.img"), empty), "tasks": list(files),
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    return NodeConfig.defaults(helper_dir=str(tmp_path))


def test_the_tasks_of_the_operator_are_part_of_the_job(tmp_path: Path) -> None:
    """D-34: with their environment, as of a custom task."""
    config = helper_with(tmp_path, "05First", "55InstallAgent")
    decided = job(parameters={"img_passwd": "p"}, config=config)
    assert decided.operator_tasks == (OperatorTask(file="05First"), OperatorTask(file="55InstallAgent"))
    assert {variable.name: variable.value.reveal() for variable in decided.environment}["PASSWORD"] == "p"
    assert load_job(dump_job(decided)) == decided


def test_an_operators_task_is_excluded_by_its_name(tmp_path: Path) -> None:
    """R-TASK-3, R-PROP-6: a known property, in any letter case; secrets are given to nobody then."""
    config = helper_with(tmp_path, "55InstallAgent")
    deployment = decide({"EXCLUDE_TASK_installagent": "yes"}, config=config)
    reason = "task InstallAgent is excluded by property EXCLUDE_TASK_InstallAgent"
    assert deployment.job.operator_tasks == (OperatorTask(file="55InstallAgent", skipped=reason),)
    assert deployment.job.environment == ()
    assert deployment.warnings == ()
    for no in ("no", "off"):
        [task] = job({"EXCLUDE_TASK_INSTALLAGENT": no}, config=config).operator_tasks
        assert task.skipped is None
    assert refused({"EXCLUDE_TASK_INSTALLAGENT": "perhaps"}, config=config)
    assert decide({"EXCLUDE_TASK_INSTALLAGNT": "yes"}, config=config).warnings == (
        "property EXCLUDE_TASK_INSTALLAGNT names no task, did you mean InstallAgent?",
    )


def test_an_operators_task_on_the_mounted_tree_is_skipped_without_a_tree(tmp_path: Path) -> None:
    """R-TASK-3: the others run."""
    config = helper_with(tmp_path, "05First", "55InstallAgent", "90Last")
    told = {
        task.file: task.skipped
        for task in job({"EXCLUDE_MOUNTED_TASKS": "yes"}, config=config).operator_tasks
    }
    assert told == {
        "05First": None,
        "55InstallAgent": "task InstallAgent is excluded by property EXCLUDE_MOUNTED_TASKS",
        "90Last": None,
    }


@pytest.mark.parametrize(
    ("properties", "changes"),
    [
        ({}, {"action": "customize", "only": frozenset({TaskName.ASSIGN_HOSTNAME})}),
        ({"EXCLUDE_ALL_TASKS": "yes"}, {}),
    ],
)
def test_no_task_of_the_operator_runs_where_the_tasks_do_not(
    properties: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    """D-34: not for a script that does one thing only."""
    decided = job(properties, config=helper_with(tmp_path, "55InstallAgent"), **changes)
    assert (decided.operator_tasks, decided.environment) == ((), ())


def test_an_inspection_lists_tasks_of_the_operator(tmp_path: Path) -> None:
    """D-28, D-34: as a deployment would run or skip them, and without what only a running one needs."""
    config = helper_with(tmp_path, "55InstallAgent")
    for properties in ({}, {"EXCLUDE_TASK_InstallAgent": "yes"}):
        deployed = job(properties, config=config)
        decided = job(properties, config=config, action="inspect")
        assert decided.operator_tasks == deployed.operator_tasks != ()
        assert decided.environment == ()


def test_nothing_shows_a_secret() -> None:
    """R-SEC-1"""
    deployment = decide(
        {"CUSTOM_TASK": SCRIPT, "NOTE": "x"},
        parameters={"img_passwd": "hunter2", "img_personality": '[{"path": "/a", "contents": "c2VjcmV0"}]'},
    )
    text = repr(deployment)
    assert MARKER in text
    for secret in ("hunter2", "c2VjcmV0", SCRIPT):
        assert secret not in text


def test_unknown_properties_are_for_the_verbose_log() -> None:
    """R-PROP-6"""
    deployment = decide({"KERNEL": "6.1"})
    assert deployment.warnings == ()
    assert deployment.notes == ("property KERNEL is not known",)


def test_warnings_of_the_configuration_come_along() -> None:
    assert decide(config=NodeConfig.defaults(warnings=("x is odd",))).warnings == ("x is odd",)


def test_a_job_that_is_too_large() -> None:
    big = base64.b64encode(b"x" * 30_000_000).decode()
    files = json.dumps([{"path": "/a", "contents": big}])
    config = NodeConfig.defaults(personality_max_size=32 * 1024 * 1024)
    [message] = refused({"CUSTOM_TASK": SCRIPT}, parameters={"img_personality": files}, config=config)
    assert "67108864 bytes together" in message


def test_directories_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """D-8"""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    helper = decide().helper
    assert (helper.state_dir, helper.runtime_dir) == ("/home/me/.cache/snf-image", "/tmp")
    assert decide().serving.runtime_dir == "/tmp/snf-image-1000"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert decide().helper.state_dir == "/cache/snf-image"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert decide().helper.state_dir == "/home/me/.cache/snf-image"


def test_skipped_tasks_are_in_the_order_of_tasks() -> None:
    entries = job({"EXCLUDE_ALL_TASKS": "yes"}, action="inspect").skipped
    assert [entry.task for entry in entries] == list(TaskName)
    assert all(isinstance(entry, SkippedTask) for entry in entries)


def test_the_default_answer_file_of_the_operator(tmp_path: Path) -> None:
    """R-TASK-UNA-5: as it is, for what may be a Windows; it is deprecated."""
    path = tmp_path / "unattend.xml"
    path.write_bytes(b"<unattend/>\xff")
    config = NodeConfig.defaults(unattend=str(path), fetch_max_param_size=12)
    deployment = decide(config=config)
    answer = deployment.job.install_unattend.answer_file
    assert answer is not None
    assert base64.b64decode(answer.reveal()) == b"<unattend/>\xff"
    assert "UNATTEND is deprecated; use the parameter os_answer_file" in deployment.warnings
    assert decide({"OSFAMILY": "linux"}, config=config).job.install_unattend.answer_file is None
    path.write_bytes(b"x" * 13)
    assert "larger than 12 bytes" in refused(config=config)[0]
    path.unlink()
    assert "No such file" in refused(config=config)[0]
