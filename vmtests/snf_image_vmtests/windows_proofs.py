"""Proofs about deployed Windows disks: what its first start will do, and that nothing else changed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from typing import Any

from snf_image_process import run
from snf_image_vmtests import manifest
from snf_image_vmtests.deployment import INJECTED, PRODUCT_KEY, Deployed
from snf_image_vmtests.inspection import InspectedDisk, PartitionSeen
from snf_image_vmtests.windows_scripts import batch_accounts, powershell_accounts, specialize

SCRIPTS = "/windows/snfscripts"
SETUP_COMPLETE = "/windows/setup/scripts/setupcomplete.cmd"
SYSTEM = "/windows/system32/config/system"
_CLUSTER = 4096
_MAX_FILE = 1024 * 1024
DEFAULT_USERS = ("Administrator",)
_SYSTEM = "010100000000000512000000"
_ADMINISTRATORS = "01020000000000052000000020020000"
_FULL_CONTROL = "ff011f00"


def _descriptor(flags: str) -> str:
    """sha256 of the descriptor that keeps out all but SYSTEM and administrators (MS-DTYP, 2.4.6)."""
    head = f"01000490 14000000 24000000 00000000 30000000 {_ADMINISTRATORS} {_SYSTEM}"
    system, administrators = (
        f"00{flags}{size}00 {_FULL_CONTROL} {who}" for size, who in (("14", _SYSTEM), ("18", _ADMINISTRATORS))
    )
    return hashlib.sha256(bytes.fromhex(f"{head} 02003400 02000000 {system} {administrators}")).hexdigest()


PRIVATE = {"file": _descriptor("00"), "directory": _descriptor("03")}
"""Security descriptors by kind of file; what a directory has is for everything in it, too."""


def check_ntfs(deployed: Deployed, disk: InspectedDisk, partition: PartitionSeen) -> None:
    """ntfs-3g's own check of every cluster; whether Windows will check it, as was asked (R-TASK-NTFS-1)."""
    disk.vm.succeed(f"ntfsresize --info --force --no-progress-bar {partition.device}")
    text = disk.vm.succeed(f"ntfsinfo --force --mft {partition.device}")
    (flags,) = re.findall(r"^\s*Volume Flags: *0x([0-9a-fA-F]+)", text, re.MULTILINE)
    grown = partition.number == deployed.fixture.last_partition().number and grows_offline(deployed)
    nocheck = "OFFLINE_NTFSRESIZE_NOCHECK=yes" in deployed.cell.properties
    assert (int(flags, 16) & 1 == 1) is (grown and not nocheck), f"volume flags {flags}"


def grows_offline(deployed: Deployed) -> bool:
    """Whether the helper itself grew the volume, and not Windows is to."""
    if not deployed.fixture.facts.grows:
        return False
    legacy = deployed.fixture.facts.family == "windows-legacy"
    return legacy or "OFFLINE_NTFSRESIZE=yes" in deployed.cell.properties


def ntfs_size(disk: InspectedDisk, partition: PartitionSeen) -> int:
    text = disk.vm.succeed(f"ntfsresize --info --force --no-progress-bar {partition.device}")
    (size,) = re.findall(r"^Current volume size: (\d+) bytes", text, re.MULTILINE)
    return int(size)


def prove_size(deployed: Deployed, partition: PartitionSeen, size: int, before: int) -> None:
    """A volume that the helper grew fills its partition; any other is as large as it was."""
    grown = partition.number == deployed.fixture.last_partition().number and grows_offline(deployed)
    room = (partition.sectors if grown else before) * 512
    assert 0 <= room - size <= 2 * _CLUSTER, f"the NTFS has {size} of {room} bytes"


def folded(found: Mapping[str, Any]) -> dict[str, Any]:
    """Paths as NTFS compares them."""
    return {path.lower(): value for path, value in found.items()}


def folded_tree(tree: manifest.Manifest) -> manifest.Manifest:
    """A manifest with the names of each file as NTFS compares them."""
    return {
        path.lower(): dataclasses.replace(item, names=tuple(sorted(name.lower() for name in item.names)))
        for path, item in tree.items()
    }


def folded_receipt(receipt: Mapping[str, Any]) -> dict[str, Any]:
    tasks = [
        {"changes": [change | {"path": change["path"].lower(), "detail": change["detail"].lower()}
                     for change in task["changes"] or ()]}
        for task in receipt["tasks"]
    ]  # fmt: skip
    return {"tasks": tasks}


def is_wanted(path: str, item: manifest.Item) -> bool:
    """Whether a proof may look into a file."""
    return item.kind == "file" and not path.lower().endswith((".exe", "software", "sam", "ntuser.dat"))


def prove_windows(deployed: Deployed, files: Mapping[str, bytes], tree: manifest.Manifest) -> None:
    """Everything that Windows will find; ``files`` and ``tree`` by folded path."""
    legacy = deployed.fixture.facts.family == "windows-legacy"
    control_set, architecture = _current(files[SYSTEM])
    prove_remote_desktop(files, control_set)
    prove_extension(deployed, files)
    prove_removal(deployed, files)
    prove_passwords(deployed, files)
    prove_files(deployed, files)
    prove_privacy(deployed, tree)
    if legacy:
        _prove_sysprep_inf(deployed, files)
    else:
        _prove_answer_file(deployed, files, architecture)


def answer_file(deployed: Deployed) -> str:
    """The path of the answer file that counts."""
    replaced = "IGNORE_UNATTEND=yes" in deployed.cell.properties
    return "/unattend.xml" if replaced else deployed.fixture.facts.hostname.path.lower()


def _prove_answer_file(deployed: Deployed, files: Mapping[str, bytes], architecture: str) -> None:
    """R-TASK-UNA-8, R-TASK-UNA-10, R-TASK-HOST-7: for the image's architecture, each command once, last."""
    found = specialize(files[answer_file(deployed)], architecture)
    names = [command.lower().rpartition("\\")[2] for command in found.commands]
    assert names.count("changeadminpassword.cmd") == 1
    assert names.count("extendfilesystem") == 1
    if deployed.cell.hostname is not None:
        assert found.computer_name == deployed.cell.hostname.partition(".")[0]
    if deployed.cell.product_key:
        assert found.product_key == PRODUCT_KEY


def _prove_sysprep_inf(deployed: Deployed, files: Mapping[str, bytes]) -> None:
    """R-TASK-UNA-10, R-TASK-UNA-11: the name, the key, and both scripts at the end of mini-setup."""
    lines = files["/sysprep/sysprep.inf"].decode("ascii").split("\r\n")
    if deployed.cell.hostname is not None:
        section = lines.index("[UserData]")
        assert f"ComputerName={deployed.cell.hostname.partition('.')[0]}" in lines[section:]
    if deployed.cell.product_key:
        assert f"ProductKey={PRODUCT_KEY}" in lines[lines.index("[UserData]") :]
    commands = files["/sysprep/i386/$oem$/cmdlines.txt"].decode("ascii").lower()
    for name in ("snfscripts\\changeadminpassword.cmd", "setup\\scripts\\setupcomplete.cmd"):
        assert commands.count(f'"c:\\windows\\{name}"') == 1


def prove_passwords(deployed: Deployed, files: Mapping[str, bytes]) -> None:
    """Of exactly the accounts that were asked for, decoded as Windows will (R-TASK-WPW-2, R-TASK-WPW-3)."""
    users = deployed.cell.users or DEFAULT_USERS
    expected = [(user, deployed.cell.password) for user in users] if deployed.cell.gives_password else []
    if deployed.fixture.facts.family == "windows-legacy":
        command = files[f"{SCRIPTS}/changeadminpassword.cmd"]
        assert (batch_accounts(command) if expected else []) == expected
        return
    script = files.get(f"{SCRIPTS}/changeadminpassword.ps1", b"")
    assert powershell_accounts(script) == expected
    for path, data in files.items():
        assert deployed.cell.password.encode() not in data, f"{path} has the password in clear text"


def prove_removal(deployed: Deployed, files: Mapping[str, bytes]) -> None:
    """The end of setup removes all of it, the answer file by its own name (R-TASK-UNA-9)."""
    script = files[SETUP_COMPLETE].decode("latin-1").lower()
    left = [f"{SCRIPTS}/extendfilesystem", f"{SCRIPTS}/changeadminpassword.cmd",
            f"{SCRIPTS}/changeadminpassword.ps1", answer_file(deployed)]  # fmt: skip
    for path in left:
        name = path.replace("/", "\\")
        assert f'@del /f /q "c:{name}"' in script, f"{path} is left behind"


def prove_privacy(deployed: Deployed, tree: manifest.Manifest) -> None:
    """Nobody reads or changes what has a secret or runs as SYSTEM."""
    private = [path for path in tree if path == SCRIPTS or path.startswith(f"{SCRIPTS}/")]
    if deployed.cell.product_key and deployed.fixture.facts.family == "windows":
        private.append(answer_file(deployed))
    for path in private:
        assert dict(tree[path].xattrs)["system.ntfs_acl"] == PRIVATE[tree[path].kind], (
            f"{path} is not private"
        )


def prove_extension(deployed: Deployed, files: Mapping[str, bytes]) -> None:
    """R-TASK-FSM-1: the system volume, if Windows is to extend it; else nothing."""
    script = files[f"{SCRIPTS}/extendfilesystem"]
    facts = deployed.fixture.facts
    by_windows = facts.grows and facts.family == "windows" and not grows_offline(deployed)
    wanted = b"select volume C\r\nextend filesystem\r\nexit\r\n" if by_windows else b"exit\r\n"
    assert script == wanted, script


def prove_remote_desktop(files: Mapping[str, bytes], control_set: str) -> None:
    """R-TASK-RDP-1: nobody comes in before the end of setup, which restores what was there."""
    key = rf"{control_set}\Control\Terminal Server"
    assert _value(files[SYSTEM], key, "fDenyTSConnections") == "1"
    script = files[SETUP_COMPLETE].decode("latin-1")
    assert script.count("fDenyTSConnections") == 1, "it is restored once"
    assert ("reg add" in script) is not ("reg delete" in script)


def prove_files(deployed: Deployed, files: Mapping[str, bytes]) -> None:
    for path, (content, _, _, _) in INJECTED.items():
        expected = content.encode() if deployed.cell.files else None
        assert files.get(path.lower()) == expected, path


def _current(hive: bytes) -> tuple[str, str]:
    """The current control set, and the processor architecture as answer files call it."""
    control_set = f"ControlSet{int(_value(hive, 'Select', 'Current')):03d}"
    environment = rf"{control_set}\Control\Session Manager\Environment"
    return control_set, _value(hive, environment, "PROCESSOR_ARCHITECTURE").lower()


def _value(hive: bytes, key: str, name: str) -> str:
    with tempfile.NamedTemporaryFile(prefix="hive.") as file:
        os.pwrite(file.fileno(), hive, 0)
        return run(["hivexget", file.name, key, name], timeout=60).text.strip()
