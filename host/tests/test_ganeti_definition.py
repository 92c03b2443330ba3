"""The directory of the OS definition: exactly what Ganeti takes, made from the table of parameters."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from snf_image_host.cli.main import main
from snf_image_host.ganeti.definition import definition_files, find_distrust, parameters_list, script_text
from snf_image_host.parameters.os_parameters import OS_PARAMETERS
from snf_image_process import run


def test_parameters_list() -> None:
    """Each line has a name and a text, in ASCII; a blank line or a comment would break Ganeti's commands."""
    lines = parameters_list().splitlines()
    assert [line.split(" ")[0] for line in lines] == [row.name for row in OS_PARAMETERS]
    assert len(lines) == 12
    for line in lines:
        assert re.fullmatch(r"[a-z_]+ [!-~][ -~]+", line), line


def install(tmp_path: Path, *words: str) -> tuple[int, Path, Path]:
    """Run the command; the definition and the directory of variants."""
    config = tmp_path / "config"
    config.write_text(f"VARIANTS_DIR={tmp_path / 'variants'}\n")
    directory = tmp_path / "os/snf-image"
    status = main(["ganeti", "install", "--os-dir", str(directory), "--config", str(config), *words])
    return status, directory, tmp_path / "variants"


def test_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-SCR-3, D-27: what Ganeti needs, executable where it must be, and an empty default variant."""
    status, directory, variants = install(tmp_path, "--json")
    assert status == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    programs = dict.fromkeys(("create", "import", "export", "rename", "verify"), 0o755)
    texts = dict.fromkeys(("ganeti_api_version", "parameters.list", "variants.list"), 0o644)
    assert modes == programs | texts
    assert (directory / "ganeti_api_version").read_text() == "20\n"
    assert (directory / "variants.list").read_text() == "default\n"
    assert (variants / "default.conf").read_text().startswith("#")
    document = json.loads(capsys.readouterr().out)
    assert len(document["written"]) == 9


def test_install_again(tmp_path: Path) -> None:
    """The operator's variants and files stay; ours are renewed whole, also while one of them runs."""
    _, directory, variants = install(tmp_path)
    (directory / "variants.list").write_text("default\nmine\n")
    (variants / "default.conf").write_text("SWAP=x\n")
    (directory / "create").write_text("old")
    (directory / "notes").write_text("mine")
    old = os.stat(directory / "create").st_ino
    assert install(tmp_path)[0] == 0
    assert (directory / "variants.list").read_text() == "default\nmine\n"
    assert (variants / "default.conf").read_text() == "SWAP=x\n"
    assert (directory / "notes").read_text() == "mine"
    assert (directory / "create").read_text() == script_text("create", sys.executable)
    assert os.stat(directory / "create").st_ino != old
    assert len(os.listdir(directory)) == 9


def test_install_where_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "os").write_text("a file")
    assert install(tmp_path)[0] == 5
    assert "the OS definition cannot be written" in capsys.readouterr().err


def test_scripts_run(tmp_path: Path) -> None:
    """R-SCR-1: as they are written; whatever lies in the working directory or the environment."""
    for file in definition_files(sys.executable):
        if file.mode == 0o755:
            path = tmp_path / file.name
            path.write_text(file.text)
            path.chmod(0o755)
    (tmp_path / "snf_image_host.py").write_text("raise SystemExit(7)")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "snf_image_host.py")}
    done = run([str(tmp_path / "verify"), "--help"], timeout=30, cwd=str(tmp_path), env=environment)
    assert done.stderr.startswith(b"usage: verify [parameters]\n")
    done = run([str(tmp_path / "create")], timeout=30, cwd=str(tmp_path), accept=(1,))
    assert b"OS_API_VERSION is missing: this script is started by Ganeti" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_interpreter_with_spaces() -> None:
    assert "exec '/opt/my python/bin/python3' -I" in script_text("create", "/opt/my python/bin/python3")


def test_who_can_write_to_it(tmp_path: Path) -> None:
    """Root will run it, so an operator is told if others can change it."""
    assert find_distrust("/bin/sh") is None
    path = tmp_path / "python3"
    path.write_text("")
    path.chmod(0o777)
    assert find_distrust(str(path)) is not None
    assert find_distrust(str(tmp_path / "nothing")) is not None
