"""The operator's pages say what is true: their commands, messages, variables and rules exist (D-23)."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from snf_image_host.cli.arguments import parse_arguments
from snf_image_host.configuration.variables import BY_NAME, OBSOLETE
from snf_image_host.parameters.os_parameters import OS_PARAMETERS

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PREFIXES = ("HELPER_", "IMAGE_", "FETCH_", "LOG_", "SPOOL_", "TRUSTED_", "VARIANTS_", "RENAME_")


def blocks(page: str) -> list[str]:
    """The lines of the blocks of shell code on a page."""
    found = re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines() if line]


@pytest.mark.parametrize("line", [line for line in blocks("quick-start.md") if line.startswith("snf-image ")])
def test_the_commands_of_the_quick_start_are_understood(line: str) -> None:
    assert parse_arguments(shlex.split(line)[1:]).command


def test_the_parameters_of_the_quick_start_exist() -> None:
    (line,) = (line for line in blocks("quick-start.md") if "gnt-instance add" in line)
    words = shlex.split(line)
    given = [words[words.index(option) + 1] for option in ("-O", "--os-parameters-private")]
    names = {part.partition("=")[0] for word in given for part in word.split(",")}
    assert names == {"img_id", "img_format", "img_passwd"} <= {row.name for row in OS_PARAMETERS}


def test_every_message_of_the_troubleshooting_page_is_one_of_the_code() -> None:
    folders = ("host/snf_image_host", "helper/snf_image_helper")
    code = "".join(
        path.read_text() for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))
    )
    page = (DOCS / "troubleshooting.md").read_text().partition("## The request")[2]
    messages = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    assert len(messages) > 25
    assert [message for message in messages if message not in code] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_variables_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`([A-Z]+_[A-Z_0-9]+)(?:=[^`]*)?`", page.read_text()))
    ours = {name for name in named if name.startswith(PREFIXES)}
    assert ours <= set(BY_NAME) | set(OBSOLETE)


def test_the_security_model_names_rules_and_tests_that_exist() -> None:
    """Each rule of a promise is documented; each place where it is proved is there and cites one of them."""
    behaviour = "".join(path.read_text() for path in (DOCS / "behaviour").glob("*.md"))
    rows = re.findall(
        r"^\| [^|]+ \| ([RTD]-[^|]+) \| ([^|]+) \|$", (DOCS / "security.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 10
    faults = []
    for rules, places in rows:
        names = [name.strip() for name in rules.split(",")]
        faults += [f"{name} is on no page" for name in names if f"**{name}**" not in behaviour]
        for place in re.findall(r"`([^`]+)`", places):
            path = CHECKOUT / place
            files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
            text = "".join(file.read_text() for file in files)
            if not any(re.search(rf"\b{re.escape(name)}\b", text) for name in names):
                faults.append(f"{place} proves none of {rules}")
    assert faults == []


def test_the_progress_interface_has_every_kind_of_message() -> None:
    code = (CHECKOUT / "host/snf_image_host/sinks/messages.py").read_text()
    page = (DOCS / "progress-interface.md").read_text()
    rows = re.findall(r"^\| `(image-[a-z-]+)` \|([^|]*)\|", page, re.MULTILINE)
    told = {(kind, subtype) for kind, cell in rows for subtype in re.findall(r"`([a-z-]+)`", cell) or [""]}
    made = re.findall(r'"type": "([a-z-]+)"(?:,\s*"subtype": "([a-z-]+)")?', code)
    assert told == set(made)


def test_the_files_of_the_evidence_are_called_what_the_page_says() -> None:
    code = "".join(path.read_text() for path in sorted((CHECKOUT / "host/snf_image_host").rglob("*.py")))
    rows = re.findall(r"^\| (`.+?) \|", (DOCS / "replay.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) > 6
    assert [name for name in names if f'"{name}"' not in code] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: path.name)
def test_no_page_has_marks_of_argparse(page: Path) -> None:
    assert "%(" not in page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_that_a_page_names_are_understood(page: Path) -> None:
    spans = re.findall(r"`(snf-image [a-z][^`]*)`", page.read_text().replace("\n", " "))
    for span in spans:
        words = shlex.split(span)[1:]
        if "…" not in span and len(words) > 1:
            assert parse_arguments(words).command


def test_the_packages_have_the_version_of_the_project() -> None:
    """What Python calls 1.0.0.dev0 sorts before 1.0.0 in Debian as 1.0.0~dev0."""
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    assert (
        (CHECKOUT / "debian/changelog")
        .read_text()
        .startswith(f"snf-image ({version.replace('.dev', '~dev')}) ")
    )
