"""The helper image on the node: what is accepted, what is refused and why."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from snf_image_contract.job import CONTRACT_VERSION
from snf_image_host.cli.main import main
from snf_image_host.errors import NodeError, UserError
from snf_image_host.helper_image import added_tasks, build, load, verify

FILES = {"kernel": b"kernel", "initrd": b"initrd", "root.img": b"root", "disk.img": b"disk"}


def manifest() -> dict[str, Any]:
    return {
        "format": 1,
        "build": "b" * 64,
        "contract_version": CONTRACT_VERSION,
        "cmdline": "quiet",
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in FILES.items()
        },
        "packages": [{"name": "bash", "version": "5.2"}],
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o644)
    write(tmp_path, manifest())
    return tmp_path


def write(directory: Path, document: object) -> None:
    (directory / "manifest.json").write_text(json.dumps(document))
    (directory / "manifest.json").chmod(0o644)


def test_a_whole_image_is_accepted(directory: Path) -> None:
    image = load(str(directory))
    assert (image.build, image.contract_version, image.cmdline) == ("b" * 64, CONTRACT_VERSION, "quiet")
    assert (image.kernel, image.root) == (str(directory / "kernel"), str(directory / "root.img"))
    assert image.packages[0].name == "bash"
    assert verify(str(directory)) == []


def test_the_tasks_of_the_operator_are_shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D-34: `helper info` lists them; without any there is no line."""
    assert added_tasks(str(directory)) == ()
    for tasks, shown in (([], []), (["05First", "55Agent"], ["tasks             05First, 55Agent"])):
        write(directory, manifest() | {"tasks": tasks})
        assert added_tasks(str(directory)) == tuple(tasks)
        assert main(["helper", "info", "--helper-dir", str(directory)]) == 0
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("tasks")] == shown
    assert main(["helper", "info", "--json", "--helper-dir", str(directory)]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == ["05First", "55Agent"]
    assert added_tasks(str(directory / "none")) == ()


def test_the_base_is_shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-HLP-17: the registry's image, and its digest where the engine knew it."""
    for digest, shown in (("sha256:12", "debian:12 sha256:12"), ("", "debian:12")):
        write(directory, manifest() | {"base": {"image": "debian:12", "digest": digest}})
        assert main(["helper", "info", "--helper-dir", str(directory)]) == 0
        assert f"base              {shown}" in capsys.readouterr().out.splitlines()
    write(directory, manifest())
    assert load(str(directory)).base is None


def test_no_image_at_all_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="there is no helper image in") as error:
        load(str(tmp_path))
    assert "snf-image helper build" in error.value.hint
    assert verify(str(tmp_path)) == [f"there is no helper image in {tmp_path}"]


def test_another_contract_is_refused_before_anything_starts(directory: Path) -> None:
    """R-HLP-17, D-20: the contract version of the manifest decides, and the message says how to rebuild."""
    write(directory, manifest() | {"contract_version": 99})
    with pytest.raises(NodeError, match="speaks contract version 99") as error:
        load(str(directory))
    assert "helper build" in error.value.hint
    assert verify(str(directory)) == [f"contract version 99, this host speaks {CONTRACT_VERSION}"]


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"files": []},
        manifest() | {"files": {"../kernel": {"size": 1, "sha256": "x"}}},
        manifest() | {"files": {}},
        manifest()
        | {"files": {name: entry for name, entry in manifest()["files"].items() if name != "initrd"}},
        manifest() | {"files": {"kernel": {"size": "1", "sha256": "x"}}},
        manifest() | {"build": 1},
        manifest() | {"surprise": 1},
        manifest() | {"tasks": ["InstallAgent"]},
        manifest() | {"tasks": ["50AddSwap"]},
        manifest() | {"base": {"image": "debian:12"}},
        manifest() | {"tasks": [f"10t{number}" for number in range(101)]},
        manifest() | {"format": 2},
    ],
)
def test_a_strange_manifest_is_an_error_of_one_line(directory: Path, document: object) -> None:
    write(directory, document)
    with pytest.raises(NodeError) as error:
        load(str(directory))
    assert len(error.value.messages) == 1
    assert str(directory) in error.value.messages[0]


def test_a_manifest_that_is_no_json(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")
    with pytest.raises(NodeError, match="not valid JSON"):
        load(str(directory))


def test_a_missing_artefact_is_named(directory: Path) -> None:
    (directory / "initrd").unlink()
    with pytest.raises(NodeError, match="initrd is missing"):
        load(str(directory))


def test_a_truncated_artefact_is_noticed_without_reading_it(directory: Path) -> None:
    (directory / "root.img").write_bytes(b"r")
    with pytest.raises(NodeError, match=r"root\.img has 1 bytes, its manifest says 4"):
        load(str(directory))


def test_a_flipped_bit_is_found_by_verify(directory: Path) -> None:
    """R-HLP-18, T-48: SHA-256 of every artefact; all problems at once."""
    (directory / "root.img").write_bytes(b"ro0t")
    (directory / "kernel").write_bytes(b"kernek")
    problems = verify(str(directory))
    assert [os.path.basename(problem.split()[0]) for problem in problems] == ["kernel", "root.img"]
    assert all("sha256" in problem for problem in problems)


@pytest.mark.parametrize("name", ["", "manifest.json", "kernel"])
def test_what_others_can_write_is_refused(directory: Path, name: str) -> None:
    """R-HLP-18, D-8: a helper image belongs to root or its user, and nobody else writes it."""
    path = directory / name if name else directory
    path.chmod(0o777)
    with pytest.raises(NodeError, match="can be written by others") as error:
        load(str(directory))
    assert error.value.hint == f"chmod go-w {path}"
    assert any("can be written by others" in problem for problem in verify(str(directory)))


@pytest.mark.requires("root")
def test_what_belongs_to_somebody_else_is_refused(directory: Path) -> None:
    """D-8: owned by root or the caller."""
    os.chown(directory / "kernel", 12345, 0)
    with pytest.raises(NodeError, match="belongs to uid 12345"):
        load(str(directory))


# -- building -------------------------------------------------------------------------------------

BUILDER = """\
import json, os, sys
json.dump([sys.argv[1:], dict(os.environ)], open(sys.argv[2] + ".told", "w"))
sys.exit(int(os.path.exists(sys.argv[2] + ".broken")))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source tree whose builder only notes how it was called."""
    (tmp_path / "source/helper-image").mkdir(parents=True)
    (tmp_path / "source/helper-image/build").write_text(BUILDER)
    return tmp_path / "source"


def test_building_is_the_programs_that_make_runs_with_the_way_to_the_network(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Options arrive, and of the environment only where container service and proxies are."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/podman.sock")
    monkeypatch.setenv("https_proxy", "http://192.0.2.1:3128")
    monkeypatch.setenv("SNF_IMAGE_PASSWD", "x")
    output = str(tmp_path / "out")
    with capfd.disabled():
        build(output=output, source=str(source), engine="docker", base="debian:12", refresh=True, tasks="/t")
    words, environment = json.loads(Path(output + ".told").read_text())
    assert words == [
        "--output",
        output,
        "--engine",
        "docker",
        "--base",
        "debian:12",
        "--refresh",
        "--tasks",
        "/t",
    ]
    assert environment["DOCKER_HOST"] == "unix:///run/podman.sock"
    assert environment["https_proxy"] == "http://192.0.2.1:3128"
    assert "SNF_IMAGE_PASSWD" not in environment


def test_a_build_that_fails_says_where_the_cause_stands(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.broken").touch()
    with capfd.disabled(), pytest.raises(NodeError, match="was not built") as error:
        build(output=str(tmp_path / "out"), source=str(source), engine="docker")
    assert error.value.hint == "the lines above say why"


def test_building_needs_the_source_tree(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source tree") as error:
        build(output=str(tmp_path / "out"), source=str(tmp_path))
    assert "--source" in error.value.hint


def test_buildah_needs_root(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NodeError, match="needs root") as error:
        build(output=str(tmp_path / "out"), source=str(source))
    assert error.value.hint == "run the command as root"
