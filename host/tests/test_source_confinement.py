"""curl, if a server took it over: what of the node it could still reach (R-FETCH-4)."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from simulated_certificate import make_certificate
from simulated_source import LoopbackServer, QuietHandler, answering
from snf_image_host.deployment import FetchPolicy
from snf_image_host.errors import NodeError
from snf_image_host.fetching import confined as module
from snf_image_host.fetching import fetch_document
from snf_image_host.fetching.confined import FAILED, confined, landlock_version
from snf_image_host.fetching.curl import Call, run_curl
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account
from snf_image_host.vm.launcher import launcher
from snf_image_process import PIPE, ProcessError, run, runner, start

AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
FIRST_WITH_SCOPES: Final = 6
COULD_NOT_READ: Final = 37
COULD_NOT_CONNECT: Final = 7
STRANGER: Final = Account(uid=2_100_000_001, gid=2_100_000_001, switch=True)
landlock = pytest.mark.requires("curl", "landlock")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that every user may look into."""
    directory = Path(tempfile.mkdtemp(prefix="snf-image-test-"))
    directory.chmod(0o755)
    (directory / "readable").write_text("of the node\n")
    (directory / "readable").chmod(0o644)
    yield directory
    shutil.rmtree(directory)


def read_by_curl(path: str, account: Account) -> tuple[int, bytes]:
    """curl's status, and what it says of a file, started as it is for every request."""
    here = ipaddress.ip_address("127.0.0.1")
    with contextlib.ExitStack() as undo:
        call = Call(url=f"file://{path}", shown="x", address=here, port=9)
        curl = run_curl(call, FetchPolicy(timeout=20), account)
        undo.callback(curl.close)
        content = curl.read_all(1 << 24, 20)
        return curl.end(), content


def accounts() -> list[Account]:
    return [Account.of_caller(), *([STRANGER] if os.geteuid() == 0 else [])]


@landlock
def test_curl_can_read_no_file_of_the_node(open_directory: Path) -> None:
    """R-FETCH-4: although everybody may, curl as well if it is started otherwise."""
    own = str(open_directory / "readable")
    for path in (own, "/etc/passwd", "/etc/hostname", "/proc/self/environ", "/proc/version"):
        assert run(["curl", "--silent", f"file://{path}"], timeout=20).stdout
        for account in accounts():
            assert read_by_curl(path, account) == (COULD_NOT_READ, b"")


@pytest.mark.requires("curl", "landlock", "ca-certificates")
def test_curl_can_read_the_authorities_of_the_system() -> None:
    """R-FETCH-4, R-FETCH-5."""
    for account in accounts():
        status, content = read_by_curl(AUTHORITIES, account)
        assert status == 0
        assert Path(AUTHORITIES).read_bytes() in content


@landlock
@pytest.mark.parametrize(
    "command",
    ["ls /", "ls /etc/ssl", "echo > new", "echo >> readable", "rm readable", "mkdir new", "mv readable new"],
)
def test_nothing_can_be_listed_or_changed(command: str, open_directory: Path) -> None:
    """R-FETCH-4."""
    shell = ["sh", "-c", f"cd {open_directory} && {command}"]
    with pytest.raises(ProcessError, match=r"Permission denied|Invalid cross-device"):
        run(confined(shell), timeout=20)
    assert os.listdir(open_directory) == ["readable"]
    run(shell, timeout=20)


@pytest.mark.requires("root", "landlock")
def test_users_without_privileges_are_confined_as_well(open_directory: Path) -> None:
    """R-FETCH-4: those who deploy onto files of their own."""
    file = str(shutil.copy(module.__file__, open_directory))
    who = ["setpriv", f"--reuid={STRANGER.uid}", f"--regid={STRANGER.gid}", "--clear-groups", "--"]
    # Ours may be where only root can go.
    words = [*who, "python3", "-I", "-S", file, "cat", "/etc/passwd"]
    with pytest.raises(ProcessError, match="cat: /etc/passwd: Permission denied"):
        run(words, timeout=20)


def take_one(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        server.accept()[0].close()


@landlock
def test_no_other_process_can_be_reached() -> None:
    """R-FETCH-4: from Linux 6.12 on; nobody could tell curl from other programs of the caller."""
    name = f"snf-image-test-{os.getpid()}"
    confinable = landlock_version() >= FIRST_WITH_SCOPES
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        taker = threading.Thread(target=take_one, args=(server,), daemon=True)
        taker.start()
        words = ["curl", "--silent", "--max-time", "20", "--abstract-unix-socket", name, "http://x/"]
        ended = run(confined(words), timeout=30, accept=range(128)).status
        server.shutdown(socket.SHUT_RDWR)  # which ends the waiting
        taker.join(10)
        assert not taker.is_alive()
        assert (ended == COULD_NOT_CONNECT) == confinable
    words = ["sh", "-c", f"kill -0 {os.getpid()}"]
    assert (run(confined(words), timeout=20, accept=range(128)).status != 0) == confinable


@pytest.mark.requires("root", "curl", "landlock", "ca-certificates")
def test_the_authorities_of_the_system_vouch_for_servers(tmp_path: Path) -> None:
    """R-FETCH-4, R-FETCH-5: as curl's account, with ours in their place."""

    class Hello(QuietHandler):
        def answer(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

    trusted, context = make_certificate(tmp_path)
    server = LoopbackServer(Hello)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    replaced = ["unshare", "--mount", "sh", "-c", f'mount --bind {trusted} {AUTHORITIES} && exec "$@"', "sh"]
    with answering(server):
        words = confined([*launcher(STRANGER), "curl", "--disable", "--silent", server.url("/", "https")])
        assert run([*replaced, *words], timeout=20).text == "hello"
        assert run(words, timeout=20, accept=(60,)).stdout == b""


def ignored_signals(words: list[str]) -> str:
    """Those of a program that copies its input, once it does."""
    with start(words, stdin=PIPE, stdout=PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        os.write(running.stdin.fileno(), b"x")
        assert os.read(running.stdout.fileno(), 1) == b"x"
        status = Path(f"/proc/{running.pid}/status").read_text(encoding="ascii")
        (ignored,) = re.findall(r"^SigIgn:.*$", status, re.MULTILINE)
        return str(ignored)


def test_signals_are_what_they_would_be() -> None:
    """Python ignores some, and who is started would ignore them as well."""
    assert ignored_signals(confined(["cat"])) == ignored_signals(["cat"])


def started_with(change: str) -> str:
    """What it says where something about the confinement is different."""
    program = f"""
import sys
from snf_image_host.fetching import confined
{change}
sys.exit(confined.main(["cat", "/etc/passwd"]))
"""
    done = run([sys.executable, "-c", program], timeout=20, accept=(0, FAILED))
    assert (done.status == 0) == (not done.stderr)
    return done.text + done.stderr.decode()


def test_without_landlock_fetching_goes_on() -> None:
    """R-FETCH-4: `doctor` tells."""
    assert "root:" in started_with("confined.landlock_version = lambda: 0")


@pytest.mark.requires("landlock")
def test_a_confinement_that_fails_starts_nothing() -> None:
    """R-FETCH-4."""
    told = started_with('confined._ALLOWED = ((("/etc/passwd",), 1 << 40),)')
    assert told == "files of the node cannot be denied to cat: Invalid argument\n"


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (("prlimit", "setpriv"), "curl is not installed"),
        (("setpriv",), "cannot be fetched: prlimit cannot be started: No such file or directory"),
    ],
)
def test_a_program_that_is_missing(
    there: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """curl's absence is told from another's."""
    for program in there:
        path = shutil.which(program, path=runner._PATH)
        assert path
        (tmp_path / program).symlink_to(path)
    monkeypatch.setattr(runner, "_PATH", str(tmp_path))
    policy = FetchPolicy(hosts=("127.0.0.1",), timeout=20)
    with pytest.raises(NodeError, match=message) as caught:
        fetch_document("http://127.0.0.1:9/x", 100, policy, Account.of_caller(), Reporter())
    assert caught.value.hint == ("apt-get install curl" if "curl" in message else "")
