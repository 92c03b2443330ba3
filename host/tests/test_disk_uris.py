"""Disks behind URIs: served by an unprivileged qemu-nbd, here to a server on a unix socket."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from snf_image_contract.names import ImageFormat
from snf_image_host import disk_server
from snf_image_host.copying import CopyResult, copy_image, disarm
from snf_image_host.copying.served import ServedTarget
from snf_image_host.deployment import DiskServing, ImageSource, TargetDisk, WipeTail
from snf_image_host.disk_server import open_every_disk
from snf_image_host.disks import Disk, ServedDisk
from snf_image_host.errors import NodeError, SnfImageError, UserError, VerificationError
from snf_image_host.parameters.disk_secrets import take_apart
from snf_image_host.parameters.disk_uris import (
    disk_uri_identity,
    has_secret,
    hide_disk_uri,
    looks_like_uri,
    parse_disk_uri,
    shown_disk_uri,
)
from snf_image_host.parameters.problems import ParseError
from snf_image_host.reporter import CopyProgress, Reporter
from snf_image_host.sources.image import open_image
from snf_image_process import Running, start

MIB: Final = 1 << 20
SIZE: Final = 12 * MIB
_NOISE: Final = random.Random(2).randbytes(3 * MIB)  # noqa: S311 - reproducible, not secret
IMAGE: Final = bytes(510) + b"\x55\xaa" + _NOISE + bytes(2 * MIB) + _NOISE[:4608]


@pytest.mark.parametrize(
    "uri",
    ["rbd:pool/image:id=me:conf=/etc/ceph/x.conf", "rbd:pool/ns/a,b", "iscsi://h/iqn.x/0", "nbd:unix:/s",
     "nbd://h/x", "nbd+unix:///x?socket=/s", "NBD+TCP://h", "ssh://me@h/disk", "gluster+rdma://h/v/f",
     "gluster://h/v/f,g"],
)  # fmt: skip
def test_uris_that_are_known(uri: str) -> None:
    """R-DST-URI-1: all forms; nothing of them is changed."""
    assert parse_disk_uri(uri) == uri
    assert looks_like_uri(uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://h/d", "http can only be read"), ("ftps://h/d", "ftps can only be read"),
        ("tftp://h/d", "tftp can only be read"), ("sheepdog:x", "sheepdog is none of them"),
        ("file:///dev/sda", "file is none of them"), ("json:{}", "json is none of them"),
        ("driver=file", "it has no scheme"), ("rbd:pool/image@snap", "snapshot"),
        ("nbd://h/a b", "white space"), ("nbd://h/a\nb", "white space"), ("rbd:", "no scheme"),
        ("nbd+bad:x", r"nbd\+bad is none of them"), ("-rbd:x", "no scheme"), ("rbd:" + "x" * 5000, "URI"),
    ],
)  # fmt: skip
def test_uris_that_are_refused(uri: str, message: str) -> None:
    """R-DST-URI-1, R-DST-URI-2: none of them is ever shown."""
    with pytest.raises(ParseError, match=message) as caught:
        parse_disk_uri(uri)
    assert not caught.value.echo


def test_what_is_shown_of_a_uri() -> None:
    """R-SEC-2: neither keys nor options nor passwords."""
    rbd = "rbd:pool/a\\:b:id=me:key=AQB=="
    assert shown_disk_uri(rbd) == "rbd:pool/a\\:b"
    assert shown_disk_uri("iscsi://me%pw@h/iqn/0") == "iscsi://h/iqn/0"
    assert shown_disk_uri("nbd+unix:///x?socket=/s") == "nbd+unix:///x"
    assert hide_disk_uri(f"cannot open '{rbd}': no", rbd) == "cannot open 'rbd:pool/a\\:b': no"
    assert "AQB" not in hide_disk_uri("bad option id=me:key=AQB==, sorry", rbd)
    assert has_secret(rbd)
    assert has_secret("ssh://me:pw@h/x")
    assert has_secret("iscsi://me%p'w\"@h/iqn/0")
    assert shown_disk_uri("iscsi://me%p'w\"@h/iqn/0") == "iscsi://h/iqn/0"
    assert not has_secret("rbd:pool/a:id=me:conf=/x")
    assert not has_secret("nbd://h:10809/x")


def test_two_ways_to_one_disk() -> None:
    """T-31: options of how to get there do not make it another disk."""
    assert disk_uri_identity("rbd:p/i:id=a") == disk_uri_identity("rbd:p/i:id=b:conf=/c")
    assert disk_uri_identity("ssh://a@h/d") == disk_uri_identity("SSH://b@h/d")
    assert disk_uri_identity("nbd+unix:///d?socket=/a") != disk_uri_identity("nbd+unix:///d?socket=/b")


class Storage:
    """A disk in a file, behind an NBD server that everybody may connect to."""

    def __init__(self, directory: Path, running: Running) -> None:
        self.directory = directory
        self.disk = directory / "disk"
        self.running = running
        self.uri = f"nbd+unix:///export?socket={directory}/server"
        self.target = TargetDisk(index=0, path=shown_disk_uri(self.uri), uri=self.uri)
        self.serving = DiskServing(runtime_dir=str(directory / "run"))

    def open(self, target: TargetDisk | None = None) -> contextlib.AbstractContextManager[tuple[Disk, ...]]:
        return open_every_disk((target or self.target,), self.serving, Reporter())


Serve = Callable[..., Storage]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Below a directory that other users can enter, as the one that qemu-nbd runs as must."""
    with contextlib.ExitStack() as alive:
        directory = Path(tempfile.mkdtemp(prefix="snf-image-test-"))
        alive.callback(shutil.rmtree, directory)
        directory.chmod(0o755)

        def make(*options: str, content: bytes = b"", size: int = SIZE) -> Storage:
            (directory / "disk").write_bytes(content)
            os.truncate(directory / "disk", size)
            words = ["qemu-nbd", "-f", "raw", "-t", "-e", "8", "-x", "export", "-k", f"{directory}/server"]
            running = alive.enter_context(start([*words, *options, str(directory / "disk")]))
            while not (directory / "server").exists():
                assert running.wait(0.01) is None
            (directory / "server").chmod(0o777)
            return Storage(directory, running)

        yield make


def copy(
    storage: Storage,
    *,
    wipe_tail: WipeTail = "discard",
    sha256: str | None = None,
    progress: Callable[[CopyProgress], None] = lambda _: None,
) -> CopyResult:
    image = storage.directory / "image"
    image.write_bytes(IMAGE)
    source = ImageSource(path=str(image), shown="image", format=ImageFormat.DISKDUMP, sha256=sha256)
    with storage.open() as disks, open_image(source) as stream:
        return copy_image(stream, disks[0], wipe_tail=wipe_tail, idle_timeout=10, progress=progress)


needs_qemu = pytest.mark.requires("qemu-nbd")


@needs_qemu
@pytest.mark.parametrize("wipe_tail", ["no", "discard", "zero"])
def test_an_image_is_copied(wipe_tail: WipeTail, serve: Serve) -> None:
    """R-DST-URI-1, R-DST-URI-2, R-DST-LOCAL-4, D-10: every byte of it; of what was there, what is to stay."""
    storage = serve(content=b"\xaa" * SIZE)
    result = copy(storage, wipe_tail=wipe_tail)
    assert result.image_bytes == len(IMAGE)
    storage.running.stop(grace=5)
    got = storage.disk.read_bytes()
    assert got[: len(IMAGE)] == IMAGE
    assert len(got) == SIZE
    assert not any(got[-MIB:])
    if wipe_tail == "zero":
        assert not any(got[len(IMAGE) :])
    if wipe_tail == "no":
        assert got[len(IMAGE) : -MIB].strip(b"\xaa") == b""


@needs_qemu
def test_nothing_is_left_of_the_server(serve: Serve) -> None:
    """R-DST-URI-2: neither a process nor a socket; no other user can get at it meanwhile."""
    storage = serve()
    with storage.open() as (disk,):
        assert isinstance(disk, ServedDisk)
        assert disk.size == SIZE
        directory = Path(disk.socket_path).parent
        assert directory.stat().st_mode & 0o777 == 0o700
        if os.geteuid() == 0:
            assert directory.stat().st_uid >= 2_100_000_000
    assert not directory.exists()
    assert not list((storage.directory / "run").iterdir())


@needs_qemu
def test_a_second_deployment_is_refused(serve: Serve) -> None:
    """R-DST-LOCAL-3, T-31, T-27: on this node, whatever way it takes to the disk."""
    storage = serve()
    with (
        storage.open(),
        pytest.raises(UserError, match=r"nbd.unix:///export is in use by another deployment"),
        storage.open(),
    ):
        pass
    with storage.open() as (disk,):
        assert disk.size == SIZE


@needs_qemu
def test_a_wrong_image_leaves_neither_end(serve: Serve) -> None:
    """D-12: as on any other disk."""
    storage = serve(content=b"\xaa" * SIZE)
    with pytest.raises(VerificationError):
        copy(storage, sha256="0" * 64)
    storage.running.stop(grace=5)
    got = storage.disk.read_bytes()
    assert not any(got[:MIB])
    assert not any(got[-MIB:])


@needs_qemu
def test_disarming(serve: Serve) -> None:
    """D-12, R-SCR-CREATE-3: the mark of a boot sector goes, all else stays."""
    content = bytearray(b"\x11" * SIZE)
    content[510:512] = b"\x55\xaa"
    content[450] = 0xEE
    storage = serve(content=bytes(content))
    with storage.open() as (disk,):
        disarm(disk)
    storage.running.stop(grace=5)
    content[510:512], content[450] = b"\0\0", 0
    assert storage.disk.read_bytes() == content


@needs_qemu
def test_a_disk_that_is_too_small(serve: Serve) -> None:
    """R-DST-LOCAL-2: told before anything is written, with both sizes."""
    storage = serve(content=b"\xaa" * MIB, size=MIB)
    with pytest.raises(UserError, match=rf"{len(IMAGE)} bytes.*only {MIB}"):
        copy(storage)
    assert storage.disk.read_bytes() == b"\xaa" * MIB


@needs_qemu
def test_a_disk_that_cannot_be_written(serve: Serve) -> None:
    """R-DST-2: unless nobody wants to."""
    storage = serve("--read-only")
    with pytest.raises(SnfImageError, match=r"nbd.unix:///export (can only be read|cannot be opened)"):
        copy(storage)
    with storage.open(dataclasses.replace(storage.target, read_only=True)) as (disk,):
        assert disk.read_only


@needs_qemu
def test_storage_that_is_not_there(tmp_path: Path) -> None:
    """R-DST-URI-1, R-SEC-2: nothing secret of a URI is in what users are told."""
    uri = "iscsi://me%pa55word@127.0.0.1:1/iqn/0"
    serving = DiskServing(runtime_dir=str(tmp_path / "run"))
    target = TargetDisk(index=0, path=shown_disk_uri(uri), uri=uri)
    with (
        pytest.raises(NodeError, match="cannot be opened") as caught,
        open_every_disk((target,), serving, Reporter()),
    ):
        pass
    assert "pa55word" not in f"{caught.value} {caught.value.hint} {caught.value.details}"
    missing = dataclasses.replace(serving, qemu_nbd="no-such-qemu-nbd")
    with pytest.raises(NodeError, match="not installed"), open_every_disk((target,), missing, Reporter()):
        pass


@needs_qemu
def test_storage_that_goes_away(serve: Serve) -> None:
    """R-BACK-9: in the middle of a copy; the deployment fails and hangs on nothing."""
    storage = serve()

    def die(_: CopyProgress) -> None:
        storage.running.stop()

    begun = time.monotonic()
    with pytest.raises(NodeError, match=r"cannot be written|is not served any more"):
        copy(storage, progress=die)
    assert time.monotonic() - begun < 30


@needs_qemu
def test_a_server_that_fails_at_the_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-DST-URI-2: its status counts."""
    storage = serve()
    started: list[Running] = []

    def note(words: list[str], **options: Any) -> Running:
        started.append(start(words, **options))
        return started[-1]

    monkeypatch.setattr(disk_server, "start", note)
    with contextlib.ExitStack() as alive:
        alive.enter_context(storage.open())
        started[0].stop()
        with pytest.raises(NodeError, match="ended with status -9: what was written may not be there"):
            alive.close()


@needs_qemu
def test_a_uri_is_one_argument(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """R-DST-URI-3, T-27, T-28: no device of the kernel; commas and equal signs are nothing special."""
    seen: list[str] = []

    def note(words: list[str], **options: Any) -> Running:
        seen.extend(words)
        return start(words, **options)

    monkeypatch.setattr(disk_server, "start", note)
    uri = f"nbd+unix:///a,read-only=on,b?socket={tmp_path}/none"
    target = TargetDisk(index=0, path="x", uri=uri)
    with (
        pytest.raises(NodeError),
        open_every_disk((target,), DiskServing(runtime_dir=str(tmp_path / "run")), Reporter()),
    ):
        pass
    assert seen[-2:] == ["--", uri]
    assert "--format=raw" in seen
    assert not any("/dev/nbd" in word or word in ("modprobe", "--connect") for word in seen)


@needs_qemu
def test_a_wait_for_the_server_can_be_ended(serve: Serve) -> None:
    """R-BACK-9: storage that stands still does not hold the threads of a copy."""
    storage = serve()
    with storage.open() as (disk,):
        assert isinstance(disk, ServedDisk)
        with ServedTarget(disk) as target:
            storage.running.signal(signal.SIGSTOP)
            timer = threading.Timer(0.3, target.abandon)
            timer.start()
            begun = time.monotonic()
            with pytest.raises(NodeError):
                target.read_into(memoryview(bytearray(MIB)), 0)
            assert time.monotonic() - begun < 5
            timer.join()
            storage.running.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("uri", "secret"),
    [
        ("iscsi://me%pa/ss+w==@10.0.0.1:3260/iqn.2026-01.org.example:x/0", "pa/ss+w=="),
        (r"rbd:pool/image:k\ey=c2VjcmV0:id=me", "c2VjcmV0"),
    ],
)
def test_a_secret_is_seen_however_it_is_written(uri: str, secret: str) -> None:
    """R-SEC-1, R-SEC-2: a slash in a password, a back-slash in an option's name."""
    assert has_secret(uri)
    assert secret not in shown_disk_uri(uri)
    assert take_apart(uri).secret.reveal() == secret
