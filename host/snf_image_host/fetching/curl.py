"""One run of curl: one URL, one address, no redirect; what it says before the body.

All that could be secret is in its configuration, which it reads from standard input (R-SEC-1, D-13).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import select
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Final

from snf_image_host.deployment import FetchPolicy
from snf_image_host.errors import ImageError, NodeError
from snf_image_host.fetching.addresses import Address
from snf_image_host.fetching.confined import confined
from snf_image_host.vm.account import Account
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_process import PIPE, Deadline, ProcessError, Running, start

MAX_HEAD: Final = 64 * 1024
_LIMITS: Final = Limits(address_space=1 << 30, files=64, processes=16, file_size=0)
_MAX_CERTIFICATES: Final = 8 << 20
_EMPTY_LINE: Final = re.compile(rb"\r?\n\r?\n")
"""The first one ends a head, whichever way the lines end; others may follow in the body."""
_HARMLESS: Final = re.compile(r"[\x20-\x7e]{1,256}")
_FTP: Final = ("ftp", "ftps")
UNREACHABLE: Final = (7, 28, 35)
"""curl's status if there was no connection: another address may do."""
NOT_FOUND: Final = 127


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Status and header fields of a response; names in lower case, the last of equal ones. FTP: 200."""

    status: int
    fields: Mapping[str, str]

    @property
    def length(self) -> int | None:
        """Bytes of the body, None if they are not told (R-SRC-NET-2)."""
        text = self.fields.get("content-length", "")
        told = text.isascii() and text.isdecimal() and len(text) < 19
        return int(text) if told and "transfer-encoding" not in self.fields else None

    @property
    def validator(self) -> str | None:
        """A strong validator that a range of the same bytes can be asked with."""
        tag = self.fields.get("etag", "")
        return tag if len(tag) >= 2 and tag[0] == tag[-1] == '"' and '"' not in tag[1:-1] else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a server can be asked whether it has anything else than it had. ``place``: where that was.

    Empty texts: the server gave none.
    """

    place: str
    etag: str = ""
    last_modified: str = ""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """An ETag is the better answer: where there is one, times are not asked about."""
        if self.etag:
            return (("If-None-Match", self.etag),)
        return (("If-Modified-Since", self.last_modified),)

    @staticmethod
    def of(url: str, head: Head) -> Condition | None:
        """None for a response that says nothing about itself, or is not to be kept."""
        if "no-store" in head.fields.get("cache-control", "").lower():
            return None
        texts = [head.fields.get(name, "") for name in ("etag", "last-modified")]
        etag, modified = (text if _HARMLESS.fullmatch(text) else "" for text in texts)
        if not etag and not modified:
            return None
        return Condition(place=place_of(url), etag=etag, last_modified=modified)


def place_of(url: str) -> str:
    """A digest of where a URL leads, whoever asks: without user-info, query and fragment."""
    parts = urllib.parse.urlsplit(url)
    text = f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}{parts.path}"
    return hashlib.sha256(text.encode()).hexdigest()


class Curl:
    """A transfer that runs. A context manager that ends it."""

    def __init__(self, running: Running, shown: str) -> None:
        self.running = running
        self._shown = shown
        assert running.stdout is not None and running.stderr is not None  # noqa: S101, PT018
        self._out = running.stdout.fileno()
        self._err = running.stderr.fileno()
        self._rest = b""

    def read_head(self, seconds: float) -> Head | None:
        """What comes before the body of an HTTP response; None if curl ended without one."""
        deadline = Deadline(seconds or None)
        data = b""
        while True:
            while (end := _EMPTY_LINE.search(data)) is not None:
                block, data = data[: end.start()], data[end.end() :]
                head = _parse_head(block)
                if head is None:
                    raise ImageError(f"{self._shown}: the server's answer is not HTTP")
                if head.status >= 200:
                    self._rest = data
                    return head
            if len(data) > MAX_HEAD:
                raise ImageError(f"{self._shown}: the server's answer has no end of its head")
            chunk = self._read(65536, deadline)
            if not chunk:
                return None
            data += chunk

    def read_into(self, view: memoryview, seconds: float) -> int:
        """Bytes of the body; 0 when curl has closed its output. :class:`NodeError` if nothing comes."""
        if self._rest:
            count = min(len(view), len(self._rest))
            view[:count], self._rest = self._rest[:count], self._rest[count:]
            return count
        self._wait(Deadline(seconds or None))
        return os.readv(self._out, [view])

    def read_all(self, limit: int, seconds: float) -> bytes:
        """A short output, ``limit`` bytes of it at most; ``seconds`` for all of them together."""
        deadline = Deadline(seconds or None)
        data = b""
        while chunk := self._read(limit - len(data), deadline):
            data += chunk
        return data

    def end(self) -> int:
        """curl's exit status."""
        status = self.running.wait(10.0)
        return self.running.stop() if status is None else status

    def complaint(self) -> str:
        """What it says about its failure, without anything that a URL could hold that is secret."""
        os.set_blocking(self._err, False)
        text = b""
        with contextlib.suppress(OSError):
            text = os.read(self._err, 4096)
        # The first line is the failure; advice for readers of curl's manual may follow.
        line = text.decode("ascii", "replace").strip().splitlines()[:1] or [""]
        words = "".join(char if char.isprintable() else "?" for char in line[0])
        return words.partition(") ")[2][:200] or words[:200]

    def _read(self, length: int, deadline: Deadline) -> bytes:
        self._wait(deadline, "no whole answer came within")
        return os.read(self._out, length)

    def _wait(self, deadline: Deadline, problem: str = "nothing came for") -> None:
        limit = None if deadline.seconds is None else deadline.remaining()
        if not select.select([self._out], [], [], limit)[0]:
            raise NodeError(
                f"{self._shown}: {problem} {deadline.seconds:g} seconds",
                hint="the server or the way to it is slow; see FETCH_TIMEOUT and COPY_IDLE_TIMEOUT",
            )

    def close(self) -> None:
        self.running.__exit__()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one run is asked for. ``start``: first byte, with the ``validator`` of what was read before it."""

    url: str
    shown: str
    address: Address
    port: int
    start: int = 0
    validator: str | None = None
    size_only: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def scheme(self) -> str:
        return urllib.parse.urlsplit(self.url).scheme.lower()

    @property
    def is_ftp(self) -> bool:
        return self.scheme in _FTP


def run_curl(call: Call, policy: FetchPolicy, account: Account) -> Curl:
    """Start it. :class:`NodeError` if that cannot be."""
    words = confined([*launcher(account, limits=_LIMITS), "curl", "--disable", "--config", "-"])
    with _certificates(policy) as certificates:
        inherited = () if certificates is None else (certificates,)
        try:
            running = start(words, stdin=PIPE, stdout=PIPE, stderr=PIPE, pass_fds=inherited)
        except ProcessError as error:
            raise NodeError(f"curl cannot be started: {error.reason}", hint="apt-get install curl") from None
    assert running.stdin is not None  # noqa: S101 - it was asked for
    with contextlib.suppress(BrokenPipeError):
        running.stdin.write(configuration(call, policy, certificates).encode())
        running.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        running.stdin.close()
    return Curl(running, call.shown)


@contextlib.contextmanager
def _certificates(policy: FetchPolicy) -> Iterator[int | None]:
    """FETCH_CA_FILE in memory: curl's account need not be able to reach the file (R-FETCH-4)."""
    if policy.ca_file is None:
        yield None
        return
    try:
        with open(policy.ca_file, "rb") as file:
            content = memoryview(file.read(_MAX_CERTIFICATES))
    except OSError as error:
        raise NodeError(f"FETCH_CA_FILE {policy.ca_file} cannot be read: {error.strerror}") from None
    fd = os.memfd_create("certificates", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o444)
        while content:
            content = content[os.write(fd, content) :]
        yield fd
    finally:
        os.close(fd)


def configuration(call: Call, policy: FetchPolicy, certificates: int | None = None) -> str:
    """What curl reads: one option a line, values quoted. ``certificates``: descriptor that it inherits."""
    host = f"[{call.address}]" if call.address.version == 6 else str(call.address)
    lines = [
        _option("url", call.url),
        _option("proto", f"={call.scheme}"),
        # Whatever the name in the URL is taken for: the connection goes to the address that was checked.
        _option("connect-to", f"::{host}:{call.port}"),
        _option("noproxy", "*"),
        _option("user-agent", "snf-image"),
        _option("max-redirs", "0"),
        "silent",
        "show-error",
        "globoff",
        "path-as-is",
        "no-buffer",
        "http1.1",
    ]
    if policy.timeout:
        lines.append(_option("connect-timeout", f"{policy.timeout:g}"))
    if policy.insecure:
        lines.append("insecure")
    if certificates is not None:
        lines.append(_option("cacert", f"/proc/self/fd/{certificates}"))
    if call.size_only:
        lines.append("head")
    elif call.is_ftp:
        # Or it stops at the size that was announced, and takes that for the end.
        lines.append("ignore-content-length")
    else:
        lines.append("include")
    if call.start:
        lines.append(_option("range", f"{call.start}-"))
        if call.validator is not None:
            lines.append(_option("header", f"If-Range: {call.validator}"))
    lines += [_option("header", f"{name}: {value}") for name, value in call.headers]
    return "".join(f"{line}\n" for line in lines)


def _option(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name} = "{escaped}"'


def _parse_head(block: bytes) -> Head | None:
    lines = block.decode("latin-1").split("\n")
    words = lines[0].strip().split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        return None
    fields = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip().lower()] = value.strip()
    return Head(status=int(words[1][:3]), fields=fields)


def parse_ftp_size(text: str) -> int | None:
    """The size that curl tells of a file on an FTP server, None if the server does not know."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        value = value.strip()
        if name.strip().lower() == "content-length" and value.isascii() and value.isdecimal():
            return int(value)
    return None
