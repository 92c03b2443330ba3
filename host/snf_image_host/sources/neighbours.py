"""Small files beside an image: its checksums and their signature."""

from __future__ import annotations

import os
import posixpath
import stat
import urllib.parse
from collections.abc import Callable

from snf_image_host.deployment import ImageSource
from snf_image_host.errors import SnfImageError, UserError
from snf_image_host.fetching import fetch_document
from snf_image_host.image_directory import open_image_file
from snf_image_host.parameters.urls import redact_url
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account


class Neighbours:
    """What lies where the image lies. ``account`` fetches, and is asked for only if something is."""

    def __init__(self, source: ImageSource, account: Callable[[], Account], reporter: Reporter) -> None:
        self._source = source
        self._account = account
        self._reporter = reporter
        path = source.name_in_image_dir or source.path or ""
        if source.kind == "url":
            path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
        self.name = os.path.basename(path)
        """The image's own, as a checksum file would call it."""

    def beside(self, name: str, limit: int) -> bytes | None:
        """The file ``name`` in the directory of the image; None if it is not there or too large."""
        source = self._source
        try:
            if source.kind == "url":
                return self._fetch(_sibling(source.path or "", name), limit)
            if source.kind == "program":
                return None
            if source.name_in_image_dir is not None:
                beneath = os.path.join(os.path.dirname(source.name_in_image_dir), name)
                links = source.settings.allow_symlinks
                with open_image_file(source.settings.image_dir, beneath, allow_links=links) as fd:
                    return _read(os.dup(fd), limit)
            directory = os.path.dirname(source.path or "")
            return _read(os.open(os.path.join(directory, name), _FLAGS), limit)
        except (OSError, SnfImageError):
            return None

    def named(self, location: str, limit: int) -> bytes:
        """A file or URL that the request names. :class:`UserError` if it cannot be read."""
        if "://" in location:
            return self._fetch(location, limit)
        try:
            data = _read(os.open(location, _FLAGS), limit)
        except OSError as error:
            raise UserError(f"{location} cannot be read: {error.strerror}") from None
        if data is None:
            raise UserError(f"{location} is no regular file of at most {limit} bytes")
        return data

    def _fetch(self, url: str, limit: int) -> bytes:
        self._reporter.debug(f"fetching {redact_url(url)}")
        policy = self._source.settings.fetch
        return fetch_document(url, limit, policy, self._account(), self._reporter)


def _sibling(url: str, name: str) -> str:
    """The URL of another file in the same directory; the image's query may be what opens that.

    Schemes differ in nothing here, but urljoin() does not know ftps.
    """
    parts = urllib.parse.urlsplit(url)
    path = f"{posixpath.dirname(parts.path).rstrip('/')}/{urllib.parse.quote(name)}"
    return urllib.parse.urlunsplit(parts._replace(path=path, fragment=""))


_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def _read(fd: int, limit: int) -> bytes | None:
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        data = file.read(limit + 1)
    return data if len(data) <= limit else None
