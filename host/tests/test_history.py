"""The history of an instance: what is kept of its runs, for how long, and what the commands print of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from snf_image_host.cli.main import main
from snf_image_host.errors import UserError
from snf_image_host.history import Journal, entries, instances, read_entry
from snf_image_host.reporter import ConsoleLine, Event, Info, Reporter, Warning

NAME = "web1.example.org"


class Log:
    def __init__(self) -> None:
        self.warnings: list[Warning] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Warning):
            self.warnings.append(event)

    def close(self) -> None:
        pass


def keep(directory: Path, document: dict[str, Any] | None, *, evidence: bool = False, **limits: int) -> Log:
    """One run."""
    log = Log()
    settings = {"keep": 20, "max_size": 64} | limits
    with Journal(str(directory), NAME, "create", reporter=Reporter(log), **settings) as journal:
        journal.handle(Info(message="not for the console"))
        journal.handle(ConsoleLine(text="HELPER: up"))
        if evidence and journal.evidence is not None:
            (Path(journal.evidence) / "job.json").write_text("{}")
        if document is not None:
            journal.write(document)
    return log


def test_a_run(tmp_path: Path) -> None:
    """D-30: a receipt and a console log, for root only; no empty directory for evidence."""
    assert keep(tmp_path / "log", {"result": "success"}).warnings == []
    (entry,) = entries(str(tmp_path / "log"), NAME)
    assert instances(str(tmp_path / "log")) == (NAME,)
    assert entry.document == {"result": "success"}
    assert entry.evidence is None
    assert entry.console is not None
    assert Path(entry.console).read_text() == "HELPER: up\n"
    place = tmp_path / "log" / NAME
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}


def test_rotation_by_number(tmp_path: Path) -> None:
    """LOG_KEEP: the oldest go, with console and evidence; the newest stays whatever the limit."""
    for number in range(5):
        keep(tmp_path, {"number": number}, evidence=True, keep=2)
    found = entries(str(tmp_path), NAME)
    assert [entry.document for entry in found] == [{"number": 3}, {"number": 4}]
    assert len(os.listdir(tmp_path / NAME)) == 6


def test_rotation_by_size(tmp_path: Path) -> None:
    """LOG_MAX_SIZE counts what lies on the disk; the run that just ended is never removed."""
    for number in range(3):
        keep(tmp_path, {"number": number, "filling": "x" * 700_000}, max_size=1)
    assert [entry.document["number"] for entry in entries(str(tmp_path), NAME) if entry.document] == [2]
    keep(tmp_path, {"number": 3, "filling": "x" * 3_000_000}, max_size=1)
    assert [entry.document["number"] for entry in entries(str(tmp_path), NAME) if entry.document] == [3]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """One warning, no failure."""
    (tmp_path / "file").write_text("")
    log = keep(tmp_path / "file", {"result": "success"})
    assert {warning.message for warning in log.warnings} == {"the history of this instance is not complete"}


def test_which_entry(tmp_path: Path) -> None:
    """The newest that is finished, the one that is named, or an error that says what to do."""
    keep(tmp_path, {"number": 0})
    keep(tmp_path, {"number": 1})
    keep(tmp_path, None)
    directory = str(tmp_path)
    first, second, unfinished = entries(directory, NAME)
    assert read_entry(directory, NAME, None) == second
    assert read_entry(directory, NAME, first.name) == first
    assert unfinished.document is None
    for instance in ("unknown", "../etc", "-x", ""):
        with pytest.raises(UserError):
            read_entry(directory, instance, None)
    with pytest.raises(UserError, match="has no entry 2026"):
        read_entry(directory, NAME, "2026")


def test_a_damaged_receipt(tmp_path: Path) -> None:
    """It counts as unfinished."""
    keep(tmp_path, {"result": "success"})
    (path,) = (tmp_path / NAME).glob("*.json")
    for text in ("{", "[]", "[" * 100_000):
        path.write_text(text)
        assert entries(str(tmp_path), NAME)[0].document is None


RECEIPT = {
    "result": "failure",
    "error": {"class": "the image is bad", "messages": ["it is \x1b[2J empty"], "kept": None},
    "disk": "/dev/x",
    "image": {"name": "debian.diskdump", "format": "diskdump", "sha256": "ab12"},
    "system": {"os_family": "linux", "distribution": "debian", "version": "12"},
    "asked": {"hostname": NAME, "password": True, "keys": 0, "swap": None, "excluded": []},
    "tasks": [
        {"name": "AddSwap", "seconds": 0.5, "skipped": "not asked", "changes": []},
        {"name": "ChangePassword", "seconds": 1, "skipped": None,
         "changes": [{"path": "/etc/shadow", "change": "modified", "detail": "root"}]},
        {"name": "InstallAgent", "seconds": 2, "skipped": None, "changes": None},
    ],
    "warnings": ["mind the gap"],
    "seconds": {"copy": 1.5, "customize": 2.25},
}  # fmt: skip


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The options that make the commands look here."""
    keep(tmp_path / "log", RECEIPT)
    (tmp_path / "config").write_text(f"LOG_DIR={tmp_path / 'log'}\n")
    return ["--config", str(tmp_path / "config")]


def test_history_for_people(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", *words]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["entry", "instance", "result", "image", "seconds", "warnings"]
    assert row.split()[1:] == [NAME, "failure", "debian.diskdump", "3.8", "1"]
    assert main(["history", "nobody", *words]) == 2
    assert "nothing is known of the instance nobody" in capsys.readouterr().err


def test_history_for_programs(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", NAME, "--json", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["instance"], row["result"], row["evidence"]) == (NAME, "failure", None)
    assert row["entry"].endswith("Z-create")


def test_show(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What comes from an image cannot steer a terminal."""
    assert main(["show", NAME, *words]) == 0
    text = capsys.readouterr().out
    for line in (
        "result    failure", "  the image is bad", "image     debian.diskdump (diskdump), sha256 ab12",
        "system    debian 12", f"asked     hostname={NAME}, password", "seconds   copy 1.5, customize 2.2",
        "warning   mind the gap", "task      AddSwap: 0.50 s, skipped: not asked",
        "            modified /etc/shadow (root)",
        "task      InstallAgent: 2.00 s, what it changed is not known",
    ):  # fmt: skip
        assert f"{line}\n" in text
    assert "\x1b" not in text
    assert main(["show", NAME, "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["receipt"] == RECEIPT
    assert main(["show", NAME, "--console", *words]) == 0
    assert capsys.readouterr().out == "HELPER: up\n"


def test_no_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config").write_text(f"LOG_DIR={tmp_path / 'nowhere'}\n")
    assert main(["history", "--config", str(tmp_path / "config")]) == 0
    assert "no instance has a history" in capsys.readouterr().out
