"""Deploys a hostile image with the installed command, and judges what became of the node."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from typing import Final

from hostile.image import HostileImage
from hostile.region import MIB, ImageFile, digest
from snf_image_vmtests.caller import Answer, Caller
from snf_image_vmtests.deployment import KEY, MAC
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.ext_image import boot_signature
from snf_image_vmtests.fixture_images import load_fixture

HOST_MIB: Final = 150
"""What the command itself may take of memory at most, whatever the image."""
CHILD_MIB: Final = 1024
"""What each of its children may take: QEMU with an emulated helper takes the most."""
DEADLINE: Final = 180.0
"""Seconds that a customisation is given; the command must have ended a little later."""
_EMULATED: Final = 5
"""By this the command multiplies the limits of a helper that is emulated (HELPER_TCG_TIMEOUT_FACTOR)."""
_MORE_SECONDS: Final = 60.0
_GROWTH: Final = 64 * MIB
MEASURING: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "measuring")
"""Python starts what is in this directory together with the command."""
_FILES: Final = (
    {"path": "/etc/motd.d/x", "contents": "QUJD"},
    {"path": "/root/.profile", "contents": "QUJD"},
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a deployment ended, and the most memory that the command and any child of it had."""

    answer: Answer
    host_kib: int
    child_kib: int


def deploy(image: HostileImage, caller: Caller, evidence: Evidence) -> Trial:
    """Make the image and deploy it onto a new file, and demand that nothing else changed by that."""
    fixture = load_fixture(image.base)
    path, disk = caller.path("image.raw"), caller.disk("disk.raw", (fixture.size + _GROWTH) // MIB)
    with ImageFile.copy_of(fixture, path) as made:
        image.damage(made)
    before = digest(path)
    assert before != digest(fixture.path), "the damage changes nothing"
    used_before = digest(disk)
    record, receipt = caller.path("memory.json"), caller.path("receipt.json")
    limit = ("--timeout", f"{DEADLINE / _EMULATED:.0f}s")
    words = caller.deploy_words(path, disk, *limit, "--report", receipt, *_asked(image, caller))
    around = _looked_at(caller, disk, record, receipt)
    with evidence.step(f"deploy {image.id}"):
        environment = {"PYTHONPATH": MEASURING, "SNF_IMAGE_TEST_MEMORY": record}
        answer = caller.run(*words, seconds=DEADLINE + _MORE_SECONDS, env=environment)
    evidence.write("deploy.log", answer.stdout + answer.stderr)
    assert digest(path) == before, "the image was written to"
    assert _looked_at(caller, disk, record, receipt) == around, "something beside the disk was written"
    if answer.status:
        assert boot_signature(disk) == b"\0\0" or digest(disk) == used_before, "it left a disk that may boot"
    else:
        with open(receipt, encoding="utf-8") as file:
            evidence.write("receipt.json", file.read())
    with open(record, encoding="ascii") as file:
        return Trial(answer=answer, **json.load(file))


def judge(image: HostileImage, trial: Trial) -> None:
    """Whether it ended as the row of the corpus says, and within its bounds."""
    answer = trial.answer
    assert answer.status in image.ends, f"status {answer.status}\n{answer.stderr}"
    answer.demand(answer.status, image.words if answer.status else "")
    assert trial.host_kib < HOST_MIB * 1024, f"the command took {trial.host_kib} KiB"
    assert trial.child_kib < CHILD_MIB * 1024, f"a child of the command took {trial.child_kib} KiB"


def _asked(image: HostileImage, caller: Caller) -> tuple[str, ...]:
    """Options that make as many tasks as possible read and write."""
    family = load_fixture(image.base).facts.family
    words: tuple[str, ...] = (
        "--hostname", "new1",
        "--password-file", caller.file("password", "new\n"),
        "--nic", f"mac={MAC},ip=dhcp",
    )  # fmt: skip
    if "CLOUD_INIT=yes" not in image.options:
        words += ("--personality", caller.file("files.json", json.dumps(_FILES)))
    if not family.startswith("windows"):
        words += ("--auth-keys", caller.file("keys", f"{KEY}\n"))
    return (*words, *image.options)


def _looked_at(caller: Caller, *but: str) -> dict[str, tuple[int, ...]]:
    """Every file in the caller's directory but the disk and what the command keeps: kind, size, times."""
    temporary = caller.path("tmp")
    found: dict[str, tuple[int, ...]] = {}
    for directory, _, names in os.walk(caller.directory):
        if directory != caller.directory and directory.startswith(temporary):
            continue
        for path in (os.path.join(directory, name) for name in names):
            state = os.lstat(path)
            if path not in but:
                found[path] = (stat.S_IFMT(state.st_mode), state.st_mode, state.st_size, state.st_mtime_ns)
    return found
