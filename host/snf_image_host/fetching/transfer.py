"""A body from a URL: redirects followed and checked, a broken connection resumed (R-FETCH-2, R-SRC-NET-3)."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Final

from snf_image_host.deployment import FetchPolicy
from snf_image_host.errors import ImageError, NodeError, UserError
from snf_image_host.fetching.addresses import Address, allowed_addresses
from snf_image_host.fetching.curl import (
    NOT_FOUND,
    UNREACHABLE,
    Call,
    Condition,
    Curl,
    Head,
    parse_ftp_size,
    place_of,
    run_curl,
)
from snf_image_host.fetching.pace import Pace
from snf_image_host.parameters.problems import ParseError
from snf_image_host.parameters.urls import parse_url, redact_url
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account

MAX_RESUMES: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MAX_SIZE_ANSWER: Final = 4096


@contextlib.contextmanager
def open_transfer(
    url: str,
    policy: FetchPolicy,
    account: Account,
    reporter: Reporter,
    *,
    known: Condition | None = None,
) -> Iterator[Transfer]:
    """The body of what ``url`` leads to, its head read already.

    ``known``: what it led to before; if that is still so, there is no body (:attr:`Transfer.is_unchanged`).

    :class:`UserError` if the policy refuses it or there is no such thing, :class:`NodeError` if the server
    cannot be reached, :class:`ImageError` if it answers nonsense.
    """
    if policy.insecure:
        reporter.warn("TLS certificates are not verified (FETCH_INSECURE)")
    transfer = Transfer(url, policy, account, reporter, known)
    try:
        transfer.open()
        yield transfer
    finally:
        transfer.close()


class Transfer:
    """Bytes of a body, in order. ``size`` None if the server does not tell it."""

    def __init__(
        self,
        url: str,
        policy: FetchPolicy,
        account: Account,
        reporter: Reporter,
        known: Condition | None = None,
    ) -> None:
        self.size: int | None = None
        self.is_unchanged = False
        """The server has what ``known`` says, and sent nothing."""
        self.condition: Condition | None = None
        """How to ask the next time whether this is still what the server has; None if it cannot be asked."""
        self._known = known
        self.etag: str | None = None
        self.shown = redact_url(url)
        self._url = url
        self._policy = policy
        self._account = account
        self._reporter = reporter
        self._pace = Pace(policy)
        self._curl: Curl | None = None
        self._position = 0
        self._resumes = 0
        self._pinned: tuple[tuple[Address, int], ...] = ()
        self._abandoned = False
        self._lock = threading.Lock()

    def open(self) -> None:
        """Follow redirects to the response that counts."""
        for _ in range(self._policy.max_redirects + 1):
            _check_url(self._url, self._policy, self.shown)
            self._pinned = allowed_addresses(self._url, self._policy, self.shown)
            head = self._request()
            if head.status == 304 and self._asks_for_news():
                self.is_unchanged = True
                self._end_run()
                return
            if head.status not in _REDIRECTS:
                self._accept(head, 200)
                self.condition = Condition.of(self._url, head)
                self.size, self.etag = head.length, head.validator
                return
            self._end_run()
            self._url = _redirected(self._url, head, self.shown)
            self.shown = redact_url(self._url)
        raise UserError(
            f"{self.shown} is not fetched: more than {self._policy.max_redirects} redirects",
            hint="FETCH_MAX_REDIRECTS of the configuration sets the limit",
        )

    def read_into(self, view: memoryview) -> int:
        while True:
            curl = self._curl
            if curl is None:
                return 0
            begun = time.monotonic()
            count = curl.read_into(view, self._policy.idle_timeout)
            self._pace.add(count, time.monotonic() - begun, self.shown)
            self._position += count
            if count:
                return count
            if self._abandoned or self._is_whole(curl):
                return 0
            self._resume(curl)

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._curl is not None:
                self._curl.running.stop()

    def close(self) -> None:
        self.abandon()
        self._end_run()

    def _asks_for_news(self) -> bool:
        """Only where the known answer came from: elsewhere the validators mean nothing."""
        return self._known is not None and self._position == 0 and place_of(self._url) == self._known.place

    def _is_whole(self, curl: Curl) -> bool:
        status = curl.end()
        if self.size is not None and self._position > self.size:
            raise ImageError(f"{self.shown} has more than the {self.size} bytes that the server announced")
        return status == 0 and (self.size is None or self._position == self.size)

    def _resume(self, broken: Curl) -> None:
        """Go on behind the last byte, if it is sure that the bytes are still the same (R-SRC-NET-3)."""
        complaint = broken.complaint()
        self._end_run()
        of_all = "" if self.size is None else f" of {self.size}"
        if self.etag is None or self._resumes == MAX_RESUMES or self._position == 0:
            raise ImageError(
                f"{self.shown} ended early, after {self._position}{of_all} bytes: {complaint}",
                hint="try again; servers that send a strong ETag can be resumed",
            )
        self._resumes += 1
        self._reporter.info(f"the connection broke after {self._position}{of_all} bytes, it is resumed")
        head = self._request()
        self._accept(head, 206)
        expected = f"bytes {self._position}-"
        told = head.fields.get("content-range", "")
        if not told.startswith(expected) or head.validator not in (None, self.etag):
            raise ImageError(f"{self.shown}: the server resumes at another place than it was asked for")

    def _accept(self, head: Head, wanted: int) -> None:
        if head.status == wanted:
            return
        if wanted == 206:
            raise ImageError(f"{self.shown} was changed on the server while it was fetched")
        kind = NodeError if head.status >= 500 else UserError
        raise kind(f"{self.shown} cannot be fetched: the server answers with status {head.status}")

    def _request(self) -> Head:
        """A response from the first address that answers."""
        complaint = ""
        for number, (address, port) in enumerate(self._pinned, 1):
            call = Call(
                url=self._url,
                shown=self.shown,
                address=address,
                port=port,
                start=self._position,
                validator=self.etag,
                headers=self._known.headers if self._known is not None and self._asks_for_news() else (),
            )
            head = self._ask_ftp(call) if call.is_ftp else self._ask_http(call)
            if isinstance(head, Head):
                return head
            status, complaint = head
            if status == NOT_FOUND:
                raise NodeError("curl is not installed", hint="apt-get install curl")
            if status not in UNREACHABLE or number == len(self._pinned):
                break
        raise NodeError(f"{self.shown} cannot be fetched: {complaint}")

    def _ask_http(self, call: Call) -> Head | tuple[int, str]:
        """The head of the response, or curl's status and what it says."""
        curl = self._start(call)
        head = curl.read_head(self._policy.timeout)
        if head is not None:
            return head
        failed = curl.end(), curl.complaint()
        self._end_run()
        return failed

    def _ask_ftp(self, call: Call) -> Head | tuple[int, str]:
        """The size by a run of its own; then the transfer begins."""
        asked = Call(url=call.url, shown=call.shown, address=call.address, port=call.port, size_only=True)
        curl = self._start(asked)
        answer = curl.read_all(_MAX_SIZE_ANSWER, self._policy.timeout)
        status, complaint = curl.end(), curl.complaint()
        self._end_run()
        if status != 0:
            return status, complaint
        size = parse_ftp_size(answer.decode("latin-1"))
        self._start(call)
        return Head(status=200, fields={} if size is None else {"content-length": str(size)})

    def _start(self, call: Call) -> Curl:
        curl = run_curl(call, self._policy, self._account)
        with self._lock:
            self._curl = curl
            if self._abandoned:
                curl.running.stop()
        return curl

    def _end_run(self) -> None:
        with self._lock:
            curl, self._curl = self._curl, None
        if curl is not None:
            curl.close()


def _check_url(url: str, policy: FetchPolicy, shown: str) -> None:
    try:
        parse_url(url, schemes=policy.schemes)
    except ParseError as error:
        raise UserError(f"{shown} is not fetched: it {error}") from None


def _redirected(url: str, head: Head, shown: str) -> str:
    """Where a response leads; never from https to anything that is not encrypted (R-FETCH-2)."""
    location = head.fields.get("location", "")
    if not location:
        raise ImageError(f"{shown}: the server redirects to nowhere")
    try:
        target = urllib.parse.urldefrag(urllib.parse.urljoin(url, location)).url
        before, after = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(target).scheme
    except ValueError:
        raise ImageError(f"{shown}: the server redirects to something that is no URL") from None
    if before.lower() in ("https", "ftps") and after.lower() not in ("https", "ftps"):
        raise UserError(f"{shown} is not fetched: it redirects from {before} to {after or 'nowhere'}")
    if after.lower() not in ("http", "https", "ftp", "ftps"):
        raise UserError(f"{shown} is not fetched: it redirects to a URL of scheme {after}")
    return target
