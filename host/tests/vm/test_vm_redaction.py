"""Secrets of a job that come back in what the helper prints."""

import base64
import dataclasses
import json
import threading
from typing import Any

from snf_image_contract.events import Failed, TaskStarted, Warned, encode_event
from snf_image_contract.job import (
    AssignHostname,
    ChangePassword,
    HostKey,
    HostKeys,
    Job,
    RunCustomTask,
    Variable,
)
from snf_image_contract.names import TaskName
from snf_image_contract.secret import MARKER, Secret
from snf_image_host.reporter import Reporter
from snf_image_host.vm.console import Console
from snf_image_host.vm.conversation import Bounds, Conversation
from snf_image_host.vm.evidence import EvidenceFile
from snf_image_host.vm.json_events import JsonEvents
from snf_image_host.vm.redaction import Redaction
from snf_image_host.vm.result import ResultPort

PASSWORD = 'pässword "quoted"'
KEY = "-----BEGIN-----\nAAAAB3NzaC1yc2EAAAADAQABAAAB\nend\n"


def learned(job: Job, **changes: Any) -> Redaction:
    redaction = Redaction()
    redaction.learn(dataclasses.replace(job, **changes))
    return redaction


def secretive(job: Job) -> Redaction:
    return learned(job, change_password=ChangePassword(users=("root",), password=Secret(PASSWORD)))


def test_the_console_does_not_show_what_a_custom_task_prints_of_the_password(job: Job, tmp_path: Any) -> None:
    """R-SEC-1, T-6: neither to the user nor in the log that is kept, however the bytes arrive."""
    lines: list[str] = []

    class Lines:
        def handle(self, event: Any) -> None:
            lines.append(event.text)

        def close(self) -> None:
            pass

    log = EvidenceFile(str(tmp_path), "console.log")
    console = Console(Reporter(Lines()), log, secretive(job))
    for byte in f"+ echo {PASSWORD} | passwd\r\nharmless\n".encode():
        console.feed(bytes([byte]))
    console.end()
    assert lines == ["HELPER: + echo <secret> | passwd", "HELPER: harmless"]
    assert "ssword" not in (tmp_path / "console.log").read_text()


def test_events_and_their_log_do_not_show_it_either(job: Job, tmp_path: Any) -> None:
    """R-SEC-1: texts are redacted in the log, where they are JSON, and on their way to every sink."""
    log = EvidenceFile(str(tmp_path), "events.jsonl")
    conversation = Conversation(Reporter(), Bounds(warnings=5), secretive(job))
    conversation.job_given = True
    listener = JsonEvents(conversation, log)
    hello = b'{"seq": 0, "kind": "hello", "contract_version": 1, "build": "b"}\n'
    warned = encode_event(Warned(message=f"odd: {PASSWORD}"), 1)
    failed = encode_event(Failed(blame="request", messages=(PASSWORD,), stderr=(f"x {PASSWORD}",)), 2)
    listener.feed(hello + warned + failed)
    assert conversation.fault is None
    assert conversation.events[1] == Warned(message="odd: <secret>")
    assert conversation.terminal == Failed(blame="request", messages=("<secret>",), stderr=("x <secret>",))
    text = (tmp_path / "events.jsonl").read_text()
    assert "ssword" not in text
    assert [json.loads(line)["seq"] for line in text.splitlines()] == [0, 1, 2]


def test_a_password_that_is_a_word_of_the_protocol_changes_nothing_of_it(job: Job) -> None:
    """R-HLP-9, R-MON-9: only free texts are redacted, after they were understood."""
    for word in ("SUCCESS", "ERROR:", "kind", "AddSwap", "message"):
        redaction = learned(job, change_password=ChangePassword(password=Secret(word)))
        port = ResultPort(EvidenceFile(None, ""), redaction)
        port.feed(b"SUCCESS\n")
        assert port.says_success
        port.feed(b"ERROR: but\n")
        assert not port.says_success
        event = TaskStarted(task=TaskName.ADD_SWAP)
        assert redaction.event(event) is event


def test_lines_of_keys_and_scripts_are_secret_and_ordinary_values_are_not(job: Job) -> None:
    """R-SEC-1: a secret of several lines is recognised by its longer ones; a custom task's environment
    holds every value there is, and most are words like any other."""
    redaction = learned(
        job,
        run_custom_task=RunCustomTask(program=Secret(base64.b64encode(b"#!/bin/sh\ntrue\n").decode())),
        change_password=ChangePassword(password_hash=Secret(KEY), password=Secret("abc")),
        environment=(Variable(name="SNF_IMAGE_FORMAT", value=Secret("diskdump")),),
    )
    assert (
        redaction.bytes(b"+ AAAAB3NzaC1yc2EAAAADAQABAAAB abc end diskdump") == b"+ <secret> abc end diskdump"
    )


def test_what_is_learned_later_adds_to_what_is_known() -> None:
    """R-SEC-1: SSH host keys follow the job, in another thread."""
    redaction = Redaction()
    job = Job(
        instance="web1",
        clock=0,
        disks=(),
        assign_hostname=AssignHostname(name="web1"),
        change_password=ChangePassword(password=Secret("the password")),
    )
    keys = HostKeys(keys=(HostKey(type="rsa", private=Secret("the private key"), public="ssh-rsa A"),))
    threads = [threading.Thread(target=redaction.learn, args=(what,)) for what in (keys, job) * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redaction.bytes(b"the password, the private key") == f"{MARKER}, {MARKER}".encode()
