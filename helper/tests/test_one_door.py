"""Tasks of mounted systems have one door to the untrusted tree: Root. Nothing else may take a path."""

import ast
import os
from collections.abc import Iterator

import pytest

import snf_image_helper

PACKAGE = os.path.dirname(snf_image_helper.__file__)
FAMILIES = ("bsd", "linux", "unix", "windows")
WITHOUT_A_PATH = {
    "close", "dup", "fchmod", "fsdecode", "fsencode", "fstat", "fsync", "ftruncate", "memfd_create", "pread",
    "pwrite", "read", "urandom", "write", "BytesIO", "StringIO",
}  # fmt: skip
"""What of `os` and `io` works on descriptors or on nothing at all."""
FORBIDDEN_MODULES = {"glob", "pathlib", "shutil", "tempfile", "codecs", "fileinput", "linecache"}


def modules() -> Iterator[str]:
    for family in FAMILIES:
        for directory, _, names in os.walk(os.path.join(PACKAGE, family)):
            yield from (os.path.join(directory, name) for name in names if name.endswith(".py"))


def doors(source: str) -> list[str]:
    """What in a module could open something by its path."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = (node.module or "").split(".")[0]
            found += [module] if module in FORBIDDEN_MODULES | {"os"} else []
        elif isinstance(node, ast.Name) and node.id in {"open", "Path"}:
            found.append(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in {"io", "os"}
            and node.attr not in WITHOUT_A_PATH
            and not node.attr.startswith(("O_", "MFD_"))
        ):
            found.append(f"{node.value.id}.{node.attr}")
    return found


@pytest.mark.parametrize("path", sorted(modules()), ids=lambda path: os.path.relpath(path, PACKAGE))
def test_a_task_reaches_the_tree_through_root_only(path: str) -> None:
    """R-TASK-5."""
    with open(path, encoding="utf-8") as stream:
        assert doors(stream.read()) == []


@pytest.mark.parametrize(
    "source",
    [
        "open('/etc/passwd')",
        "import pathlib",
        "from pathlib import Path\nPath('/etc')",
        "import os\nos.stat('/etc')",
        "import os\nos.path.exists('/etc')",
        "from os import stat",
        "import shutil as s",
        "import io\nio.open('/etc')",
    ],
)
def test_each_way_around_the_door_is_seen(source: str) -> None:
    assert doors(source)
