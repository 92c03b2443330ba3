"""No secret is seen from outside while a deployment runs, nor in anything that it leaves."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat

import pytest

from snf_image_vmtests import crypt_hash
from snf_image_vmtests.caller import Caller, Command
from snf_image_vmtests.ext_image import ExtImage
from snf_image_vmtests.fixture_images import FixtureImage

pytestmark = [
    pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs"),
    pytest.mark.timeout(400, method="signal"),
]
PASSWORD = "correct-Horse-17-battery"
CONTENT = "content-of-an-injected-file-8821"
TASK = "#!/bin/sh\n# marker-of-the-custom-task-5512\nexit 3\n"
SECRETS = (
    PASSWORD,
    CONTENT,
    base64.b64encode(CONTENT.encode()).decode(),
    "marker-of-the-custom-task-5512",
    base64.b64encode(TASK.encode()).decode()[:40],
)


def secrets_in(data: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in data]


def seen_in_proc() -> list[str]:
    """Secrets in the arguments or the environment of any process of the machine."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                data = file.read()
                found += [f"{secret} in {name} of {data[:200]!r}" for secret in secrets_in(data)]
    return found


def watch(command: Command) -> None:
    """Look at every process again and again until the command ends."""
    looks = 0
    while command.read_some():
        assert seen_in_proc() == []
        looks += 1
    assert looks > 20


def test_secrets(caller: Caller, ubuntu: FixtureImage) -> None:
    """T-6, T-7, D-5, R-SEC-1: with --debug, and in the evidence of a failure.

    The last task fails, so that everything was handled before.
    """
    files = [{"path": "/root/file", "contents": base64.b64encode(CONTENT.encode()).decode()}]
    disk = caller.disk("disk.raw", 256)
    words = caller.deploy_words(
        ubuntu.path, disk,
        "--password-file", caller.file("password", PASSWORD + "\n"),
        "--personality", caller.file("files.json", json.dumps(files)),
        "--custom-task", caller.file("task", TASK),
        "--progress", "json", "--verbose", "--json",
    )  # fmt: skip
    with caller.start(*words) as command:
        watch(command)
        answer = command.finish()
    assert answer.demand(4).error == "RunCustomTask: the custom task failed: exit status 3"
    # What was asked was done: the secrets did go through every place that is looked at.
    made = ExtImage.on(disk, ubuntu)
    assert CONTENT in made.text("/root/file")
    hashed = dict(line.split(":")[:2] for line in made.text("/etc/shadow").splitlines())["root"]
    assert crypt_hash.verify(PASSWORD, hashed)
    assert secrets_in(answer.stdout.encode()) == []
    assert secrets_in(answer.stderr.encode()) == []
    assert hashed not in answer.stderr
    document = answer.document
    assert document["exit_code"] == 4
    (kept,) = answer.kept
    assert document["kept"] == kept
    prove_evidence(kept, hashed)


def prove_evidence(directory: str, hashed: str) -> None:
    """D-5: private, whole, and with a marker in the place of each secret."""
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    names = set(os.listdir(directory))
    assert {"command", "console.log", "events.jsonl", "job.json", "qemu.argv", "result.log"} <= names
    for name in names:
        path = os.path.join(directory, name)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, name
        with open(path, "rb") as file:
            data = file.read()
        assert secrets_in(data) == [], name
        assert hashed.encode() not in data, name
    with open(os.path.join(directory, "job.json"), "rb") as file:
        job = json.load(file)
    marker = job["change_password"]["password"]
    assert marker
    assert job["run_custom_task"]["program"] == marker
    assert [file["contents"] for file in job["enforce_personality"]["files"]] == [marker]


def test_secrets_on_the_command_line(caller: Caller, alpine: FixtureImage) -> None:
    """D-17: what would be seen in the list of processes is refused, with the option to use."""
    words = ("--property", "PASSWD=abc", "--property", "custom_task=YWJj")
    answer = caller.deploy(alpine.path, caller.disk("disk.raw", 256), *words)
    answer.demand(2, "--property: PASSWD is secret")
    assert "use --password-file" in answer.stderr
    assert "CUSTOM_TASK is secret" in answer.stderr
    assert "abc" not in answer.stderr
