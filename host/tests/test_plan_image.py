"""What is decided about the image: from the words of a command line to its source."""

from __future__ import annotations

import pytest

from snf_image_host.cli.arguments import parse_arguments
from snf_image_host.cli.asking import build_request
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import ImageSource
from snf_image_host.image_container import Container
from snf_image_host.plan import plan

IMAGES = ("/images/debian.raw", "local://debian", "https://example.org/debian.raw")


def decided(
    *words: str, image: str = IMAGES[0], containers: tuple[str, ...] = ("raw", "gzip")
) -> ImageSource:
    config = NodeConfig.defaults(image_containers=containers)
    return plan(build_request(parse_arguments(["deploy", image, "/disk.raw", *words]), config), config).image


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    ("words", "container"),
    [
        ([], "raw"),
        (["--format", "diskdump"], "raw"),
        (["--property", "CONTAINER=raw"], "raw"),
        (["--property", "CONTAINER=zstd"], "zstd"),
        (["--property", "container=auto"], "auto"),
    ],
)
def test_the_property_says_what_the_image_is_wrapped_in(words: list[str], container: str, image: str) -> None:
    """R-FMT-1, D-3: nothing, unless it is said; and the operator's list stands above what is said."""
    source = decided(*words, image=image)
    assert source.container == container
    assert source.settings.containers == {"raw", "gzip"}


@pytest.mark.parametrize("words", [[], ["--property", "CONTAINER=raw"]])
def test_auto_on_the_command_line_allows_every_container(words: list[str]) -> None:
    """R-FMT-1, D-3: whatever the property and the operator's list say: who calls it owns the image."""
    source = decided("--format", "auto", *words, containers=("raw",))
    assert source.container == "auto"
    assert source.settings.containers == frozenset(Container)


@pytest.mark.parametrize("image", IMAGES)
def test_what_the_source_must_prove_to_be(image: str) -> None:
    """D-4: each option in its own place, wherever the image comes from."""
    words = ["--sha256", "A" * 64, "--sha512", "B" * 128, "--checksums", "/sums", "--signature", "/sums.sig"]
    source = decided(*words, image=image)
    asked = source.verification
    assert (source.sha256, source.digest) == ("a" * 64, True)
    assert (asked.sha512, asked.checksums, asked.signature) == ("b" * 128, "/sums", "/sums.sig")
    source = decided(image=image)
    asked = source.verification
    assert (source.sha256, asked.sha512, asked.checksums, asked.signature) == (None,) * 4
