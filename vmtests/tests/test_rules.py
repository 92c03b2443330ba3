"""Rules and tests know each other: each documented rule is cited by a test, each cited rule is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
RULE = re.compile(r"\b(?:R-[A-Z]+(?:-[A-Z0-9]+)*-?\d+|T-\d+|D-\d+|U-\d+)\b")
RANGE = re.compile(r"\b((?:R-[A-Z]+(?:-[A-Z0-9]+)*-|R-[A-Z]+-|T-|D-|U-))(\d+)(?:…|\.\.\.| to )(?:\1)?(\d+)\b")
BULLET = re.compile(r"^\s*- \*\*((?:R-[A-Z]+(?:-[A-Z0-9]+)*-?|T-|D-|U-)\d+)\*\*", re.MULTILINE)


def documented() -> dict[str, str]:
    """Rule to the page it stands on."""
    rules: dict[str, str] = {}
    for page in sorted((CHECKOUT / "docs/behaviour").glob("*.md")):
        for rule in BULLET.findall(page.read_text()):
            rules.setdefault(rule, page.name)
    return rules


def cited() -> dict[str, str]:
    """Rule to a test file that cites it."""
    rules: dict[str, str] = {}
    for folder in ("contract", "process", "host", "helper", "vmtests"):
        for path in sorted((CHECKOUT / folder).rglob("test_*.py")):
            text = path.read_text()
            names = RULE.findall(text)
            for prefix, first, last in RANGE.findall(text):
                names += [f"{prefix}{number}" for number in range(int(first), int(last) + 1)]
            for name in names:
                rules.setdefault(name, path.name)
    for path in (CHECKOUT / "ci/matrix.yaml", *sorted((CHECKOUT / "vmtests/snf_image_vmtests").glob("*.py"))):
        for name in RULE.findall(path.read_text()):
            rules.setdefault(name, path.name)
    return rules


def test_every_documented_rule_is_cited_by_a_test() -> None:
    """D-23, D-35: a rule nobody tests is only a wish."""
    proven = cited()
    missing = [f"{rule} ({page})" for rule, page in documented().items() if rule not in proven]
    assert missing == []


def test_every_cited_rule_is_documented() -> None:
    """D-23: tests cite docs/behaviour."""
    pages = (page.read_text() for page in (CHECKOUT / "docs/behaviour").glob("*.md"))
    known = set(RULE.findall("\n".join(pages)))
    missing = [f"{rule} ({file})" for rule, file in sorted(cited().items()) if rule not in known]
    assert missing == []


@pytest.mark.parametrize(
    "page", sorted((CHECKOUT / "docs/behaviour").glob("*.md")), ids=lambda path: path.name
)
def test_each_page_has_a_title_and_is_in_the_index(page: Path) -> None:
    assert page.read_text().startswith("# ")
    if page.name != "README.md":
        assert f"({page.name})" in (CHECKOUT / "docs/behaviour/README.md").read_text()
