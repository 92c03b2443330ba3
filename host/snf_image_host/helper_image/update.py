"""A helper image out of an archive: fetched, checked, unpacked, and put into its place in one step."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from typing import IO, Final

from snf_image_host.deployment import FetchPolicy, SourceSettings
from snf_image_host.errors import NodeError, UserError, VerificationError
from snf_image_host.fetching import open_transfer
from snf_image_host.helper_image.verify import verify
from snf_image_host.parameters.urls import scheme_of
from snf_image_host.reporter import Reporter
from snf_image_host.sources.account import source_account
from snf_image_host.sources.signatures import MAX_SIZE, check_signature, read_trusted_keys
from snf_image_host.vm.account import Account
from snf_image_process import ProcessError, run

_NETWORK: Final = ("http", "https")
_MAX_ARCHIVE: Final = 1 << 30
_MAX_FILE: Final = 1 << 30
_MAX_FILES: Final = 32
_CHUNK: Final = 1 << 20
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Where a helper image comes from and what it must prove.

    ``source``: a path, or a URL (file, https, http) of a tar archive. ``sha256``: its digest in hex.
    ``signature``: path or URL of a detached signature of the archive by a key in ``trusted_keys``. What
    comes from the network must have one of them.
    """

    source: str
    sha256: str | None = None
    signature: str | None = None
    trusted_keys: str
    policy: FetchPolicy
    uid_range: tuple[int, int]


def update(asked: Update, directory: str, reporter: Reporter) -> None:
    """Put the helper image of an archive into ``directory``, whose old contents it replaces.

    :class:`UserError` for what was asked wrongly, :class:`VerificationError` for an archive that is not the
    one, or not whole, :class:`NodeError` otherwise.
    """
    _check(asked)
    parent = os.path.dirname(os.path.abspath(directory))
    try:
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".helper-") as workspace:
            archive = os.path.join(workspace, "archive")
            with _opened(asked.source, asked, reporter) as blocks:
                digest = _store(blocks, archive)
            _demand_proofs(asked, archive, digest, reporter)
            made = os.path.join(workspace, "helper")
            os.mkdir(made, 0o755)
            unpack(_uncompressed(archive), made)
            problems = verify(made)
            if problems:
                raise VerificationError("the archive holds no usable helper image", details=tuple(problems))
            _swap(made, directory)
    except OSError as error:
        place = error.filename or parent
        raise NodeError(f"the helper image cannot be stored: {place}: {error.strerror}") from None


def _check(asked: Update) -> None:
    scheme = scheme_of(asked.source)
    if not asked.source:
        raise UserError("no helper image was named", hint="give a file or a URL, or set HELPER_URL")
    if scheme not in ("", "file", *_NETWORK):
        raise UserError("the helper image must be a file, or a URL of scheme file, https or http")
    if scheme in _NETWORK and asked.sha256 is None and asked.signature is None:
        raise UserError(
            "a helper image from the network needs a digest or a signature",
            hint="give --sha256 HEX or --signature FILE, or set HELPER_URL and HELPER_SHA256",
        )


def _demand_proofs(asked: Update, archive: str, digest: str, reporter: Reporter) -> None:
    if asked.sha256 is not None and digest != asked.sha256.lower():
        raise VerificationError(
            f"the archive of the helper image has sha256 {digest}, not {asked.sha256.lower()}",
            hint="nothing was changed; is it another version, or was it damaged?",
        )
    if asked.signature is None:
        return
    keys = read_trusted_keys(asked.trusted_keys)
    with _opened(asked.signature, asked, reporter) as blocks:
        signature = _read_small(blocks)
    with open(archive, "rb") as file, _account(asked, reporter) as account:
        verdict = check_signature(file.read(), signature, keys, account)
    if verdict != "good":
        why = "is bad" if verdict == "bad" else f"is by none of the keys in {asked.trusted_keys}"
        raise VerificationError(f"the signature of the helper image {why}", hint="nothing was changed")


def _read_small(blocks: Iterator[bytes]) -> bytes:
    """A signature, which may come in pieces."""
    found = bytearray()
    for block in blocks:
        found += block
        if len(found) > MAX_SIZE:
            raise VerificationError(f"the signature of the helper image has more than {MAX_SIZE} bytes")
    return bytes(found)


def _account(asked: Update, reporter: Reporter) -> contextlib.AbstractContextManager[Account]:
    return source_account(SourceSettings(uid_range=asked.uid_range), reporter, user=asked.policy.user)


def unpack(archive: str, directory: str) -> None:
    """The regular files of a tar archive into an empty directory, flat; anything else in it is refused."""
    try:
        with tarfile.open(archive, mode="r:*") as tar:
            for count, member in enumerate(tar):
                name = member.name.removeprefix("./").rstrip("/")
                if member.isdir() and name in ("", "."):
                    continue
                plain = member.isreg() and "/" not in name and name not in ("", ".", "..")
                if not plain or member.size > _MAX_FILE or count > _MAX_FILES:
                    raise VerificationError(
                        f"the archive of the helper image holds {name[:100]!r}, which does not belong there",
                        hint="it must hold the files of a helper image, and no directories, links or devices",
                    )
                body = tar.extractfile(member)
                if body is not None:
                    _write(body, os.path.join(directory, name))
    except FileExistsError as error:
        name = os.path.basename(error.filename)
        raise VerificationError(f"the archive of the helper image holds {name!r} twice") from None
    except (tarfile.TarError, EOFError) as error:
        raise VerificationError(f"the helper image is not in a tar archive: {error}") from None


@contextlib.contextmanager
def _opened(source: str, asked: Update, reporter: Reporter) -> Iterator[Iterator[bytes]]:
    scheme = scheme_of(source)
    if scheme in _NETWORK:
        with (
            _account(asked, reporter) as account,
            open_transfer(source, asked.policy, account, reporter) as transfer,
        ):
            yield _blocks_of(transfer.read_into)
        return
    path = urllib.parse.unquote(urllib.parse.urlsplit(source).path) if scheme == "file" else source
    try:
        with open(path, "rb") as file:
            yield _blocks_of(file.readinto)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None


def _blocks_of(read_into: Callable[[memoryview], int]) -> Iterator[bytes]:
    buffer = bytearray(_CHUNK)
    while count := read_into(memoryview(buffer)):
        yield bytes(buffer[:count])


def _store(blocks: Iterator[bytes], path: str) -> str:
    """Write what comes, and return its digest."""
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for block in blocks:
            size += len(block)
            if size > _MAX_ARCHIVE:
                raise VerificationError(f"the archive has more than {_MAX_ARCHIVE} bytes")
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _uncompressed(archive: str) -> str:
    """The archive as Python's tarfile reads it: it knows gzip, bzip2 and xz, but not zstd."""
    with open(archive, "rb") as file:
        if file.read(4) != _ZSTD:
            return archive
    plain = f"{archive}.tar"
    try:
        run(["zstd", "-q", "-d", archive, "-o", plain], timeout=600)
    except ProcessError as error:
        raise NodeError(f"zstd: {error.reason}", hint="apt-get install zstd") from None
    return plain


def _write(body: IO[bytes], path: str) -> None:
    with open(path, "xb") as file:
        shutil.copyfileobj(body, file, _CHUNK)
        os.fchmod(file.fileno(), 0o644)
        file.flush()
        os.fsync(file.fileno())


def _swap(made: str, directory: str) -> None:
    """The new directory in place of the old, in one step; whoever has the old files open keeps them."""
    if not os.path.lexists(directory):
        os.rename(made, directory)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(made), _AT_FDCWD, os.fsencode(directory), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), directory)
