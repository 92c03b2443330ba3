"""Manual pages, completion and default configuration follow the tables (D-15)."""

from __future__ import annotations

import os
import re

import pytest

from snf_image_host.cli import manuals
from snf_image_host.configuration.files import ConfigFile
from snf_image_host.configuration.node_config import NodeConfig, load_config
from snf_image_host.configuration.variables import VARIABLES
from snf_image_process import run


def test_there_is_a_page_for_every_command() -> None:
    names = {"deploy", "customize", "inspect", "helper", "doctor", "ganeti", "history", "show"}
    assert {f"snf-image-{name}.1" for name in names} | {
        "snf-image.1",
        "snf-image.conf.5",
        "snf-image-update-helper.1",
    } <= set(manuals.manual_pages())


def test_a_page_names_every_option_and_escapes_what_roff_would_take() -> None:
    page = manuals.manual_pages()["snf-image-deploy.1"]
    assert "\\fB\\-\\-password\\-file FILE\\fR" in page
    assert not re.search(r"^(?:'|\.(?!TH|SH|SS|TP|PP|B |br|nf|fi))", page, re.MULTILINE)


def test_no_help_text_is_left_with_the_marks_of_argparse() -> None:
    assert not [name for name, text in manuals.manual_pages().items() if "%(" in text]


def test_the_default_configuration_changes_nothing_and_names_every_variable(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "snf-image")
    text = manuals.default_configuration()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    owners = (0, os.geteuid())
    assert load_config([ConfigFile(path=path, owners=owners)]) == NodeConfig.defaults()
    assert all(f"\n#{row.name}=" in text for row in VARIABLES)


def test_what_the_default_configuration_shows_is_the_default(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "snf-image")
    with open(path, "w", encoding="utf-8") as file:
        file.write(re.sub(r"^#(?=[A-Z])", "", manuals.default_configuration(), flags=re.MULTILINE))
    assert load_config([ConfigFile(path=path, owners=(0, os.geteuid()))]) == NodeConfig.defaults()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["snf-image", "dep"], "deploy"),
        (["snf-image", "helper", "ver"], "verify"),
        (["snf-image", "deploy", "--host"], "--hostname"),
        (["snf-image-update-helper", "--sha"], "--sha256"),
    ],
)
def test_bash_completes(tmp_path: object, words: list[str], expected: str) -> None:
    path = os.path.join(str(tmp_path), "completion")
    with open(path, "w", encoding="utf-8") as file:
        file.write(manuals.completion())
    function = "_snf_image" if words[0] == "snf-image" else "_snf_image_update_helper"
    script = 'source "$1"; f=$2; shift 2; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); $f; echo "${COMPREPLY[*]}"'
    shown = run(["bash", "-eu", "-c", script, "bash", path, function, *words], timeout=20).text
    assert shown.split() == [expected]
