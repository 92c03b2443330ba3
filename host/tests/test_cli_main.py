"""The command as a user meets it: output, exit codes, errors, signals."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import snf_image_contract
import snf_image_host.deploy
import snf_image_process
from snf_image_contract.events import (
    FoundPartition,
    FoundSystem,
    FoundUsers,
    OperatorTaskWouldRun,
    Warned,
    WouldRun,
)
from snf_image_contract.names import OsFamily, TaskName
from snf_image_host.cli.main import main
from snf_image_host.deployment import Deployment
from snf_image_host.errors import HelperError, ImageError, NodeError, SnfImageError, UserError
from snf_image_host.receipt import Receipt
from snf_image_host.reporter import Failure, HelperSaid, Reporter, StageStarted
from snf_image_process import PIPE, Running, run, start

pytestmark = pytest.mark.usefixtures("heeded_signals")

COMMAND = [sys.executable, "-m", "snf_image_host.cli"]


class Fake:
    """Stands for the main path: does what a test wants and remembers what it was given."""

    def __init__(self) -> None:
        self.deployments: list[Deployment] = []
        self.error: Exception | None = None
        self.said: list[Any] = []

    def __call__(self, deployment: Deployment, reporter: Reporter) -> Receipt:
        self.deployments.append(deployment)
        for event in self.said:
            reporter.emit(HelperSaid(event=event))
        if self.error is not None:
            raise self.error
        return Receipt(document={"instance": deployment.instance})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    for name in ("deploy", "customize", "inspect_image"):
        monkeypatch.setattr(snf_image_host.deploy, name, fake)
    monkeypatch.setattr(Receipt, "summary", lambda receipt: f"{receipt.document['instance']}: done")
    return fake


@pytest.fixture(autouse=True)
def no_node_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snf_image_host.configuration.files.MAIN_FILES", ())


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    return str(path)


def deploy(*words: str) -> int:
    return main(["deploy", "image.raw", "/disk.raw", "--progress", "none", *words])


def test_success(fake: Fake, password: str, capsys: pytest.CaptureFixture[str]) -> None:
    """D-16: 0 and a summary on standard output."""
    assert deploy("--hostname", "web1", "--password-file", password) == 0
    captured = capsys.readouterr()
    assert captured.out == "web1: done\n"
    assert captured.err == ""
    assert fake.deployments[0].job.assign_hostname.name == "web1"


def test_a_result_cannot_steer_a_terminal(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R-HLP-8: a summary names the system as the image does."""
    monkeypatch.setattr(Receipt, "summary", lambda receipt: "done\nsystem: \x1b[2J\rx")
    assert deploy() == 0
    assert capsys.readouterr().out == "done\nsystem: \\x1b[2J\\rx\n"


def test_success_as_json(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy("--hostname", "web1", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "result": "success",
        "exit_code": 0,
        "receipt": {"instance": "web1"},
    }


@pytest.mark.parametrize(
    ("kind", "code"), [(UserError, 2), (ImageError, 3), (HelperError, 4), (NodeError, 5)]
)
def test_exit_codes(
    kind: type[SnfImageError], code: int, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    """D-16: and the error is printed once: what, causes, details, what to do, what was kept."""
    fake.error = kind("it failed", "second cause", hint="do this", details=("last words",), kept="/var/tmp/x")
    assert deploy() == code
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "snf-image: it failed",
        "  second cause",
        "  | last words",
        "  hint: do this",
        "  kept for a look: /var/tmp/x",
        "  to do it again: sh /var/tmp/x/command",
    ]
    assert captured.out == ""


def test_a_failure_as_json(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.error = ImageError("bad", hint="do this", details=("x",), kept="/k")
    assert deploy("--json") == 3
    assert json.loads(capsys.readouterr().out) == {
        "result": "failure",
        "exit_code": 3,
        "messages": ["bad"],
        "details": ["x"],
        "hint": "do this",
        "kept": "/k",
    }


def test_a_wrong_command_line_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "--json", "--nonsense"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_errors_cannot_steer_a_terminal(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    """R-HLP-8: an error may quote an image."""
    fake.error = ImageError("label \x1b]0;x\x07\r\n gone")
    assert deploy() == 3
    [line] = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_a_failure_reaches_the_sinks_once(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R-MON-6"""
    seen: list[object] = []
    original = Reporter.emit

    def emit(self: Reporter, event: Any) -> None:
        seen.append(event)
        original(self, event)

    monkeypatch.setattr(Reporter, "emit", emit)
    fake.error = ImageError("bad")
    assert deploy() == 3
    assert [event for event in seen if isinstance(event, Failure)] == seen[-1:]
    assert capsys.readouterr().err.count("bad") == 1


def test_a_bug(
    fake: Fake,
    password: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """D-16, R-SEC-1: 70, a private report without secrets, no traceback for the user."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fake.error = RuntimeError("cannot use 'hunter2'\nat all")
    fake.error.add_note("kept for a look: /k")
    assert deploy("--password-file", password) == 70
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "a bug in snf-image: RuntimeError: cannot use '<secret>'" in captured.err
    [report] = tmp_path.glob("snf-image-bug-*.txt")
    assert str(report) in captured.err
    assert "  kept for a look: /k" in captured.err.splitlines()
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert "hunter2" not in text
    assert "Traceback" in text
    assert "test_cli_main.py" in text


def test_a_bug_whose_report_cannot_be_written(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    fake.error = RuntimeError("x")
    assert deploy("--json") == 70
    captured = capsys.readouterr()
    assert "could not be written" in captured.err
    assert json.loads(captured.out)["exit_code"] == 70


def test_wrong_parameters_are_all_told(capsys: pytest.CaptureFixture[str], password: str) -> None:
    """R-OSP-16: before anything is opened."""
    words = ["--hostname", "a b", "--property", "OSFAMILY=linus", "--swap", "b", "--password-file", password]
    assert deploy(*words) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 4
    assert "hunter2" not in captured.err


def test_a_wrong_configuration_is_the_nodes_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-CONF-4, D-16, T-5"""
    path = tmp_path / "conf"
    path.write_text(f"HELPER_MEMORY=$(touch {tmp_path}/touched)\n")
    assert deploy("--config", str(path)) == 5
    assert f"{path}:1: HELPER_MEMORY: " in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()


def test_verbosity_shows_unknown_properties(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    """R-PROP-6"""
    words = ["deploy", "a", "b", "--progress", "auto", "--property", "KERNEL=6.1"]
    assert main(words) == 0
    assert "KERNEL" not in capsys.readouterr().err
    assert main([*words, "--verbose"]) == 0
    assert "property KERNEL is not known" in capsys.readouterr().err


def test_image_debug_is_verbose_and_shows_no_secret(
    fake: Fake, tmp_path: Path, password: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """R-SEC-4, T-7"""
    path = tmp_path / "conf"
    path.write_text("IMAGE_DEBUG=yes\n")
    words = ["--config", str(path), "--property", "KERNEL=6.1", "--password-file", password]
    assert main(["deploy", "a", "b", *words]) == 0
    text = capsys.readouterr().err
    assert "KERNEL" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("progress", ["auto", "bar", "json"])
def test_progress_is_on_standard_error(progress: str, fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.said = [Warned(message="mind the gap")]
    assert main(["deploy", "a", "b", "--hostname", "web1", "--progress", progress]) == 0
    captured = capsys.readouterr()
    assert "mind the gap" in captured.err
    assert captured.out == "web1: done\n"


@pytest.mark.parametrize("failing", [False, True])
def test_the_nodes_progress_monitor_is_told(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, failing: bool
) -> None:
    """R-MON-2, R-MON-6: what the configuration names is fed by the command line too, also of a failure."""
    told = tmp_path / "told"
    config = tmp_path / "config"
    config.write_text(f"PROGRESS_MONITOR='sh -c \"cat >{told}.$1\" --'\n")
    if failing:
        fake.error = ImageError("it is empty")
    assert deploy("--config", str(config)) == (3 if failing else 0)
    messages = [json.loads(line) for line in Path(f"{told}.disk").read_text().splitlines()]
    errors = [message["messages"] for message in messages if message["type"] == "image-error"]
    assert errors == ([["it is empty"]] if failing else [])
    assert "[MONITOR]" not in capsys.readouterr().err


def test_an_inspection(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    """D-28, D-34"""
    fake.said = [
        FoundSystem(
            partition_table="mbr",
            os_family=OsFamily.LINUX,
            root_partition=1,
            distribution="debian",
            version="12",
            title="Debian GNU/Linux 12 (bookworm)\x1b[2J",
            hostname="localhost",
        ),
        FoundPartition(number=1, start=2048, sectors=4194304, type="0x83", filesystem="ext4", label="root"),
        FoundUsers(users=tuple(f"user{number}" for number in range(30)), more=5),
        WouldRun(task=TaskName.MOUNT_IMAGE),
        WouldRun(task=TaskName.ADD_SWAP, skipped="not asked"),
        OperatorTaskWouldRun(task="InstallAgent\x1b"),
        OperatorTaskWouldRun(task="Last", skipped="excluded"),
        Warned(message="x"),
    ]
    assert main(["inspect", "/images/debian.raw", "--progress", "none"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "system            Debian GNU/Linux 12 (bookworm)\\x1b[2J" in text
    assert "family            linux (debian 12)" in text
    assert "user19 and 15 more" in text
    assert "  1   2048   2 GiB  0x83  ext4         root   -     -\n" in text
    assert "  run   MountImage\n" in text
    assert "  skip  AddSwap: not asked\n  run   InstallAgent\\x1b\n  skip  Last: excluded\n" in text
    assert main(["inspect", "/images/debian.raw", "--json", "--progress", "none"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["image"] == "debian.raw"
    assert document["system"]["os_family"] == "linux"
    assert document["partitions"][0]["sectors"] == 4194304
    assert document["more_users"] == 5
    assert document["tasks"] == [
        {"task": "MountImage", "skipped": None},
        {"task": "AddSwap", "skipped": "not asked"},
        {"task": "InstallAgent\x1b", "skipped": None},
        {"task": "Last", "skipped": "excluded"},
    ]
    assert document["warnings"] == ["x"]


def test_an_inspection_that_recognises_nothing(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "x", "--progress", "none"]) == 0
    assert "none was recognised" in capsys.readouterr().out


def test_the_helper_image_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["helper", "info", "--helper-dir", str(tmp_path)]) == 5
    assert f"there is no helper image in {tmp_path}" in capsys.readouterr().err
    assert main(["helper", "verify", "--helper-dir", str(tmp_path)]) == 5
    assert "helper build" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("snf-image ")


def test_no_core_file_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-SEC-1"""
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: limits.append(limit))
    assert main(["--version"]) == 0
    assert limits == [(resource.RLIMIT_CORE, (0, 0))]


def test_help_loads_nothing_it_does_not_need() -> None:
    """It answers at once."""
    program = (
        "import sys; from snf_image_host.cli.main import main; main(['deploy', '--help']);"
        "heavy = {'difflib', 'snf_image_host.deploy', 'snf_image_host.plan', 'snf_image_host.doctor',"
        " 'asyncio', 'importlib.metadata._adapters', 'subprocess', 'ssl', 'hashlib'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or None)"
    )
    modules = (snf_image_contract, snf_image_host, snf_image_process)
    paths = [os.path.dirname(os.path.dirname(module.__file__ or "")) for module in modules]
    # -S: without what a virtual environment loads at its start.
    run([sys.executable, "-S", "-c", program], timeout=30, env={"PYTHONPATH": ":".join(paths)})


@pytest.mark.parametrize("words", [["deploy", "--help"], ["helper", "verify", "--json"]])
def test_a_reader_that_left(words: list[str], tmp_path: Path) -> None:
    """A closed pipe is neither a bug nor a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with start([*COMMAND, *words, "--helper-dir", str(tmp_path)], stdout=writer, stderr=PIPE) as running:
            assert running.stderr is not None
            text = running.stderr.read().decode()
            status = running.wait(20)
    finally:
        os.close(writer)
    assert status in (0, 5)
    assert "BrokenPipe" not in text
    assert "bug" not in text


PROGRAM = """
import sys, time
import snf_image_host.configuration.files
import snf_image_host.deploy
from snf_image_host.reporter import StageStarted

def deploy(deployment, reporter):
    if {begun}:
        reporter.emit(StageStarted(stage="copy"))
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.3)
        print("cleaned up", flush=True)

snf_image_host.configuration.files.MAIN_FILES = ()
snf_image_host.deploy.deploy = deploy
from snf_image_host.cli.main import main
sys.exit(main(["deploy", "image.raw", "/disk.raw", "--progress", "none"]))
"""


@contextlib.contextmanager
def deploying(*, begun: bool = True) -> Iterator[Running]:
    program = PROGRAM.replace("{begun}", str(begun))
    with start([sys.executable, "-c", program], stdout=PIPE, stderr=PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"begun\n"
        yield running


def outcome(running: Running) -> tuple[int | None, str, str]:
    status = running.wait(20)
    assert running.stdout is not None
    assert running.stderr is not None
    return status, running.stdout.read().decode(), running.stderr.read().decode()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_signals(number: signal.Signals, code: int) -> None:
    """D-16, R-HLP-13: everything is cleaned up once, and the disk is said to be unusable."""
    with deploying() as running:
        os.kill(running.pid, number)
        status, out, err = outcome(running)
    assert (status, out) == (code, "cleaned up\n")
    assert "the disk /disk.raw is not usable" in err
    assert "Traceback" not in err


def test_a_second_signal_does_not_disturb_the_clean_up() -> None:
    """R-HLP-13"""
    with deploying() as running:
        os.kill(running.pid, signal.SIGINT)
        time.sleep(0.1)
        os.kill(running.pid, signal.SIGTERM)
        os.kill(running.pid, signal.SIGINT)
        status, out, _ = outcome(running)
    assert (status, out) == (130, "cleaned up\n")


def test_an_interruption_before_the_disk_was_touched() -> None:
    with deploying(begun=False) as running:
        os.kill(running.pid, signal.SIGINT)
        status, _, err = outcome(running)
    assert status == 130
    assert err == "snf-image: interrupted\n"


def test_stages_spoil_the_disk_in_words_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def customize(deployment: Deployment, reporter: Reporter) -> Receipt:
        reporter.emit(StageStarted(stage="customize"))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError

    monkeypatch.setattr(snf_image_host.deploy, "customize", customize)
    assert main(["customize", "/disk.raw", "--progress", "none", "--json"]) == 143
    captured = capsys.readouterr()
    assert "ended by SIGTERM: the disk /disk.raw may be half customised and is not usable" in captured.err
    assert json.loads(captured.out)["exit_code"] == 143


def test_what_ends_before_the_disk_is_handed_over_leaves_it_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def customize(deployment: Deployment, reporter: Reporter) -> Receipt:
        reporter.emit(StageStarted(stage="helper-start"))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError

    monkeypatch.setattr(snf_image_host.deploy, "customize", customize)
    assert main(["customize", "/disk.raw", "--progress", "none"]) == 143
    assert capsys.readouterr().err == "snf-image: ended by SIGTERM\n"


_INTERRUPTED_IMPORT = """
import os, signal, sys
from snf_image_host.cli import start

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "snf_image_host.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
start()
"""


def test_ctrl_c_while_python_still_imports(tmp_path: Path) -> None:
    """D-16, R-HLP-13: no traceback, and the status of a program that was interrupted."""
    ended = run([sys.executable, "-c", _INTERRUPTED_IMPORT], timeout=30, accept=(-signal.SIGINT,))
    assert ended.stdout == b""
    assert ended.stderr == b""
