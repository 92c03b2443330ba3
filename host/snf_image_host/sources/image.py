"""Opening an image: from where it is, out of what it is wrapped in, to the bytes for the disk.

Only if the request asks for it is anything unwrapped, and then by what the first bytes are (R-FMT-1, D-3).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource
from snf_image_host.errors import ImageError, UserError, VerificationError
from snf_image_host.fetching import open_transfer
from snf_image_host.image_container import HEAD_SIZE, Container, recognise
from snf_image_host.image_header import SECTOR, check_beginning, check_header
from snf_image_host.partition_header import partition_header
from snf_image_host.reporter import Reporter
from snf_image_host.sources.account import source_account
from snf_image_host.sources.cache import ImageCache, Kept, open_cache
from snf_image_host.sources.decoding import Decoding
from snf_image_host.sources.disk_format import open_disk_format
from snf_image_host.sources.image_signature import signed
from snf_image_host.sources.local import LocalImage, file_state, open_local, reading, refuse_changed
from snf_image_host.sources.neighbours import Neighbours
from snf_image_host.sources.program import ProgramSource
from snf_image_host.sources.reading import ByteSource, Digesting, FileSource, Prefixed, drain, read_head
from snf_image_host.sources.spool import spool
from snf_image_host.sources.stream import ImageStream
from snf_image_host.sources.streamed import StreamedImage
from snf_image_host.sources.verification import Verifier, open_verifier
from snf_image_host.vm.account import Account

MAX_LAYERS: Final = 3
"""Such as a compression around an archive around a compression."""


@contextlib.contextmanager
def open_image(source: ImageSource, reporter: Reporter | None = None) -> Iterator[ImageStream]:
    """The image as it goes onto the disk; programs that this needs run while the context lasts.

    :class:`UserError` if it cannot be opened or is not allowed, or is a disk of a deployment that runs: open
    the disks first, and an image is never copied onto itself. :class:`ImageError` if it is not what its
    format says.
    """
    if source.path is None:
        raise UserError("there is no image to copy")
    with contextlib.ExitStack() as alive:
        yield _Opening(source, source.path, reporter or Reporter(), alive).open()


class _Opening:
    """One image while it is opened. What it needs is freed by ``alive``, the outermost layer first."""

    def __init__(
        self, source: ImageSource, path: str, reporter: Reporter, alive: contextlib.ExitStack
    ) -> None:
        self._source = source
        self._path = path
        self._reporter = reporter
        self._alive = alive
        self._lent: Account | None = None
        self._fetching: Account | None = None

    def open(self) -> ImageStream:
        neighbours = Neighbours(self._source, self._fetcher, self._reporter)
        verifier = open_verifier(self._source, neighbours, self._account, self._reporter)
        if self._source.kind == "url":
            return self._open_url(verifier)
        if self._source.kind == "program":
            return self._open_program(verifier)
        return self._open_file(verifier)

    def _open_file(self, verifier: Verifier) -> ImageStream:
        source = self._source
        fd = open_local(source, self._path, self._reporter)
        self._alive.callback(os.close, fd)
        with reading(source.shown):
            head = os.pread(fd, HEAD_SIZE, 0)
        container = self._choose(head)
        if container is Container.RAW and verifier.signature is None:
            size = os.lseek(fd, 0, os.SEEK_END)
            with reading(source.shown):
                check_header(fd, size, source.format, source.shown)
            header = partition_header(source.format, size) if source.format.needs_partition_header else b""
            return LocalImage(fd, source.shown, header, size, verifier=verifier)
        state = file_state(fd)
        file = FileSource(fd, source.shown, os.lseek(fd, 0, os.SEEK_END))
        os.lseek(fd, 0, os.SEEK_SET)
        unchanged = functools.partial(refuse_changed, fd, state, source.shown)
        # Of a block device nobody tells whether it changed since it was verified: it is kept like a stream.
        if container.is_disk_format and (state is not None or not verifier.reads_source):
            return self._open_local_disk_format(fd, file, container, verifier, unchanged)
        return self._unwrap(file, verifier, unchanged)

    def _open_local_disk_format(
        self,
        fd: int,
        file: FileSource,
        container: Container,
        verifier: Verifier,
        unchanged: Callable[[], None],
    ) -> ImageStream:
        """It is not read in order: what is to be verified is read once more, before."""
        published: Mapping[str, str] = {}
        if verifier.reads_source:
            checked, demand = self._signed(file, verifier)
            digesting = Digesting(checked, verifier.algorithms)
            drain(digesting)
            demand()
            published = digesting.digests
            verifier.check(published)
        plain = self._disk_format(fd, container)
        head = read_head(plain, HEAD_SIZE)

        def check(_: Mapping[str, str]) -> Mapping[str, str]:
            unchanged()
            return published

        return self._image(head, Prefixed(head, plain), frozenset(), check)

    def _disk_format(self, fd: int, container: Container) -> ByteSource:
        source = self._source
        opening = open_disk_format(fd, container, source.settings, self._account(), source.shown)
        return self._alive.enter_context(opening)

    def _open_url(self, verifier: Verifier) -> ImageStream:
        policy = self._source.settings.fetch
        cache = open_cache(self._source.settings, self._reporter)
        kept = None if cache is None else cache.find(self._path)
        fd = None if cache is None or kept is None else cache.open(kept)
        if fd is not None:
            self._alive.callback(os.close, fd)
        known = None if fd is None or kept is None else kept.condition
        opening = open_transfer(self._path, policy, self._fetcher(), self._reporter, known=known)
        transfer = self._alive.enter_context(opening)
        if cache is None or (transfer.condition is None and not transfer.is_unchanged):
            return self._unwrap(transfer, verifier, lambda: None)
        if transfer.is_unchanged and fd is not None and kept is not None:
            return self._unwrap_kept(fd, cache, kept, verifier)
        assert transfer.condition is not None  # noqa: S101 - only what is known can be unchanged
        keeping = cache.keep(self._path, transfer, transfer.condition)
        self._alive.callback(keeping.close)
        return self._unwrap(keeping, verifier, lambda: None, keeping.keep)

    def _unwrap_kept(self, fd: int, cache: ImageCache, kept: Kept, verifier: Verifier) -> ImageStream:
        """What the node has already, if it is still what its name says."""
        shown = self._source.shown
        self._reporter.info(f"the image {shown} has not changed, the node's copy is used")
        published = Digesting(FileSource(fd, shown, os.fstat(fd).st_size), {"sha256"})

        def check() -> None:
            if published.digests["sha256"] != kept.digest:
                cache.drop(kept)
                raise VerificationError(
                    f"the copy of the image {shown} in IMAGE_CACHE_DIR is damaged",
                    hint="try again: it is fetched anew",
                )

        return self._unwrap(published, verifier, check)

    def _open_program(self, verifier: Verifier) -> ImageStream:
        source = self._source
        if source.program is None:
            raise UserError(f"there is no program for the image {source.shown}")
        stream = ProgramSource(source.program, self._path, source.shown, source.format, self._reporter)
        self._alive.callback(stream.close)
        return self._unwrap(stream, verifier, lambda: None)

    def _unwrap(
        self,
        outer: ByteSource,
        verifier: Verifier,
        at_end: Callable[[], None],
        verified: Callable[[], None] = lambda: None,
    ) -> ImageStream:
        """Layer by layer, down to the image. ``at_end`` checks the source when all of it was read.

        ``verified`` is called when it is known to be the right one.
        """
        algorithms = verifier.algorithms | ({"sha256"} if self._source.digest else set())
        outer, demand = self._signed(outer, verifier)
        head = read_head(outer, HEAD_SIZE)
        inner: ByteSource = Prefixed(head, outer)
        container = self._choose(head)
        if container is Container.RAW:

            def check(digests: Mapping[str, str]) -> Mapping[str, str]:
                at_end()
                demand()
                verifier.check(digests)
                verified()
                return {}

            return self._image(head, inner, verifier.algorithms, check)
        published = Digesting(inner, algorithms)

        def check_source(_: Mapping[str, str]) -> Mapping[str, str]:
            at_end()
            demand()
            verifier.check(published.digests)
            verified()
            return published.digests

        inner = published
        for _ in range(MAX_LAYERS):
            was_disk_format = container.is_disk_format
            if was_disk_format:
                inner = self._spooled(inner, container, check_source)
            else:
                inner = Decoding(inner, container, self._account(), self._source.shown)
                self._alive.callback(inner.close)
            head = read_head(inner, HEAD_SIZE)
            inner = Prefixed(head, inner)
            container = recognise(head) if self._source.container == "auto" else Container.RAW
            if was_disk_format or container is Container.RAW or not self._is_allowed(container):
                return self._image(head, inner, frozenset(), check_source)
        raise ImageError(f"the image {self._source.shown} is wrapped more than {MAX_LAYERS} times")

    def _signed(self, source: ByteSource, verifier: Verifier) -> tuple[ByteSource, Callable[[], None]]:
        """``source`` on its way past who checks its signature, and what demands that it is good."""
        checking = signed(source, verifier.signature, self._account, self._reporter.warn)
        return self._alive.enter_context(checking)

    def _spooled(
        self,
        inner: ByteSource,
        container: Container,
        check_source: Callable[[Mapping[str, str]], Mapping[str, str]],
    ) -> ByteSource:
        """A disk format that comes as a stream: kept, verified, and only then looked into (D-4)."""
        source = self._source
        self._reporter.info(
            f"the image {source.shown} is {container} and is kept on the node while it is read"
        )
        fd = spool(inner, source.settings, source.shown)
        self._alive.callback(os.close, fd)
        check_source({})
        return self._disk_format(fd, container)

    def _image(
        self,
        head: bytes,
        stream: ByteSource,
        digests: frozenset[str],
        at_end: Callable[[Mapping[str, str]], Mapping[str, str]],
    ) -> ImageStream:
        source = self._source
        needed = check_beginning(
            lambda length, offset: head[offset : offset + length], stream.size, source.format, source.shown
        )
        header = b""
        if source.format.needs_partition_header:
            # NTFS keeps a copy of its boot sector behind what it counts.
            behind = SECTOR if source.format is ImageFormat.NTFSDUMP else 0
            header = partition_header(source.format, stream.size or needed + behind)
        return StreamedImage(
            stream, shown=source.shown, header=header, needed=needed, digests=digests, at_end=at_end
        )

    def _choose(self, head: bytes) -> Container:
        """What the outermost layer is, as far as the request and the operator want to know."""
        source, asked = self._source, self._source.container
        if asked == Container.RAW:
            return Container.RAW
        found = recognise(head)
        if asked == "auto":
            return found if self._is_allowed(found) else Container.RAW
        if found != asked:
            raise ImageError(
                f"the image {source.shown} is not {asked}: its first bytes say {found}",
                hint="say what it is, or auto",
            )
        if asked not in source.settings.containers:
            raise UserError(
                f"the image {source.shown} is {asked}, which this node does not take apart",
                hint="IMAGE_CONTAINERS of the configuration lists what it does",
            )
        return found

    def _is_allowed(self, container: Container) -> bool:
        if container in self._source.settings.containers or container is Container.RAW:
            return True
        self._reporter.warn(
            f"the image {self._source.shown} looks like {container}, which IMAGE_CONTAINERS does not list: "
            "it is copied byte for byte"
        )
        return False

    def _fetcher(self) -> Account:
        """Who fetches: the operator's account for that, if there is one."""
        user = self._source.settings.fetch.user
        if user is None:
            return self._account()
        if self._fetching is None:
            theirs = source_account(self._source.settings, self._reporter, user=user)
            self._fetching = self._alive.enter_context(theirs)
        return self._fetching

    def _account(self) -> Account:
        """Who programs run as that see the image: for each image another user, as root (D-7)."""
        if self._lent is None:
            self._lent = self._alive.enter_context(source_account(self._source.settings, self._reporter))
        return self._lent
