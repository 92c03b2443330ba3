"""The committed reference pages are those that the tables make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snf_image_host.cli.arguments import build_parser
from snf_image_host.cli.reference import PAGES, write_pages
from snf_image_host.configuration.variables import VARIABLES
from snf_image_host.parameters.os_parameters import OS_PARAMETERS
from snf_image_host.parameters.property_table import PROPERTIES
from snf_image_host.parameters.table import Row

REFERENCE = Path(__file__).parents[2] / "docs/reference"


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_the_generated_one(name: str) -> None:
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == PAGES[name](), "run: python3 -m snf_image_host.cli.reference docs/reference"


def test_no_other_page_lies_there() -> None:
    assert set(os.listdir(REFERENCE)) == set(PAGES)


def test_pages_are_written(tmp_path: Path) -> None:
    write_pages(str(tmp_path / "new"))
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(PAGES)


@pytest.mark.parametrize("row", [*OS_PARAMETERS, *PROPERTIES, *VARIABLES], ids=lambda row: row.name)
def test_every_row_is_complete(row: Row) -> None:
    assert row.help.endswith(".")
    assert row.values
    assert row.example
    assert row.since in ("0.x", "1.0")


def test_names_are_unique() -> None:
    for table in (OS_PARAMETERS, PROPERTIES, VARIABLES):
        assert len({row.name for row in table}) == len(table)


@pytest.mark.parametrize("row", PROPERTIES, ids=lambda row: row.name)
def test_help_lists_every_property(row: Row) -> None:
    for parser in build_parser().commands():
        if parser.prog.endswith(("deploy", "customize", "inspect")):
            assert f"\n  {row.name} " in parser.format_help()
