"""The report of a matrix as one page that needs nothing else: no network, no other file.

Families down, requests across; each entry names its cells, and those open what is known of them. Outcomes are
words as well as colours; everything is made of elements that keyboards and screen readers know.
"""

from __future__ import annotations

import base64
import os
from typing import Final
from xml.etree import ElementTree as ET

from snf_image_vmtests import places
from snf_image_vmtests.fixture_images import FixtureImage, FixtureImageError, load_fixture
from snf_image_vmtests.matrix import Cell
from snf_image_vmtests.matrix_report import COLUMNS, Record, Reported, collect, record_of, summary, write_json
from snf_image_vmtests.own_image import Matrix

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { margin: 1.5rem; }
table { border-collapse: collapse; }
caption { text-align: left; padding: .3rem 0; }
th, td { border: 1px solid #8888; padding: .3rem .5rem; text-align: left; vertical-align: top; }
thead th { position: sticky; top: 0; background: Canvas; }
.wide { overflow-x: auto; }
.passed { background: #1a7f3726; } .failed { background: #d1242f40; }
.skipped, .not-run { background: #bf870040; }
.outcome { font-weight: 600; }
summary { cursor: pointer; }
:focus-visible { outline: 3px solid #0969da; outline-offset: 2px; }
@media (prefers-color-scheme: dark) { :focus-visible { outline-color: #58a6ff; } }
section > details { border: 1px solid #8888; margin: .4rem 0; padding: .3rem .6rem; }
pre { overflow: auto; max-height: 24rem; padding: .5rem; border: 1px solid #8888; }
img { max-width: 100%; }
ul { margin: .3rem 0; padding-left: 1.1rem; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
"""
_SCRIPT: Final = """
const STEPS = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
const openers = new Map();

function open_target() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.querySelector("summary").focus();
    target.scrollIntoView();
  }
}

// A link to a cell opens it each time, not only where the address changes, and is where Escape goes back to.
function follow(event) {
  const link = event.target.closest('a[href^="#cell-"]');
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    history.pushState(null, "", link.hash);
    open_target();
    openers.set(document.activeElement.parentElement, link);
  }
}

function close() {
  const open = document.activeElement.closest("details[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
    openers.get(open)?.focus();
    openers.delete(open);
  }
}

// To the next entry in a direction; what has none is passed over.
function move(event, [down, right]) {
  const cell = event.target.closest("td");
  let row = cell.parentElement.rowIndex, column = cell.cellIndex, next;
  do {
    row += down;
    column += right;
    next = event.currentTarget.rows[row]?.cells[column];
  } while (next && !next.querySelector("summary"));
  event.preventDefault();
  next?.querySelector("summary").focus();
}

addEventListener("hashchange", open_target);
document.addEventListener("click", follow);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
});
document.getElementById("overview").addEventListener("keydown", (event) => {
  const plain = !event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (plain && event.key in STEPS && event.target.localName === "summary") move(event, STEPS[event.key]);
});
open_target();
"""
_KEYS: Final = (
    "Tab goes to the next entry, the arrows to those beside it. Enter opens: an entry its cells, a cell its "
    "evidence. Escape closes, and goes back to where it was opened."
)


def page(title: str, cells: tuple[Reported, ...]) -> str:
    """The whole page."""
    top = ET.Element("html", lang="en")
    head = ET.SubElement(top, "head")
    ET.SubElement(head, "meta", charset="utf-8")
    ET.SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    ET.SubElement(head, "meta", name="viewport", content="width=device-width")
    _text(head, "title", title)
    _text(head, "style", _STYLE)
    body = ET.SubElement(top, "body")
    _text(body, "a", "Skip to the cells", href="#cells").set("class", "skip")
    main = ET.SubElement(body, "main")
    _text(main, "h1", title)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary(cells).items() if count)
    _text(main, "p", f"{len(cells)} cells: {counts or 'none'}.", id="summary")
    _text(main, "p", _KEYS)
    _overview(main, cells)
    section = ET.SubElement(main, "section", {"aria-labelledby": "cells"})
    _text(section, "h2", "Cells", id="cells", tabindex="-1")
    for reported in cells:
        _cell(section, reported)
    _text(body, "script", _SCRIPT)
    return "<!DOCTYPE html>\n" + ET.tostring(top, encoding="unicode", method="html") + "\n"


def write(directory: str, matrix: Matrix, *, since: float) -> str:
    """Write ``report.html`` and ``report.json`` about a run that began at ``since``; the page's path.

    Cells without evidence of this run are in it, as not run.
    """
    found = collect(os.path.join(places.build_directory(), "evidence"), since)
    cells = tuple(
        found.get(cell.id) or Reported(record=_not_run(cell, matrix.image)) for cell in matrix.cells
    )
    os.makedirs(directory, exist_ok=True)
    write_json(os.path.join(directory, "report.json"), cells)
    path = os.path.join(directory, "report.html")
    with open(path, "w", encoding="utf-8") as file:
        file.write(page("Compatibility matrix of snf-image", cells))
    return path


def _not_run(cell: Cell, image: FixtureImage | None) -> Record:
    try:
        facts = (image or load_fixture(cell.fixture)).facts
    except FixtureImageError:
        facts = None
    return record_of(cell, facts, "not run", 0.0, "")


def worst(cells: list[Reported]) -> str:
    """The outcome that a group of cells is shown with."""
    outcomes = {reported.record.outcome for reported in cells}
    return next(name for name in ("failed", "not run", "skipped", "passed") if name in outcomes)


def _overview(parent: ET.Element, cells: tuple[Reported, ...]) -> None:
    frame = ET.SubElement(
        parent, "div", {"class": "wide", "tabindex": "0", "role": "region", "aria-label": "Overview"}
    )
    table = ET.SubElement(frame, "table", id="overview")
    _text(table, "caption", "Families down, what was asked across. An entry opens the names of its cells.")
    row = ET.SubElement(ET.SubElement(table, "thead"), "tr")
    used = {name for reported in cells for name in reported.record.requests()}
    columns = [name for name in COLUMNS if name in used]
    for name in ("Family", *columns):
        _text(row, "th", name, scope="col")
    body = ET.SubElement(table, "tbody")
    families = dict.fromkeys(reported.record.family for reported in cells)
    for family in families:
        row = ET.SubElement(body, "tr")
        _text(row, "th", family, scope="row")
        for column in columns:
            inside = [
                reported
                for reported in cells
                if reported.record.family == family and column in reported.record.requests()
            ]
            _entry(row, inside)


def _entry(row: ET.Element, cells: list[Reported]) -> None:
    if not cells:
        _text(row, "td", "none")
        return
    counts = ", ".join(f"{count} {name}" for name, count in reversed(summary(cells).items()) if count)
    data = ET.SubElement(row, "td", {"class": _class(worst(cells))})
    details = ET.SubElement(data, "details")
    _text(details, "summary", counts)
    listed = ET.SubElement(details, "ul")
    for reported in cells:
        item = ET.SubElement(listed, "li")
        record = reported.record
        _text(item, "a", f"{record.cell.id}: {record.outcome}", href=f"#cell-{record.cell.id}")


def _cell(parent: ET.Element, reported: Reported) -> None:
    record = reported.record
    details = ET.SubElement(
        parent,
        "details",
        {
            "id": f"cell-{record.cell.id}",
            "class": _class(record.outcome),
            "aria-label": f"Evidence of {record.cell.id}",
        },
    )
    top = ET.SubElement(details, "summary")
    _text(
        top, "span", record.outcome, **{"class": "outcome"}
    ).tail = f" {record.cell.id}, {record.seconds:.1f} s"
    facts = f"{record.distribution} ({record.family}), {record.filesystem}, partition table {record.table}"
    _text(details, "p", f"Image {record.cell.fixture}: {facts}. Asked: {', '.join(record.requests())}.")
    if record.message:
        _log(details, record.cell.id, "What went wrong", record.message)
    for number, path in enumerate(reported.screenshots, 1):
        with open(path, "rb") as file:
            data = base64.b64encode(file.read()).decode("ascii")
        text = f"Screen {number} of {record.cell.id}; its text is in the console's log"
        ET.SubElement(details, "img", src=f"data:image/png;base64,{data}", alt=text)
    if reported.steps:
        _timings(details, reported)
    for title, text in reported.logs:
        _log(details, record.cell.id, title, text)


def _timings(parent: ET.Element, reported: Reported) -> None:
    inner = ET.SubElement(parent, "details")
    _text(inner, "summary", "Timings")
    frame = ET.SubElement(inner, "div", {"class": "wide"})
    table = ET.SubElement(frame, "table", {"class": "timings"})
    _text(table, "caption", f"Steps of {reported.record.cell.id}")
    row = ET.SubElement(ET.SubElement(table, "thead"), "tr")
    for name in ("Seconds", "Result", "Step"):
        _text(row, "th", name, scope="col")
    body = ET.SubElement(table, "tbody")
    for step in reported.steps:
        row = ET.SubElement(body, "tr")
        for text in (f"{step.seconds:.2f}", step.verdict, step.text):
            _text(row, "td", text)


def _log(parent: ET.Element, cell: str, title: str, text: str) -> None:
    inner = ET.SubElement(parent, "details")
    _text(inner, "summary", title)
    # It scrolls, so it must be reachable by keyboard.
    _text(inner, "pre", text, tabindex="0", role="region", **{"aria-label": f"{title} of {cell}"})


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element
