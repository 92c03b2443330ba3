"""What proves the project's work has its own eyes: it shares no code with what it looks at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
SHARED = {"snf_image_contract", "snf_image_process"}


def imports(tree: ast.Module) -> Iterator[str]:
    """The top-level packages that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.partition(".")[0]


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        paths = sorted((CHECKOUT / folder).rglob("*.py"))
        assert paths, folder
        yield from ((path, ast.parse(path.read_text())) for path in paths)


def test_the_harness_imports_only_what_both_sides_share() -> None:
    """D-22: neither host nor helper code runs in tests of the installed commands, or makes their images."""
    for path, tree in trees("vmtests", "fixtures/images"):
        ours = {name for name in imports(tree) if name.startswith("snf_image_")}
        assert ours <= SHARED | {"snf_image_vmtests"}, path


def bodies(*folders: str) -> dict[str, str]:
    """What functions of some size do, whatever they are called and whatever their docstrings say."""
    found = {}
    for path, tree in trees(*folders):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                code = node.body[1:] if ast.get_docstring(node) else node.body
                if len(code) > 2:
                    found["\n".join(map(ast.dump, code))] = f"{path.name}: {node.name}"
    return found


def test_the_makers_and_judges_of_ufs_are_written_anew() -> None:
    """D-22: a mistake in the helper's understanding of UFS is not repeated by what checks it."""
    for path, tree in trees("helper/snf_image_helper"):
        assert "ufs" not in imports(tree), path
    theirs, ours = bodies("fixtures/images/ufs"), bodies("helper/snf_image_helper")
    assert len(theirs) > 20
    assert [(theirs[body], ours[body]) for body in theirs.keys() & ours.keys()] == []
