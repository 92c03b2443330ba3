"""Destinations that are programs of the operator: which is asked, what it gets, what its failure leaves."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Final

import pytest

from snf_image_contract.job import AssignHostname, Job, JobDisk
from snf_image_contract.names import ImageFormat
from snf_image_host import deploy as subject
from snf_image_host.deployment import Deployment, HelperSettings, ImageSource, SourceSettings, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.errors import NodeError, SnfImageError, UserError, VerificationError
from snf_image_host.image_container import Container
from snf_image_host.parameters.problems import Problems
from snf_image_host.reporter import Reporter
from snf_image_host.sources.backends import BackendPlaces, backends
from snf_image_host.sources.destinations import with_destination

MIB: Final = 1 << 20
SIZE: Final = 6 * MIB
DATA: Final = bytes(510) + b"\x55\xaa" + random.Random(9).randbytes(3 * MIB)  # noqa: S311 - reproducible
WRITES: Final = """\
case "$1" in -p) case "$2" in *mine) echo yes;; *) echo no;; esac;; -s) exit 1;;
*) echo "$#:$IMAGE_FORMAT" >&2; dd of="$1" bs=64k conv=notrunc iflag=fullblock status=none; {}exit {};;
esac
"""


class Place:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.programs, self.files = directory / "os/dst", directory / "etc/backends/dst"
        self.programs.mkdir(parents=True)
        self.files.mkdir(parents=True)
        self.places = BackendPlaces(programs=str(directory / "os"), configuration=str(directory / "etc"))
        self.disk = directory / "mine"
        self.disk.write_bytes((bytes(510) + b"\x55\xaa") * (SIZE // 512))
        self.image = directory / "image"
        self.image.write_bytes(DATA)
        monkeypatch.setenv("TMPDIR", str(directory))

    def program(self, text: str, name: str = "site") -> Path:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)
        return path

    def chosen(self, disk: TargetDisk | None = None) -> str | None:
        """Name of the program that writes the disk."""
        problems = Problems()
        asked = disk or TargetDisk(index=0, path=str(self.disk))
        found = with_destination(asked, "diskdump", problems, self.places)
        problems.raise_user_error()
        return None if found.program is None else Path(found.program).name

    def deploy(self, program: Path, *, container: str = "raw", sha256: str | None = None) -> bytes:
        """What is on the disk afterwards; nothing is customised."""
        deployment = Deployment(
            instance="web1",
            image=ImageSource(
                path=str(self.image),
                shown="image",
                format=ImageFormat.DISKDUMP,
                container=container,
                sha256=sha256,
                settings=SourceSettings(
                    containers=frozenset(Container), runtime_dir=str(self.directory / "run")
                ),
            ),
            disks=(TargetDisk(index=0, path=str(self.disk), program=str(program)),),
            helper=HelperSettings(directory="/none"),
            job=Job(
                instance="web1",
                clock=0,
                disks=(JobDisk(index=0),),
                assign_hostname=AssignHostname(name="web1"),
            ),
            run_helper=False,
            copy_idle_timeout=20,
        )
        receipt = subject.deploy(deployment, Reporter()).as_json()
        assert receipt["image"]["copied_bytes"] == len(DATA)
        return self.disk.read_bytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_a_program_is_asked_before_us(place: Place) -> None:
    """R-BACK-2, R-BACK-4, R-BACK-5: 50 is more than 20 and 10; a file changes it."""
    assert place.chosen() is None
    place.program(WRITES.format("", 0))
    assert place.chosen() == "site"
    assert place.chosen(TargetDisk(index=0, path="rbd:pool/mine", uri="rbd:pool/mine")) == "site"
    assert place.chosen(TargetDisk(index=0, path="rbd:pool/x", uri="rbd:pool/x")) is None
    (place.files / "site.priority").write_text("15\n")
    assert [backend.name for backend in backends("dst", place.places, print)] == ["uri", "site", "local"]
    assert place.chosen() == "site"
    assert place.chosen(TargetDisk(index=0, path="rbd:pool/mine", uri="rbd:pool/mine")) is None
    (place.files / "site.priority").write_text("05")
    assert place.chosen() is None


def test_a_program_is_not_shown_a_key(place: Place) -> None:
    """R-SEC-1: it would be in its arguments, even if it is only asked whether it wants the disk."""
    place.program(f"echo >{place.directory}/asked")
    uri = "rbd:pool/mine:key=czNjcjN0"
    with pytest.raises(UserError, match="would be seen in the arguments of the back-end site") as caught:
        place.chosen(TargetDisk(index=0, path="rbd:pool/mine", uri=uri))
    assert "czNjcjN0" not in str(caught.value)
    assert not (place.directory / "asked").exists()
    (place.files / "site.priority").write_text("15\n")
    assert place.chosen(TargetDisk(index=0, path="rbd:pool/mine", uri=uri)) is None


def test_disabled_ones_write_nothing(place: Place) -> None:
    """R-BACK-6, R-BACK-7: ours too; then nobody does, and that is an error."""
    place.program(WRITES.format("", 0))
    (place.files / "site.disabled").touch()
    assert place.chosen() is None
    (place.files / "local.disabled").touch()
    with pytest.raises(UserError, match="no back-end is left that writes it"):
        place.chosen()


@pytest.mark.parametrize("container", ["raw", "gzip"])
def test_it_gets_the_image(container: str, place: Place) -> None:
    """R-BACK-3: on its standard input; what boots comes last, from us."""
    if container == "gzip":
        place.image.write_bytes(gzip.compress(DATA))
    program = place.program(WRITES.format(f"cp {place.disk} {place.directory}/seen; ", 0))
    got = place.deploy(program, container=container)
    assert got[: len(DATA)] == DATA
    assert not any(got[-MIB:]), "D-10: nothing of an earlier system survives there"
    seen = (place.directory / "seen").read_bytes()
    assert seen[:4096] == bytes(4096)
    assert seen[4096 : len(DATA)] == DATA[4096:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WRITES.format("", 3), "the back-end site ended with status 3"),
        ("head -c 100000 > /dev/null", "the back-end site ended with status 0, after"),
        ("kill -9 $$", "the back-end site ended with status -9"),
    ],
)
def test_a_program_that_fails_fails_the_deployment(text: str, message: str, place: Place) -> None:
    """R-BACK-9, R-SCR-CREATE-3: and the disk does not boot."""
    with pytest.raises(NodeError, match=message):
        place.deploy(place.program(text))
    assert place.disk.read_bytes()[510:512] == b"\0\0"


def test_a_wrong_image_leaves_neither_end(place: Place) -> None:
    """D-4, D-12: the program never learns that this was all."""
    program = place.program(WRITES.format(f"touch {place.directory}/ended; ", 0))
    with pytest.raises(VerificationError):
        place.deploy(program, sha256="0" * 64)
    got = place.disk.read_bytes()
    assert not any(got[:MIB])
    assert not any(got[-MIB:])
    assert not (place.directory / "ended").exists()


def test_an_image_that_does_not_fit(place: Place) -> None:
    """R-DST-LOCAL-2: is refused before the program is started."""
    place.image.write_bytes(DATA * 3)
    before = place.disk.read_bytes()
    with pytest.raises(UserError, match="only"):
        place.deploy(place.program(f"touch {place.directory}/started"))
    assert place.disk.read_bytes() == before
    assert not (place.directory / "started").exists()


def test_a_disk_in_use(place: Place) -> None:
    """R-DST-LOCAL-3, T-31."""
    program = place.program(WRITES.format("", 0))
    with (
        open_disks([TargetDisk(index=0, path=str(place.disk))]),
        pytest.raises(SnfImageError, match="in use by another deployment"),
    ):
        place.deploy(program)
