"""Images made from fixture images by debugfs and sfdisk: nothing is mounted, no root is needed."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Sequence
from typing import Final

from snf_image_process import run
from snf_image_vmtests.fixture_images import FixtureImage

_MIB: Final = 1024 * 1024
_SECONDS: Final = 120.0


class ExtImage:
    """A disk image whose root file system is an ext4; ``path`` is its file."""

    def __init__(self, path: str, *, start: int) -> None:
        """``start``: where the file system begins, in mebibytes."""
        self.path = path
        self.start = start

    @classmethod
    def copy_of(cls, fixture: FixtureImage, path: str) -> ExtImage:
        """A copy of a fixture image, to be changed."""
        run(["cp", "--sparse=always", fixture.path, path], timeout=_SECONDS)
        return cls.on(path, fixture)

    @classmethod
    def on(cls, path: str, fixture: FixtureImage) -> ExtImage:
        """A disk that has the fixture's partitions."""
        return cls(path, start=fixture.root().start)

    @property
    def _file_system(self) -> str:
        return f"{self.path}?offset={self.start * _MIB}"

    def debug(self, *requests: str, write: bool = False) -> str:
        """What debugfs answers to requests; AssertionError if one fails."""
        argv = ["debugfs", *(["-w"] if write else []), "-f", "-", self._file_system]
        done = run(argv, timeout=_SECONDS, stdin="".join(f"{line}\n" for line in requests).encode())
        complaints = done.stderr.decode("utf-8", "replace").splitlines()[1:]
        assert not complaints, complaints
        answers = done.text.splitlines(keepends=True)
        return "".join(line for line in answers if not line.startswith("debugfs: "))

    def read(self, path: str) -> bytes:
        """The content of a file; links are not followed."""
        with tempfile.TemporaryDirectory() as directory:
            copy = os.path.join(directory, "copy")
            self.debug(f"dump {path} {copy}")
            with open(copy, "rb") as file:
                return file.read()

    def text(self, path: str) -> str:
        return self.read(path).decode()

    def replace(self, path: str, content: bytes, *, mode: int = 0o644, gid: int = 0) -> None:
        """Put a file of root's in the place of another, or where none was."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self.remove(path)
            inside = [f"cd {posixpath.dirname(path)}", f"write {file.name} {posixpath.basename(path)}"]
            fields = {"mode": f"0{0o100000 | mode:o}", "uid": "0", "gid": str(gid)}
            self.debug(*inside, *(f"sif {path} {name} {value}" for name, value in fields.items()), write=True)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        with contextlib.suppress(AssertionError):
            self.debug(f"rm {path}", write=True)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link in the place of a file."""
        self.remove(path)
        self.debug(f"symlink {path} {target}", write=True)

    def node(self, path: str, *kind: str) -> None:
        """Put a pipe (``p``) or a device (``c`` or ``b``, major, minor) in the place of a file."""
        self.remove(path)
        words = f"mknod {posixpath.basename(path)} {' '.join(kind)}"
        self.debug(f"cd {posixpath.dirname(path)}", words, write=True)

    def names(self, path: str) -> list[str]:
        """The names in a directory."""
        rows = [line.split("/") for line in self.debug(f"ls -p {path}").splitlines()]
        return sorted(row[5] for row in rows if len(row) > 5 and row[5] not in {".", ".."})

    def check(self) -> None:
        """AssertionError if e2fsck finds anything."""
        done = run(["e2fsck", "-fn", self._file_system], timeout=_SECONDS, accept=range(256))
        assert done.status == 0, done.text


def sfdisk(path: str, lines: Sequence[str]) -> None:
    """Write a partition table onto an image."""
    script = "".join(f"{line}\n" for line in lines).encode()
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path], timeout=_SECONDS, stdin=script)


def boot_signature(path: str) -> bytes:
    """The two bytes without which no firmware boots a disk."""
    with open(path, "rb") as file:
        return os.pread(file.fileno(), 2, 510)
