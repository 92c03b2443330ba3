"""Every program that is given bytes of strangers: what it may do, as the kernel says while it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import queue
import re
import select
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from simulated_source import MIB, LoopbackServer, QuietHandler, answering
from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import (
    DiskServing,
    FetchPolicy,
    ImageSource,
    SourceSettings,
    TargetDisk,
    Verification,
)
from snf_image_host.disk_server import open_every_disk
from snf_image_host.errors import SnfImageError
from snf_image_host.fetching import transfer
from snf_image_host.fetching.curl import Curl, run_curl
from snf_image_host.image_container import Container
from snf_image_host.reporter import Reporter
from snf_image_host.sources import disk_format
from snf_image_host.sources.image import open_image
from snf_image_host.vm.account import Account
from snf_image_process import run, runner

UIDS: Final = (2_100_000_000, 2_100_065_535)
NOBODY: Final = (65534, 65534)
IMAGE: Final = bytes(510) + b"\x55\xaa" + bytes(512)
LAST_LIMIT: Final = "Max realtime timeout"


class Node:
    """An image, and in the place of a program one that tells what the kernel says about it.

    Below a directory that any user can enter. What is told goes through a FIFO: a file could not be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = directory / "keys"
        self.keys.mkdir()
        self.image = directory / "x.raw"
        self.image.write_bytes(IMAGE)
        os.mkfifo(directory / "told")
        (directory / "told").chmod(0o666)
        self._told = os.open(directory / "told", os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self._told)

    def replace(self, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
        script = self.directory / "bin" / program
        script.parent.mkdir()
        script.parent.chmod(0o755)  # whatever the umask
        script.write_text(f"#!/bin/sh\nexec cat /proc/self/status /proc/self/limits >{self.directory}/told\n")
        script.chmod(0o755)
        monkeypatch.setattr(runner, "_PATH", f"{script.parent}:{runner._PATH}")

    def tell(self, pid: int) -> None:
        """What the kernel says about a process that nothing can take the place of."""
        for name in ("status", "limits"):
            os.write(self._told, Path(f"/proc/{pid}/{name}").read_bytes())

    def told(self) -> str:
        text = ""
        while LAST_LIMIT not in text:
            assert select.select([self._told], [], [], 20)[0], "the program was not started"
            text += os.read(self._told, 65536).decode()
        return text

    def put(self, name: str, content: bytes) -> None:
        (self.directory / name).write_bytes(content)

    def open(self, **changes: object) -> contextlib.AbstractContextManager[object]:
        """The image, with a new value in some fields of what is decided about it."""
        source = ImageSource(
            path=str(self.image),
            shown="x.raw",
            format=ImageFormat.DISKDUMP,
            container="auto",
            verification=Verification(policy="if-present", trusted_keys=str(self.keys)),
            settings=SourceSettings(
                containers=frozenset({"gzip", "qcow2"}), runtime_dir=str(self.directory / "run")
            ),
        )
        return open_image(dataclasses.replace(source, **changes))  # type: ignore[arg-type]


@pytest.fixture
def node() -> Iterator[Node]:
    with contextlib.ExitStack() as undo:
        # A login of root has groups that a program could keep.
        undo.callback(os.setgroups, os.getgroups())
        os.setgroups([0, 4])
        directory = Path(tempfile.mkdtemp(prefix="snf-image-test-"))
        undo.callback(shutil.rmtree, directory)
        directory.chmod(0o755)
        made = Node(directory)
        undo.callback(made.close)
        yield made


class Looking(LoopbackServer):
    """A server that looks at the curl that asks it: curl is confined to programs of the system."""

    def __init__(self, node: Node) -> None:
        super().__init__(LookingHandler)
        self.node = node
        self.clients: queue.Queue[Curl] = queue.Queue()

    def run_curl(self, *call: Any) -> Curl:
        curl = run_curl(*call)
        self.clients.put(curl)
        return curl


class LookingHandler(QuietHandler):
    server: Looking

    def answer(self) -> None:
        self.server.node.tell(self.server.clients.get(timeout=20).running.pid)
        self.send_error(404)


@contextlib.contextmanager
def fetch(node: Node, user: str | None = None) -> Iterator[object]:
    settings = SourceSettings(
        fetch=FetchPolicy(hosts=("127.0.0.1",), timeout=20, user=user),
        runtime_dir=str(node.directory / "run"),
    )
    with contextlib.ExitStack() as alive:
        server = alive.enter_context(answering(Looking(node)))
        monkeypatch = alive.enter_context(pytest.MonkeyPatch.context())
        monkeypatch.setattr(transfer, "run_curl", server.run_curl)
        where = {"kind": "url", "path": server.url("/x.raw"), "settings": settings}
        yield alive.enter_context(node.open(**where, verification=Verification()))


def decode(node: Node) -> contextlib.AbstractContextManager[object]:
    node.image.write_bytes(b"\x1f\x8b\x08")
    return node.open()


def convert(node: Node) -> contextlib.AbstractContextManager[object]:
    node.image.write_bytes(b"QFI\xfb".ljust(MIB, b"\0"))
    return node.open()


def serve(node: Node, user: str | None = None) -> contextlib.AbstractContextManager[object]:
    target = TargetDisk(index=0, path="nbd://h/x", uri="nbd://h/x")
    serving = DiskServing(user=user, runtime_dir=str(node.directory / "run"))
    return open_every_disk((target,), serving, Reporter())


def check_sums(node: Node, key: str, signature: bytes) -> contextlib.AbstractContextManager[object]:
    node.put(f"keys/{key}", b"a key")
    node.put("SHA256SUMS", f"{hashlib.sha256(IMAGE).hexdigest()}  x.raw\n".encode())
    node.put("SHA256SUMS.sig", signature)
    return node.open()


def check_image(node: Node) -> contextlib.AbstractContextManager[object]:
    node.put("keys/ours.gpg", b"a key")
    node.put("x.raw.sig", b"a signature")
    return node.open()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """``use`` starts it; ``memory`` in MiB; ``uids``: first and last of those that it may have.

    ``replaced``: by one that tells about itself.
    """

    name: str
    use: Callable[[Node], contextlib.AbstractContextManager[object]]
    memory: int
    uids: tuple[int, int] = UIDS
    replaced: bool = True


PROGRAMS: Final = {
    "curl": Program(name="curl", use=fetch, memory=1024, replaced=False),
    "curl as FETCH_USER": Program(
        name="curl", use=lambda node: fetch(node, "nobody"), memory=1024, uids=NOBODY, replaced=False
    ),
    "decoder": Program(name="gzip", use=decode, memory=1024),
    "qemu for disk formats": Program(name="qemu-system-x86_64", use=convert, memory=2048),
    "qemu-nbd": Program(name="qemu-nbd", use=serve, memory=8192),
    "qemu-nbd as DISK_URI_USER": Program(
        name="qemu-nbd", use=lambda node: serve(node, "nobody"), memory=8192, uids=NOBODY
    ),
    "openssl": Program(name="openssl", use=lambda node: check_sums(node, "ours.pem", bytes(64)), memory=512),
    "gpgv": Program(name="gpgv", use=lambda node: check_sums(node, "ours.gpg", b"signature"), memory=512),
    "gpgv of the image": Program(name="gpgv", use=check_image, memory=512),
}


@pytest.mark.requires("root")
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_has_no_privileges(program: Program, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-3, D-4, D-7, R-FETCH-4, R-DST-URI-2, R-SEC-1: nor ways to some, files, cores, all memory."""
    monkeypatch.setattr(disk_format, "inspect_disk_format", lambda *_: 0)
    if program.replaced:
        node.replace(program.name, monkeypatch)
    told = ""
    with contextlib.suppress(SnfImageError), program.use(node):
        told = node.told()  # it is ended with the context
    told = told or node.told()
    status = dict(re.findall(r"^(\w+):\t(.*)$", told, re.MULTILINE))
    users, groups = ({int(number) for number in status[name].split()} for name in ("Uid", "Gid"))
    assert len(users) == len(groups) == 1
    assert program.uids[0] <= min(users) <= program.uids[1]
    assert 0 not in groups
    assert status["Groups"].strip() == ""
    assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    limits = dict(re.findall(r"^Max (\w[\w ]*?) {2,}\S+ +(\S+)", told, re.MULTILINE))
    assert limits["core file size"] == "0"
    assert limits["address space"] == str(program.memory * MIB)
    # A storage may be files.
    assert limits["file size"] == ("unlimited" if program.name == "qemu-nbd" else "0")
    assert max(int(limits[name]) for name in ("processes", "open files")) <= 1024


@pytest.mark.requires("qemu", "qemu-img")
def test_qemu_looks_into_an_image_behind_a_filter(tmp_path: Path) -> None:
    """D-3: of system calls, which neither qemu-img nor qemu-nbd has."""
    image = tmp_path / "image"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], timeout=60)
    with contextlib.ExitStack() as alive:
        file = alive.enter_context(image.open("rb"))
        opening = disk_format.open_disk_format(
            file.fileno(), Container.QCOW2, SourceSettings(), Account.of_caller(), "x"
        )
        disk = alive.enter_context(opening)
        with open(f"/proc/{disk._running.pid}/status", encoding="ascii") as status:
            assert "\nSeccomp:\t2\n" in status.read()
