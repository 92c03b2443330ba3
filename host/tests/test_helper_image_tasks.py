"""Task files that the operator adds to the helper image: what is taken and what is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from builder import command, manifest
from builder.base import EPOCH
from builder.tasks import read_tasks

CHECKOUT = Path(__file__).parents[2]
SCRIPT = "#!/bin/sh\ntrue\n"


def put(directory: Path, name: str, content: str | bytes = SCRIPT, mode: int = 0o755) -> Path:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def refused(directory: Path) -> str:
    with pytest.raises(OSError, match=r".") as caught:
        read_tasks(str(directory))
    return str(caught.value)


def test_task_files_are_read_in_their_order(tmp_path: Path) -> None:
    """D-34: scripts with an interpreter of the helper, and programs of the machine."""
    put(tmp_path, "55InstallAgent")
    put(tmp_path, "05First", "#!/usr/bin/env python3\n")
    put(tmp_path, "90Last", b"\x7fELF\x02", 0o700)
    assert read_tasks(str(tmp_path)) == ["05First", "55InstallAgent", "90Last"]


def test_what_editors_leave_behind_is_left_out_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D-34."""
    names = [".hidden", "55InstallAgent.bak", "55InstallAgent.dpkg-new", "55InstallAgent~"]
    for name in names:
        put(tmp_path, name, "", 0o644)
    (tmp_path / ".git").mkdir()
    assert read_tasks(str(tmp_path)) == []
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(names) + 1
    assert all("is no task, it is left out" in line for line in said)


@pytest.mark.parametrize(
    "name", ["README", "5Agent", "55install-agent", "55agent.sh", "50AddSwap", "99addswap"]
)
def test_any_other_name_is_refused(name: str, tmp_path: Path) -> None:
    """D-34: and that of a built-in task, whatever its number."""
    put(tmp_path, name)
    assert "cannot be a task: its name must be two digits" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("true\n", "the first line must begin with #!"),
        ("", "the first line must begin with #!"),
        ("#!/usr/bin/perl\n", "interpreter '/usr/bin/perl' is none of /bin/sh, /bin/bash, /usr/bin/python3"),
    ],
)
def test_what_the_helper_cannot_run_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    """D-34, R-TASK-CUS-1."""
    put(tmp_path, "55Agent", content)
    assert reason in refused(tmp_path)


def test_only_executable_regular_files_are_taken(tmp_path: Path) -> None:
    """D-34."""
    path = put(tmp_path, "55Agent", mode=0o644)
    assert refused(tmp_path) == f"the task {path} is not executable: chmod +x {path}"
    path.unlink()
    path.symlink_to("/bin/true")
    assert refused(tmp_path) == f"the task {path} is not a regular file"
    path.unlink()
    assert "No such file" in refused(tmp_path / "none")


def test_one_name_is_one_task(tmp_path: Path) -> None:
    """D-34: one property excludes it."""
    put(tmp_path, "55Agent")
    put(tmp_path, "60AGENT")
    assert "the tasks 55Agent and 60AGENT have the same name" in refused(tmp_path)
    for number in range(101):
        put(tmp_path, f"10t{number}")
    (tmp_path / "60AGENT").unlink()
    assert "holds 102 tasks, at most 100 can be added" in refused(tmp_path)


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr("sys.argv", ["build", "--base", "registry/debian", *words])
    options = command._parse(str(CHECKOUT))
    options.added = read_tasks(options.tasks) if options.tasks else []
    return options


def test_the_image_is_built_again_when_a_task_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-34: names and contents are among what a build depends on; an empty directory is as none at all."""

    def digest() -> str:
        options = asked(tmp_path, monkeypatch, "--tasks", str(tmp_path))
        return command._inputs_digest(str(CHECKOUT), options)

    without = command._inputs_digest(str(CHECKOUT), asked(tmp_path, monkeypatch))
    seen = [digest()]
    assert seen == [without]
    path = put(tmp_path, "55Agent")
    seen.append(digest())
    put(tmp_path, "55Agent", "#!/bin/sh\nfalse\n")
    seen.append(digest())
    path.rename(tmp_path / "56Agent")
    seen.append(digest())
    assert len(set(seen)) == 4


def test_tasks_come_into_the_image_with_even_modes_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-34, D-35: whatever the umask and the clock; and without any, there is no trace of them."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    put(tasks, "55Agent", mode=0o700)
    command._make_context(
        str(CHECKOUT), str(tmp_path / "with"), asked(tmp_path, monkeypatch, "--tasks", str(tasks))
    )
    command._make_context(str(CHECKOUT), str(tmp_path / "without"), asked(tmp_path, monkeypatch))
    added = tmp_path / "with/code/tasks/55Agent"
    status = added.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, EPOCH)
    assert added.read_text() == SCRIPT
    found = {str(path.relative_to(tmp_path / "with")) for path in (tmp_path / "with").rglob("*")}
    plain = {str(path.relative_to(tmp_path / "without")) for path in (tmp_path / "without").rglob("*")}
    assert found - plain == {"code/tasks", "code/tasks/55Agent"}
    assert plain <= found


def test_the_manifest_lists_them(tmp_path: Path) -> None:
    """D-34: and does not mention them where there are none."""
    share = tmp_path / "root/usr/share/snf-image"
    share.mkdir(parents=True)
    (share / "packages.tsv").write_text("bash\t5.2\tamd64\tbash\t5.2\n")
    for name in manifest.ARTEFACTS:
        (tmp_path / name).write_bytes(b"x")
    for tasks in (["55Agent"], []):
        manifest.write_manifest(str(tmp_path / "root"), str(tmp_path), "b", 2, tasks)
        document = json.loads((tmp_path / "manifest.json").read_text())
        assert document.get("tasks") == (tasks or None)
    assert "tasks" not in document


def test_a_wrong_file_ends_the_build_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D-34: one line that names it."""
    put(tmp_path, "README", "text")
    umask = os.umask(0o022)
    try:
        monkeypatch.setattr(
            "sys.argv", ["build", "--tasks", str(tmp_path), "--output", str(tmp_path / "out")]
        )
        assert command.main(str(CHECKOUT)) == 5
    finally:
        os.umask(umask)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the helper image was not built: ")
    assert f"{tmp_path}/README" in line
    assert not (tmp_path / "out").exists()
