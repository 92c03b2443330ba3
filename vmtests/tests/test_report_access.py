"""The matrix's report for those who have no mouse, see no colours, or have it read to them (WCAG 2.2, AA)."""

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from snf_image_vmtests.browser import Browser

pytestmark = pytest.mark.requires("chromium")

FOCUS = """(() => {
  const at = document.activeElement, box = at.getBoundingClientRect(), style = getComputedStyle(at);
  return {
    tag: at.localName, id: at.id, text: (at.getAttribute("aria-label") ?? at.textContent).trim(),
    cell: at.closest("details[id]")?.id ?? null, column: at.closest("td")?.cellIndex ?? null,
    row: at.closest("tr")?.cells[0].textContent ?? null,
    outline: style.outlineStyle, width: parseFloat(style.outlineWidth), color: style.outlineColor,
    seen: box.width > 0 && box.left >= 0 && box.top >= 0 && box.top < innerHeight && box.left < innerWidth,
  };
})()"""
"""What a user sees of where the focus is."""

COLOURS = """(() => {
  const probe = document.body.appendChild(document.createElement("p"));
  probe.style.background = "Canvas";
  const canvas = getComputedStyle(probe).backgroundColor;
  probe.remove();
  const painted = (one) => getComputedStyle(one).backgroundColor;
  const behind = (one) => one ? [...behind(one.parentElement), painted(one)] : [canvas];
  return [...document.body.querySelectorAll("*")].filter((one) => one.checkVisibility()
    && [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
  ).map((one) => ({
    text: one.textContent.trim().slice(0, 40), color: getComputedStyle(one).color, behind: behind(one),
    outcome: one.closest(".passed, .failed, .skipped, .not-run")?.className ?? null,
  }));
})()"""
"""Everything that has text: its colour, and what is painted behind it, the farthest first."""


@pytest.fixture(scope="module")
def browser(report: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(tmp_path_factory.mktemp("browser"))) as running:
        yield running


@pytest.fixture
def page(browser: Browser, report: str) -> Browser:
    """The report, just opened."""
    browser.prefer("light")
    browser.open("about:blank")
    browser.open(f"file://{os.path.join(report, 'report.html')}")
    return browser


def press(page: Browser, *keys: str) -> dict[str, Any]:
    """Press keys one after the other; where the focus is then, which must be seen."""
    for key in keys:
        page.press(key)
    focus: dict[str, Any] = page.evaluate(FOCUS)
    assert focus["outline"] == "solid", f"the focus on {focus} is not shown"
    assert focus["width"] >= 2, f"the focus on {focus} is hardly shown"
    assert focus["seen"], f"the focus is out of sight: {focus}"
    return focus


def to_entry(page: Browser, text: str) -> dict[str, Any]:
    """Press Tab until the focus is on the overview's entry that says ``text``."""
    for _ in range(30):
        focus = press(page, "Tab")
        if focus["column"] is not None and focus["text"] == text:
            return focus
    raise AssertionError(f"no entry {text!r} is reached by Tab")


def luminance(colour: tuple[float, ...]) -> float:
    """WCAG 2.2, relative luminance; red, green and blue from 0 to 255."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def parse(text: str) -> tuple[tuple[float, ...], float]:
    """A computed colour: its red, green and blue, and how opaque it is."""
    assert re.fullmatch(r"rgba?\([\d., ]+\)", text), f"an unexpected notation of a colour: {text}"
    red, green, blue, *alpha = (float(number) for number in re.findall(r"[\d.]+", text))
    return (red, green, blue), alpha[0] if alpha else 1.0


def contrast(front: str, behind: list[str]) -> float:
    """WCAG 2.2, contrast ratio of a colour with what is painted behind it, the farthest first."""
    painted: tuple[float, ...] = (0, 0, 0)
    for layer in [*behind, front]:
        below = painted
        colour, alpha = parse(layer)
        painted = tuple(alpha * new + (1 - alpha) * old for new, old in zip(colour, painted, strict=True))
    light, dark = sorted((luminance(painted), luminance(below)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("rgb(0, 0, 0)", ["rgb(255, 255, 255)"]) == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", ["rgb(255, 255, 255)"]) == pytest.approx(4.54, abs=0.01)
    assert contrast("rgb(0, 0, 0)", ["rgb(255, 255, 255)", "rgba(0, 0, 0, 0.5)"]) == pytest.approx(
        5.3, abs=0.1
    )


def test_the_first_stop_leads_past_the_overview(page: Browser) -> None:
    assert press(page, "Tab")["text"] == "Skip to the cells"
    assert press(page, "Enter")["id"] == "cells"
    assert press(page, "Tab")["cell"] == "cell-good"


def test_tab_stops_at_every_entry_and_every_cell_and_never_stays(page: Browser) -> None:
    stops = [press(page, "Tab") for _ in range(2 + 7 + 4)]
    assert [stop["text"] for stop in stops[:2]] == ["Skip to the cells", "Overview"]
    entries = [(stop["row"], stop["text"]) for stop in stops[2:9]]
    assert entries[:5] == [
        ("debian", "1 failed, 1 passed"),
        ("debian", "1 passed"),
        ("debian", "1 passed"),
        ("debian", "1 failed"),
        ("unknown", "1 not run"),
    ]
    assert [stop["cell"] for stop in stops[9:]] == ["cell-good", "cell-bad", "cell-other", "cell-never"]
    page.press("Tab")
    assert page.evaluate("document.activeElement.localName") == "body", "the page does not let go"


def test_arrows_move_through_the_overview_to_the_next_entry(page: Browser) -> None:
    first = to_entry(page, "1 failed, 1 passed")
    assert first["column"] == 2
    right = press(page, "ArrowRight")
    assert (right["row"], right["column"]) == ("debian", 3)
    assert press(page, "ArrowLeft")["column"] == 2
    assert press(page, "ArrowLeft")["column"] == 2, "there is no entry to the left"
    last = press(page, "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    assert last["column"] == 5, "there is no entry to the right"
    assert press(page, "ArrowDown")["row"] == "debian", "there is none below"


def test_evidence_is_opened_read_closed_and_left_by_keyboard(page: Browser) -> None:
    entry = to_entry(page, "1 failed, 1 passed")
    link = press(page, "Enter", "Tab", "Tab")
    assert (link["tag"], link["text"]) == ("a", "bad: failed")
    cell = press(page, "Enter")
    assert (cell["tag"], cell["cell"]) == ("summary", "cell-bad")
    assert page.evaluate("document.getElementById('cell-bad').open")

    seen = {}
    for _ in range(12):
        focus = press(page, "Tab")
        if focus["cell"] != "cell-bad":
            break
        title = focus["text"]
        if focus["tag"] == "summary":
            page.press("Enter")
            seen[title] = page.evaluate("document.activeElement.parentElement.innerText")
    assert seen.keys() == {"What went wrong", "Timings", "helper-console.log", "receipt.json"}
    assert "look at it: a b" in seen["Timings"]
    assert "document.title" in seen["helper-console.log"]
    assert '"result": "success"' in seen["receipt.json"]

    while focus["text"] != "receipt.json of bad":
        page.press("Tab", shift=True)
        focus = page.evaluate(FOCUS)
    inner = press(page, "Escape")
    assert (inner["tag"], inner["text"]) == ("summary", "receipt.json"), "the log is closed, no more"
    assert page.evaluate("document.getElementById('cell-bad').open")
    assert press(page, "Escape")["text"] == "bad: failed", "back where it was opened"
    assert not page.evaluate("document.getElementById('cell-bad').open")
    assert press(page, "Escape")["text"] == entry["text"]


def test_a_link_opens_its_cell_each_time(page: Browser) -> None:
    to_entry(page, "1 failed, 1 passed")
    press(page, "Enter", "Tab", "Tab")
    for _ in range(2):
        assert press(page, "Enter")["cell"] == "cell-bad"
        assert page.evaluate("document.getElementById('cell-bad').open")
        assert press(page, "Escape")["text"] == "bad: failed"


def test_a_cell_that_was_opened_in_its_place_is_left_there(page: Browser) -> None:
    press(page, "Tab", "Enter", "Tab")
    assert press(page, "Enter")["cell"] == "cell-good"
    assert press(page, "Escape")["cell"] == "cell-good"
    assert not page.evaluate("document.getElementById('cell-good').open")


def test_what_is_read_aloud_has_roles_and_names(page: Browser) -> None:
    """Outcomes are words, cells of tables have their headers, what opens says so, logs are named regions."""
    tree = page.accessible()
    assert tree.name == "Compatibility matrix of snf-image"
    (overview,) = tree.find("region", "Overview")
    assert tree.find("region", "Cells")
    (table,) = overview.find("table")
    assert table.name.startswith("Families down, what was asked across.")
    assert [header.name for header in table.find("columnheader")] == [
        "Family", "nothing", "hostname", "password", "keys", "swap partition", "static IPv4", "IPv6 SLAAC",
    ]  # fmt: skip
    assert [header.name for header in table.find("rowheader")] == ["debian", "unknown"]
    rows = table.find("row")
    assert len(rows) == 3
    assert [cell.name for cell in rows[1].find("cell")] == [
        "none", "1 failed, 1 passed", "1 passed", "1 passed", "1 failed", "none", "none",
    ]  # fmt: skip
    closed = overview.find("DisclosureTriangle", "1 failed, 1 passed")
    assert [one.states["expanded"] for one in closed] == [False]

    to_entry(page, "1 failed, 1 passed")
    press(page, "Enter", "Tab", "Tab", "Enter")
    page.evaluate("document.querySelectorAll('#cell-bad details').forEach((one) => { one.open = true; })")
    tree = page.accessible()
    (focused,) = (one for one in tree.all() if one.states.get("focused") and one.role != "RootWebArea")
    assert focused.name == "failed bad, 12.3 s"
    assert focused.states["expanded"] is True
    (evidence,) = tree.find("group", "Evidence of bad")
    assert [one.name for one in evidence.find("region")] == [
        "What went wrong of bad", "helper-console.log of bad", "receipt.json of bad",
    ]  # fmt: skip
    (steps,) = evidence.find("table", "Steps of bad")
    assert [header.name for header in steps.find("columnheader")] == ["Seconds", "Result", "Step"]
    assert evidence.find("image", "Screen 1 of bad; its text is in the console's log")
    assert {one.name for one in tree.find("link")} >= {"good: passed", "bad: failed"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_focus_stand_out_from_every_outcome(page: Browser, scheme: str) -> None:
    """Text by 4.5 to 1 (1.4.3), the mark of the focus by 3 to 1 (1.4.11)."""
    page.prefer(scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    colours = page.evaluate(COLOURS)
    assert {"passed", "failed", "not-run"} <= {one["outcome"] for one in colours}
    dark = luminance(parse(colours[0]["behind"][0])[0]) < 0.5
    assert dark is (scheme == "dark"), "the page does not heed what the user prefers"
    mark = press(page, "Tab")["color"]
    for one in colours:
        assert contrast(one["color"], one["behind"]) >= 4.5, f"{one} can hardly be read"
        assert contrast(mark, one["behind"]) >= 3, f"the focus on {one} can hardly be seen"
