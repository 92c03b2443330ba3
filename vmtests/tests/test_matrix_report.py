"""The matrix's report: from evidence to data and to a page, read in a browser without a screen."""

import base64
import json
import os
from html.parser import HTMLParser

import pytest

from snf_image_process import run
from snf_image_vmtests import matrix_report, report_page
from snf_image_vmtests.capabilities import CHROMIUM, find_program
from snf_image_vmtests.fixture_images import Facts, Setting
from snf_image_vmtests.matrix import Cell, decode_cells
from snf_image_vmtests.own_image import Matrix

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
NASTY = '</pre><script>document.title="broken"</script>\x1b[31m & <b>'
CELLS = decode_cells(
    "test",
    {
        "cells": [
            {"id": "good", "fixture": "f", "disk_size": 64, "hostname": "h", "credential": "password+keys"},
            {"id": "bad", "fixture": "f", "disk_size": 64, "hostname": "h", "swap": "2:32"},
            {"id": "other", "fixture": "g", "disk_size": 64, "network": "static+slaac"},
            {"id": "never", "fixture": "none-such", "disk_size": 64},
        ]
    },
)


def _facts(family: str) -> Facts:
    return Facts(
        family=family,
        distribution="any",
        root_partition=1,
        root_filesystem="ext4",
        table="gpt",
        accounts=(),
        hostname=Setting(path="/etc/hostname"),
    )


def _evidence(build: str, cell: Cell, family: str, outcome: matrix_report.Outcome, message: str = "") -> str:
    directory = os.path.join(build, "evidence", f"test-{cell.id}")
    os.makedirs(directory)
    record = matrix_report.record_of(cell, _facts(family), outcome, 12.34, message)
    matrix_report.write_record(directory, record)
    for name, data in {
        "steps.txt": b"   1.50 s  ok      deploy f\n  10.00 s  failed  look at it: a  b\nnot a step\n",
        "receipt.json": b'{"result": "success"}\n',
        "helper-console.log": f"booting\n{NASTY}\n".encode(),
        "empty.log": b"",
        "vm-screen.png": PIXEL,
    }.items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(data)
    return directory


@pytest.fixture
def report(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """The directory of a report about a run with one failure, one cell that did not run, an old cell."""
    build = str(tmp_path)
    monkeypatch.setenv("SNF_IMAGE_BUILD", build)
    good, bad, other, _ = CELLS
    _evidence(build, good, "debian", "passed")
    _evidence(build, bad, "debian", "failed", f"AssertionError: {NASTY}")
    old = _evidence(build, other, "arch", "passed")
    os.utime(os.path.join(old, matrix_report.RECORD), (1000, 1000))
    output = os.path.join(build, "matrix")
    assert report_page.write(output, Matrix(cells=CELLS), since=2000) == os.path.join(output, "report.html")
    return output


def test_report_json_has_every_cell_with_its_outcome_and_evidence(report: str) -> None:
    with open(os.path.join(report, "report.json"), encoding="utf-8") as file:
        plain = json.load(file)
    assert plain["summary"] == {"passed": 1, "failed": 1, "skipped": 0, "not run": 2}
    rows = {row["id"]: row for row in plain["cells"]}
    assert [row["outcome"] for row in rows.values()] == ["passed", "failed", "not run", "not run"]
    assert rows["good"]["requests"] == ["hostname", "password", "keys"]
    assert rows["bad"]["requests"] == ["hostname", "swap partition"]
    assert rows["other"]["requests"] == ["static IPv4", "IPv6 SLAAC"]
    assert rows["never"]["requests"] == ["nothing"]
    assert rows["bad"]["steps"] == [
        {"seconds": 1.5, "verdict": "ok", "text": "deploy f"},
        {"seconds": 10.0, "verdict": "failed", "text": "look at it: a  b"},
    ]
    assert os.path.isdir(rows["good"]["evidence"])
    assert rows["other"]["evidence"] is None, "evidence of an earlier run is none"


def test_the_page_needs_nothing_else_and_forbids_it(report: str) -> None:
    with open(os.path.join(report, "report.html"), encoding="utf-8") as file:
        text = file.read()
    assert "default-src 'none'" in text
    for word in ("http://", "https://", 'src="//', "@import", "url("):
        assert word not in text


class Dom(HTMLParser):
    """What a test asks of a page: elements by id, tables' rows, links, texts of elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: dict[str, dict[str, str | None]] = {}
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.scopes: list[tuple[str | None, str]] = []
        self.rows: list[list[str]] = []
        self.title = ""
        self.tags: list[str] = []
        self._path: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self._path.append(tag)
        if "id" in found:
            self.ids[str(found["id"])] = found
        if tag == "a":
            self.links.append(str(found["href"]))
        if tag == "img":
            self.images.append(found)
        if tag == "th":
            self.scopes.append((found.get("scope"), ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._path.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._path[-1:] == ["title"]:
            self.title += data
        if "tr" in self._path and self.rows[-1] and not {"ul"} & set(self._path):
            self.rows[-1][-1] += data


def browse(report: str, fragment: str = "") -> Dom:
    """The page's elements as a browser has them once its script has run."""
    browser = next(name for name in CHROMIUM if find_program(name))
    argv = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={report}/browser", "--virtual-time-budget=2000", "--dump-dom",
        f"file://{report}/report.html{fragment}",
    ]  # fmt: skip
    return Dom(run(argv, timeout=120, env={"HOME": report}).text)


@pytest.mark.requires("chromium")
def test_a_browser_shows_families_down_and_requests_across(report: str) -> None:
    dom = browse(report)
    assert dom.title == "Compatibility matrix of snf-image", "what a log says became part of the page"
    header, debian, unknown = dom.rows[:3]
    assert header == [
        "Family", "nothing", "hostname", "password", "keys", "swap partition", "static IPv4", "IPv6 SLAAC",
    ]  # fmt: skip
    assert debian == [
        "debian",
        "none",
        "1 failed, 1 passed",
        "1 passed",
        "1 passed",
        "1 failed",
        "none",
        "none",
    ]
    assert unknown == ["unknown", "1 not run", "none", "none", "none", "none", "1 not run", "1 not run"]
    assert all(scope in ("row", "col") for scope, _ in dom.scopes)
    assert {f"#cell-{cell.id}" for cell in CELLS} | {"#cells"} == set(dom.links)
    assert {link.removeprefix("#") for link in dom.links} <= dom.ids.keys(), "a link leads nowhere"
    assert dom.ids["cell-bad"]["class"] == "failed"
    assert len(dom.images) == 2
    assert all(image["alt"] and str(image["src"]).startswith("data:image/png") for image in dom.images)
    assert "open" not in dom.ids["cell-bad"]
    assert dom.tags.count("script") == 1, "what a log says became part of the page"
    assert ["10.00", "failed", "look at it: a  b"] in dom.rows


@pytest.mark.requires("chromium")
def test_a_link_to_a_cell_opens_it(report: str) -> None:
    dom = browse(report, "#cell-bad")
    assert "open" in dom.ids["cell-bad"]
    assert "open" not in dom.ids["cell-good"]
