"""The matrix's report: from evidence to data and to a page, read in a browser without a screen."""

import json
import os
from html.parser import HTMLParser

import pytest

from snf_image_process import run
from snf_image_vmtests.capabilities import CHROMIUM, find_program

CELLS = ("good", "bad", "other", "never")


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
    assert {f"#cell-{cell}" for cell in CELLS} | {"#cells"} == set(dom.links)
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
