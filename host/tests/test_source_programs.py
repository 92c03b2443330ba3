"""Sources that are programs of the operator: which is asked, what is believed, what its failure means."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulated_source import MIB, copied
from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import ImageSource, SourceSettings
from snf_image_host.errors import ImageError
from snf_image_host.parameters.problems import ParseError
from snf_image_host.reporter import Debug, Event
from snf_image_host.sources.backends import BackendPlaces, Located, backends, locate

GOOD = """\
case "$1" in
-p) case "$2" in pithos:*) echo yes;; *) echo no;; esac;;
-s) echo 2097152;;
*) echo "$#:$1:$IMAGE_FORMAT:$SNF_IMAGE_CONFDIR" >&2; head -c 2097152 /dev/zero | tr '\\0' x;;
esac
"""


class Place:
    """Directories as an operator has them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs = directory / "os" / "src"
        self.files = directory / "etc" / "backends" / "src"
        self.programs.mkdir(parents=True)
        self.files.mkdir(parents=True)
        self.places = BackendPlaces(programs=str(directory / "os"), configuration=str(directory / "etc"))
        self.warnings: list[str] = []
        self.debug: list[str] = []

    def program(self, name: str, text: str, *, mode: int = 0o755) -> Path:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(mode)
        return path

    def locate(self, identifier: str) -> Located:
        return locate(identifier, image_format="diskdump", warn=self.warnings.append, places=self.places)

    def order(self) -> list[str]:
        return [backend.name for backend in backends("src", self.places, self.warnings.append)]

    def handle(self, event: Event) -> None:
        if isinstance(event, Debug):
            self.debug.append(event.message)

    def close(self) -> None:
        pass

    def copy(self, program: Path) -> CopyResult:
        source = ImageSource(
            path="pithos://a b",
            shown="x",
            format=ImageFormat.DISKDUMP,
            kind="program",
            program=str(program),
            settings=SourceSettings(runtime_dir=str(self.directory / "run")),
        )
        return copied(source, self.directory / "disk", size=4 * MIB, sink=self)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_program_is_asked_before_the_built_in_sources(place: Place) -> None:
    """R-BACK-2, R-BACK-4: and those get what it does not know."""
    program = place.program("pithos", GOOD)
    found = place.locate("pithos://u:p@host/x?t=1")
    assert (found.kind, found.program) == ("program", str(program))
    assert found.shown == "pithos://host/x"
    assert place.locate("local://debian").kind == "image-dir"
    assert place.warnings == []


def test_priorities(place: Place) -> None:
    """R-BACK-4, R-BACK-5: the higher number first, then the name in descending order of bytes."""
    for name in ("a", "b", "c"):
        place.program(name, GOOD)
    assert place.order() == ["c", "b", "a", "null", "network", "local"]
    (place.files / "a.priority").write_text("99\n")
    (place.files / "local.priority").write_text("60")
    (place.files / "b.priority").write_text("high")
    assert place.order() == ["a", "local", "c", "b", "null", "network"]
    assert place.warnings == [
        "the priority of the back-end b is not a number of one or two digits, 50 is taken"
    ]


def test_disabled_ones_are_not_asked(place: Place) -> None:
    """R-BACK-6, R-BACK-7: built-in ones too."""
    place.program("pithos", GOOD)
    for name in ("pithos", "network"):
        (place.files / f"{name}.disabled").touch()
    for identifier in ("pithos://x", "https://h/x"):
        with pytest.raises(ParseError, match=f"no back-end knows '{identifier}'"):
            place.locate(identifier)
        assert place.warnings == [
            f"the back-end {name} is disabled by {place.files}/{name}.disabled"
            for name in ("network", "pithos")
        ]
        place.warnings.clear()


def test_what_can_be_a_program(place: Place) -> None:
    """R-BACK-1: an executable, or a directory with one of its name; the rest is skipped with a warning."""
    place.program("plain", GOOD)
    (place.programs / "dir").mkdir()
    (place.programs / "dir" / "dir").write_text("#!/bin/sh\n")
    (place.programs / "dir" / "dir").chmod(0o755)
    place.program("not", GOOD, mode=0o644)
    (place.programs / "empty").mkdir()
    assert place.order()[:2] == ["plain", "dir"]
    assert len(place.warnings) == 2


@pytest.mark.parametrize("text", ["exit 1", "echo maybe", "echo YES", "printf yes", "echo yes; exit 3"])
def test_anything_but_yes_is_no(text: str, place: Place) -> None:
    """R-BACK-2: with a warning."""
    place.program("odd", text)
    with pytest.raises(ParseError):
        place.locate("odd://x")
    assert len(place.warnings) == 1


@pytest.mark.parametrize("identifier", ["-p", "--help", "a\nb", "", "a\0b"])
def test_an_identifier_never_becomes_an_option(identifier: str, place: Place) -> None:
    """R-BACK-8, T-1: refused before any program is asked."""
    place.program("all", "echo yes")
    with pytest.raises(ParseError):
        place.locate(identifier)


def test_its_output_is_the_image(place: Place) -> None:
    """R-BACK-3, R-BACK-8: one argument, a few words in the environment, its complaints in the log."""
    result = place.copy(place.program("pithos", GOOD))
    assert result.image_bytes == 2 * MIB
    assert (place.directory / "disk").read_bytes() == b"x" * 2 * MIB + bytes(2 * MIB)
    assert place.debug == ["pithos: 1:pithos://a b:diskdump:/etc/snf-image"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ $1 = -s ] && exit 1; head -c 2000000 /dev/urandom; exit 7", "ended with status 7"),
        ("[ $1 = -s ] && echo 3000000 && exit; head -c 2000000 /dev/urandom", "ended early|wrote 2000000"),
        ("[ $1 = -s ] && echo 1000000 && exit; head -c 2000000 /dev/urandom", "has more than"),
        ("[ $1 = -s ] && exit 1; exit 0", "is empty"),
    ],
)
def test_a_program_that_fails_fails_the_deployment(text: str, message: str, place: Place) -> None:
    """R-BACK-9, T-10, T-11: whatever it wrote until then."""
    with pytest.raises(ImageError, match=message):
        place.copy(place.program("bad", text))
    assert not (place.directory / "disk").exists()
