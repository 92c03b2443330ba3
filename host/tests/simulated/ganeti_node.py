"""A node in a directory: configuration, images and disks for scripts that are called as Ganeti calls them."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

from snf_image_host.configuration.files import ConfigFile
from snf_image_host.ganeti.call import Call
from snf_image_host.ganeti.node_files import NodeFiles
from snf_image_host.ganeti.scripts import main

MIB = 1024 * 1024
GOLDEN = Path(__file__).parents[1] / "golden" / "ganeti-create.env"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    status: int
    log: str

    @property
    def summary(self) -> list[str]:
        """What Ganeti shows: the last twenty lines."""
        return self.log.splitlines()[-20:]


class Node:
    """Calls scripts; ``environment`` is what Ganeti 3.0 was seen to set, with disks of this node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("images", "variants", "backends/src", "backends/dst"):
            (directory / name).mkdir(parents=True)
        self.configure()
        (directory / "variants.list").write_text("default\nlisted\n")
        golden = GOLDEN.read_text().replace("@DIRECTORY@", str(directory))
        self.environment = dict(line.split("=", 1) for line in golden.splitlines())
        self.image("debian.diskdump")
        self.disk()

    def configure(self, *lines: str) -> None:
        """The main file; what is given comes behind what every test needs."""
        own = (
            ("IMAGE_DIR", "images"),
            ("VARIANTS_DIR", "variants"),
            ("LOG_DIR", "log"),
            ("HELPER_DIR", "helper"),
        )
        text = [f"{name}={self.directory / path}" for name, path in own]
        (self.directory / "snf-image").write_text("".join(f"{line}\n" for line in (*text, *lines)))

    def image(self, name: str, size: int = MIB) -> Path:
        path = self.directory / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * 510 + b"\x55\xaa" + b"image" * 100)
        os.truncate(path, size)
        return path

    def disk(self, index: int = 0, size: int = 2 * MIB, content: bytes = b"") -> Path:
        path = self.directory / f"disk{index}"
        path.write_bytes(content)
        os.truncate(path, size)
        return path

    def call(self, *words: str, **changes: str | None) -> Answer:
        """Run a script. ``changes`` to the environment; None removes a variable."""
        environment = self.environment | {name: value for name, value in changes.items() if value is not None}
        for name, value in changes.items():
            if value is None:
                environment.pop(name, None)
        log = io.StringIO()
        files = NodeFiles(
            main=(ConfigFile(path=str(self.directory / "snf-image"), owners=(0, os.geteuid())),),
            backends=str(self.directory / "backends"),
            programs=str(self.directory / "programs"),
            definition=str(self.directory),
            owners=(0, os.geteuid()),
        )
        status = main(words, Call(environment=environment, files=files, log=log))
        return Answer(status, log.getvalue())
