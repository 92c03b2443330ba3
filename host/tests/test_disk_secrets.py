"""Keys and passwords in URIs of disks: how they reach qemu, and that nobody else sees them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_node import Node
from snf_image_host import disk_server
from snf_image_host.deployment import DiskServing, TargetDisk
from snf_image_host.disk_server import open_every_disk
from snf_image_host.disks import ServedDisk
from snf_image_host.errors import NodeError, SnfImageError
from snf_image_host.nbd import NbdClient
from snf_image_host.parameters.disk_secrets import SECRET_ID, take_apart
from snf_image_host.parameters.disk_uris import parse_disk_uri, shown_disk_uri
from snf_image_host.parameters.problems import ParseError
from snf_image_host.reporter import Reporter
from snf_image_process import Running, run, start

KEY: Final = "AQBHZmZmAAAAABAAgeheimgeheimgeheimgehe=="
PASSWORD: Final = 'geheim,"\\=Passwort'
TARGET: Final = "iqn.2026-01.org.example:disk"
MIB: Final = 1 << 20


def test_a_key_of_rbd() -> None:
    """R-SEC-1, R-DST-URI-2: qemu's own names of the options; keys are base64 and read as such."""
    uri = f"rbd:pool/a\\:b,c:id=me:key={KEY}:conf=/etc/ceph/x.conf"
    parts = take_apart(uri)
    assert (parts.secret.reveal(), parts.encoding) == (KEY, "base64")
    assert parts.options == {
        "driver": "rbd", "pool": "pool", "image": "a:b,c", "user": "me", "conf": "/etc/ceph/x.conf",
        "key-secret": SECRET_ID,
    }  # fmt: skip
    monitors = r"mon_host=10.0.0.1\;mon2\:6790\;[\:\:1]\:7000"
    parts = take_apart(f"rbd:p/ns/i:key={KEY}:{monitors}:auth_supported=cephx\\;none")
    assert parts.options["namespace"] == "ns"
    assert parts.options["server"] == [
        {"host": "10.0.0.1", "port": "6789"},
        {"host": "mon2", "port": "6790"},
        {"host": "::1", "port": "7000"},
    ]
    assert parts.options["auth-client-required"] == ["cephx", "none"]


@pytest.mark.parametrize(("portal", "transport"), [("h", "tcp"), ("10.0.0.1:33", "tcp"), ("[::1]:3", "iser")])
def test_a_password_of_iscsi(portal: str, transport: str) -> None:
    """R-SEC-1: what stands between % and @."""
    scheme = "iser" if transport == "iser" else "iscsi"
    parts = take_apart(f"{scheme}://me%{PASSWORD}@{portal}/{TARGET}/1")
    assert (parts.secret.reveal(), parts.encoding) == (PASSWORD, "raw")
    assert parts.options == {
        "driver": "iscsi", "transport": transport, "portal": portal, "target": TARGET, "lun": 1, "user": "me",
        "password-secret": SECRET_ID,
    }  # fmt: skip


WORD: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(pool=WORD, image=WORD, user=WORD)
def test_names_with_any_character(pool: str, image: str, user: str) -> None:
    """R-DST-URI-3: whatever was escaped arrives."""

    def escaped(text: str) -> str:
        return re.sub(r"([\\:/@=])", r"\\\1", text)

    parts = take_apart(f"rbd:{escaped(pool)}/{escaped(image)}:id={escaped(user)}:key={KEY}")
    assert (parts.options["pool"], parts.options["image"], parts.options["user"]) == (pool, image, user)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ssh://me:geheim@h/x", "ssh takes no password"), ("nbd://me:geheim@h/x", "nbd takes no password"),
        ("iscsi://me:geheim@h/iqn/0", "USER%PASSWORD"), ("iscsi://me%geheim@h/iqn", "USER%PASSWORD"),
        ("iscsi://h/iqn/0?target_user=a&target_password=geheim", "USER%PASSWORD"),
        ("rbd:p/i:key=geheim!", "must be base64"), ("rbd:p/i:key=", "must be base64"),
        (f"rbd:p/i:key={KEY}:rbd_cache=no", "RBD takes the options id, conf, mon_host"),
        (f"rbd:p/i:key={KEY}:mon_host=[v2\\:h]", "HOST:PORT"), (f"rbd:i:key={KEY}", "a pool and an image"),
        (f"rbd:p/i:key={KEY}:auth_supported=gss", "cephx or none"), ("rbd:p/i:password=geheim", "takes the"),
    ],
)  # fmt: skip
def test_what_cannot_be_hidden_is_refused(uri: str, message: str) -> None:
    """R-SEC-1: before anything is written, and without showing it."""
    with pytest.raises(ParseError, match=message) as caught:
        take_apart(uri)
    assert not caught.value.echo
    assert "geheim" not in str(caught.value)
    if uri != "rbd:p/i:key=":
        with pytest.raises(ParseError, match=message):
            parse_disk_uri(uri)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users can enter, as the one that qemu-nbd runs as must."""
    directory = Path(tempfile.mkdtemp(prefix="snf-image-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@dataclasses.dataclass
class Started:
    """The arguments of a server, and what its secret's descriptor held."""

    words: list[str] = dataclasses.field(default_factory=list)
    secret: str = ""

    def start(self, words: list[str], *, stderr: int, pass_fds: tuple[int, ...]) -> Running:
        self.words = words
        (fd,) = pass_fds
        self.secret = os.pread(fd, 4096, 0).decode()
        return start(words, stderr=stderr, pass_fds=pass_fds)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    made = Started()
    monkeypatch.setattr(disk_server, "start", made.start)
    return made


def serving(uri: str, directory: Path) -> contextlib.AbstractContextManager[tuple[Any, ...]]:
    target = TargetDisk(index=0, path=shown_disk_uri(uri), uri=uri)
    return open_every_disk((target,), DiskServing(runtime_dir=str(directory / "run")), Reporter())


@pytest.mark.requires("qemu-nbd")
@pytest.mark.parametrize(
    ("uri", "secret"),
    [
        (f"rbd:p,q/i:key={KEY}:conf=/nonexistent", KEY),
        (f"iscsi://me%{PASSWORD}@[::1]:1/{TARGET}/0", PASSWORD),
    ],
)
def test_arguments_have_no_secret(uri: str, secret: str, started: Started, place: Path) -> None:
    """R-SEC-1, R-SEC-2, R-DST-URI-3: it is behind a descriptor; nor is it told if there is no storage."""
    with pytest.raises(SnfImageError) as caught, serving(uri, place):
        pass
    told = [*started.words, str(caught.value), *caught.value.messages, *caught.value.details]
    assert not any(secret in text or json.dumps(secret)[1:-1] in text for text in told)
    assert started.secret == secret
    opened = json.loads(started.words[-1].removeprefix("json:"))
    assert opened == {"driver": "raw", "file": take_apart(uri).options}
    mark = started.words.index("--object")
    assert started.words[mark + 1].startswith(f"secret,id={SECRET_ID},format=")


@pytest.mark.requires("qemu-nbd", "qemu-block-extra")
def test_qemu_knows_the_options_of_rbd(started: Started, place: Path) -> None:
    """R-DST-URI-2: it gets as far as to look for the configuration of Ceph."""
    uri = f"rbd:p/ns/i:id=me:key={KEY}:mon_host=h:auth_supported=cephx:conf=/nonexistent"
    with pytest.raises(NodeError, match="error reading conf file /nonexistent"), serving(uri, place):
        pass
    assert started.secret == KEY


class Target:
    """An iSCSI target that wants a password, of the user land alone."""

    def __init__(self, directory: Path, portal: str, running: Running) -> None:
        self.portal = portal
        self.disk = directory / "disk"
        self._directory = directory
        self._running = running

    def tell(self, *words: str) -> None:
        argv = ["tgtadm", "-C", "7", "--lld", "iscsi", *words]
        run(argv, timeout=10, env={"TGT_IPC_SOCKET": str(self._directory / "s")})

    def set_up(self, password: str) -> None:
        while not (self._directory / "s.7").exists():
            assert self._running.wait(0.01) is None
        with open(self.disk, "wb") as file:
            file.truncate(8 * MIB)
        self.tell("--mode", "target", "--op", "new", "--tid", "1", "-T", TARGET)
        words = ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", str(self.disk)]
        self.tell(*words)
        self.tell("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")
        self.tell("--mode", "account", "--op", "new", "--user", "me", "--password", password)
        self.tell("--mode", "account", "--op", "bind", "--tid", "1", "--user", "me")


@pytest.fixture
def target(place: Path) -> Iterator[Target]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        portal = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["tgtd", "-f", "-C", "7", "--iscsi", f"portal={portal}"]
    with start(words, env={"TGT_IPC_SOCKET": str(place / "s")}) as running:
        yield Target(place, portal, running)


needs_target = pytest.mark.requires("root", "qemu-nbd", "qemu-block-extra", "tgt")


def arguments_on_this_machine() -> Iterator[bytes]:
    for name in filter(str.isdecimal, os.listdir("/proc")):
        for file in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{name}/{file}").read_bytes()


@needs_target
def test_a_disk_behind_a_password(target: Target, place: Path) -> None:
    """R-SEC-1, R-DST-URI-2: it is written to, and no process on the machine shows the password meanwhile."""
    target.set_up("geheim-Passwort")
    uri = f"iscsi://me%geheim-Passwort@{target.portal}/{TARGET}/1"
    with serving(uri, place) as (disk,):
        assert isinstance(disk, ServedDisk)
        assert disk.size == 8 * MIB
        assert not any(b"geheim" in text for text in arguments_on_this_machine())
        client = NbdClient(disk.connect(), disk.export)
        client.write(memoryview(b"written" * 512), 512)
        client.flush()
        client.close()
    assert target.disk.read_bytes()[512:519] == b"written"
    wrong = uri.replace("geheim-Passwort", "falsch-geheim")
    with pytest.raises(NodeError, match="Authentication failure") as caught, serving(wrong, place):
        pass
    assert "geheim" not in str(caught.value)


@needs_target
def test_a_script_with_such_a_uri(target: Target, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-SEC-1, R-SCR-EXPORT-1: nor does its log show it, however much it is to tell."""
    target.set_up("geheim-Passwort")
    node = Node(place / "node")
    node.configure("IMAGE_DEBUG=yes")
    uri = f"iscsi://me%geheim-Passwort@{target.portal}/{TARGET}/1"
    for variable in (uri, uri.replace("-Passwort", "-falsch")):
        with (place / "dump").open("wb") as output:
            monkeypatch.setattr(sys, "stdout", output)
            answer = node.call("export", EXPORT_DISK_URI=variable, DEBUG_LEVEL="1")
        assert answer.status == (0 if variable == uri else 1)
        assert "geheim" not in answer.log
        assert (place / "dump").stat().st_size == (8 * MIB if variable == uri else 0)
