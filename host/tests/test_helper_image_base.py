"""Building the helper image on an image of a registry: what the engine is told and what is written down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builder import command, engine, manifest
from builder.engine import Buildah, is_on_this_machine

CHECKOUT = Path(__file__).parents[2]
REGISTRY = "registry.example.org/debian:bookworm"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("127.0.0.1:5000/debian:bookworm", True),
        ("127.0.0.2/debian", True),
        ("localhost:5000/debian", True),
        ("localhost/debian", True),
        ("[::1]:5000/debian", True),
        ("debian:bookworm", False),
        ("localhost:5000", False),
        ("localhost.example.org/debian", False),
        ("example.org:127/debian", False),
        ("192.0.2.1:5000/debian", False),
        ("library/debian:12", False),
    ],
)
def test_a_registry_on_this_machine_needs_no_tls(image: str, expected: bool) -> None:
    assert is_on_this_machine(image) is expected


@pytest.fixture
def asked_of_buildah(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The calls of a Buildah that only pretends to build."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def pretend(argv: list[str], *, timeout: float, env: dict[str, str]) -> Any:
        assert timeout > 0
        calls.append((argv, env))
        if "--iidfile" in argv:
            Path(argv[argv.index("--iidfile") + 1]).write_text("0123\n")
        return SimpleNamespace(text="said\n")

    monkeypatch.setattr(engine, "run", pretend)
    return calls


@pytest.mark.parametrize(
    ("base", "refresh", "words"),
    [
        (None, False, set()),
        (None, True, set()),
        (REGISTRY, False, set()),
        (REGISTRY, True, {"--pull-always", "--no-cache"}),
        ("127.0.0.1:5000/debian", False, {"--tls-verify=false"}),
        ("127.0.0.1:5000/debian", True, {"--tls-verify=false", "--pull-always", "--no-cache"}),
    ],
)
def test_what_buildah_is_told(
    base: str | None, refresh: bool, words: set[str], tmp_path: Path,
    asked_of_buildah: list[tuple[list[str], dict[str, str]]],
) -> None:  # fmt: skip
    """TLS stays on for a registry elsewhere, and updates do not come out of a cache."""
    with Buildah(str(tmp_path)).build("context", base, str(tmp_path), refresh=refresh) as root:
        assert root == "said"
    argv = asked_of_buildah[0][0]
    assert {word for word in argv if word.startswith(("--tls", "--pull", "--no-cache"))} == words
    assert f"BASE={base or 'packages'}" in argv
    assert f"MODULES={'base' if base else 'module-packages'}" in argv


def test_the_way_to_the_network_reaches_buildah_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    asked_of_buildah: list[tuple[list[str], dict[str, str]]],
) -> None:  # fmt: skip
    for name in engine._NETWORK:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://192.0.2.1:3128")
    monkeypatch.setenv("SNF_IMAGE_PASSWD", "x")
    assert Buildah(str(tmp_path)).base_digest(REGISTRY) == "said"
    assert asked_of_buildah[0][1] == {
        "HOME": "/root",
        "TMPDIR": str(tmp_path / "tmp"),
        "https_proxy": "http://192.0.2.1:3128",
    }


def test_the_manifest_names_the_base(tmp_path: Path) -> None:
    """R-HLP-17: the name that was given, and the digest of what it stood for; nothing without a base."""
    share = tmp_path / "root/usr/share/snf-image"
    share.mkdir(parents=True)
    (share / "packages.tsv").write_text("bash\t5.2\tamd64\tbash\t5.2\n")
    for name in manifest.ARTEFACTS:
        (tmp_path / name).write_bytes(b"x")
    for base in (manifest.Base(image=REGISTRY, digest="sha256:12"), None):
        manifest.write_manifest(str(tmp_path / "root"), str(tmp_path), "b", 2, [], base=base)
        document = json.loads((tmp_path / "manifest.json").read_text())
        assert document.get("base") == (base and {"image": REGISTRY, "digest": "sha256:12"})
    assert "base" not in document


def test_a_build_on_a_base_makes_no_base_of_packages(tmp_path: Path) -> None:
    """The context has empty archives in place of those that mmdebstrap would make."""
    asked = SimpleNamespace(base=REGISTRY, tasks=None, added=[], cache=str(tmp_path / "cache"), refresh=False)
    command._make_context(str(CHECKOUT), str(tmp_path / "context"), asked)  # type: ignore[arg-type]  # the parser's
    assert (tmp_path / "context/base.tar").read_bytes() == b""
    assert (tmp_path / "context/modules.tar").read_bytes() == b""
    assert os.access(tmp_path / "context/remove-unneeded", os.X_OK)
