"""Deploys as a user would: with the installed command, on files."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
from typing import Any, Final

from snf_image_process import Completed, run
from snf_image_vmtests import crypt_hash, places
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.fixture_images import FixtureImage
from snf_image_vmtests.matrix import Cell

DEPLOY_SECONDS: Final = 300.0
MIB: Final = 1024 * 1024
MAC: Final = "aa:00:00:12:34:56"
ADDRESS: Final = "192.0.2.10"
GATEWAY: Final = "192.0.2.1"
SWAP_DISK_MIB: Final = 64
KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl of@tests"
"""A public key; nobody has the private one."""
PRODUCT_KEY: Final = "ABCDE-12345-FGHIJ-67890-KLMNO"
INJECTED: Final = {
    "/etc/motd.d/welcome": ("Willkommen\n", "root", "root", 0o644),
    "/root/injected.bin": ("\x00\x01 not text \x7f", "root", "root", 0o400),
}
"""Files that cells with ``files`` inject: content, owner, group, mode."""

_NETWORKS: Final = {
    "dhcp": f"mac={MAC},ip=dhcp",
    "static": f"mac={MAC},ip={ADDRESS},subnet=192.0.2.0/24,gateway={GATEWAY}",
    "static+slaac": f"mac={MAC},ip={ADDRESS},subnet=192.0.2.0/24,gateway={GATEWAY},"
    "subnet6=2001:db8::/64,gateway6=2001:db8::1",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What a deployment left. ``receipt`` is empty if it failed.

    ``fixture``: what was deployed; ``original``: the image it was taken from, if that was a dump.
    """

    cell: Cell
    original: FixtureImage
    fixture: FixtureImage
    status: int
    output: str
    disk: str
    swap_disk: str | None
    receipt: dict[str, Any]


def deploy(
    cell: Cell, original: FixtureImage, directory: str, evidence: Evidence, *, onto: str | None = None
) -> Deployed:
    """Deploy the cell's image onto a new file in ``directory``, or ``onto`` one that is there.

    It does not judge the result.
    """
    disk = onto or os.path.join(directory, "disk.raw")
    swap_disk = None
    report = evidence.path("receipt.json")
    fixture = dump_of(original, directory) if cell.dump else original
    argv = [
        places.command("snf-image"), "deploy", fixture.path, disk,
        "--disk-size", f"{cell.disk_size}M",
        "--helper-dir", places.helper_directory(), "--accel", "tcg",
        "--progress", "none", "--verbose", "--keep", "--report", report,
        *_asked(cell, directory),
    ]  # fmt: skip
    if cell.dump:
        argv += ["--format", "ntfsdump" if fixture.facts.root_filesystem == "ntfs" else "extdump"]
    else:
        argv += ["--sha256", fixture.sha256]
    if cell.swap is not None and cell.swap_partition is None:
        swap_disk = os.path.join(directory, "swap.raw")
        with open(swap_disk, "xb") as file:
            file.truncate(SWAP_DISK_MIB * MIB)
        argv += ["--add-disk", swap_disk]
    evidence.write("deploy-argv.json", json.dumps(argv, indent=1, ensure_ascii=False) + "\n")
    with evidence.step(f"deploy {fixture.name}"):
        done = _run(argv, directory)
    evidence.write("deploy.log", done.text + done.stderr.decode("utf-8", "backslashreplace"))
    _keep_helper_logs(directory, evidence)
    receipt: dict[str, Any] = {}
    if os.path.exists(report):
        with open(report, encoding="ascii") as file:
            receipt = json.load(file)
    return Deployed(
        cell=cell,
        original=original,
        fixture=fixture,
        status=done.status,
        output=done.text + done.stderr.decode("utf-8", "backslashreplace"),
        disk=disk,
        swap_disk=swap_disk,
        receipt=receipt,
    )


def dump_of(fixture: FixtureImage, directory: str) -> FixtureImage:
    """The root file system of an image as a file of its own; deployed, it is partition 1 of an MBR."""
    partition = fixture.root()
    path = os.path.join(directory, "root.dump")
    with open(fixture.path, "rb") as image, open(path, "xb") as dump:
        image.seek(partition.start * MIB)
        for _ in range(partition.size):
            block = image.read(MIB)
            if block.strip(b"\0"):
                dump.write(block)
            else:
                dump.seek(MIB, os.SEEK_CUR)
        dump.truncate(partition.size * MIB)
    facts = dataclasses.replace(fixture.facts, root_partition=1, table="mbr")
    placed = dataclasses.replace(partition, number=1, start=1, mount="/")
    return dataclasses.replace(
        fixture, path=path, size=partition.size * MIB, facts=facts, partitions=(placed,)
    )


def _run(argv: list[str], directory: str) -> Completed:
    statuses = tuple(range(256))
    return run(
        argv,
        timeout=DEPLOY_SECONDS,
        accept=statuses,
        env={"HOME": directory, "TMPDIR": directory},
        cwd=directory,
    )


def _keep_helper_logs(directory: str, evidence: Evidence) -> None:
    """What the helper's console and its reports said, which the command keeps in a directory of its own."""
    for kept in os.listdir(directory):
        if kept.startswith("snf-image-"):
            for name in ("console.log", "events.jsonl", "qemu.log"):
                if os.path.exists(path := os.path.join(directory, kept, name)):
                    shutil.copyfile(path, evidence.path(f"helper-{name}"))
            shutil.rmtree(os.path.join(directory, kept))


def _asked(cell: Cell, directory: str) -> list[str]:
    """The options that say what is to be changed; secrets go into files."""
    argv: list[str] = []
    if cell.hostname is not None:
        argv += ["--hostname", cell.hostname]
    if cell.credential == "hash":
        stored = crypt_hash.new_sha512(cell.password)
        argv += ["--password-hash-file", _file(directory, "hash", f"{stored}\n")]
    elif cell.gives_password:
        argv += ["--password-file", _file(directory, "password", f"{cell.password}\n")]
    if cell.gives_keys:
        argv += ["--auth-keys", _file(directory, "keys", f"{KEY}\n")]
    if cell.swap is not None:
        argv += ["--swap", cell.swap]
    if cell.network != "none":
        argv += ["--nic", _NETWORKS[cell.network]]
    if cell.product_key:
        argv += ["--product-key-file", _file(directory, "product-key", f"{PRODUCT_KEY}\n")]
    if cell.files:
        argv += ["--personality", _file(directory, "personality", _personality())]
    properties = [*cell.properties]
    properties += [f"USERS={' '.join(cell.users)}"] if cell.users else []
    properties += ["CLOUD_INIT=yes"] if cell.cloud_init else []
    for text in properties:
        argv += ["--property", text]
    return argv


def _personality() -> str:
    files = [
        {
            "path": path,
            "contents": base64.b64encode(content.encode()).decode("ascii"),
            "owner": owner,
            "group": group,
            "mode": mode,
        }
        for path, (content, owner, group, mode) in INJECTED.items()
    ]
    return json.dumps(files)


def _file(directory: str, name: str, text: str) -> str:
    path = os.path.join(directory, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path
