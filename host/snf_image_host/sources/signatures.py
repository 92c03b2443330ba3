"""Detached signatures of checksum files: OpenPGP by gpgv, Ed25519 by openssl; both run unprivileged.

What they read is in memory; a signature is worth what the directory of trusted keys is (D-4).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from snf_image_host.errors import NodeError
from snf_image_host.vm.account import Account
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_process import ProcessError, run

SUFFIXES: Final = (".sig", ".asc", ".gpg", ".sign")
MAX_SIZE: Final = 64 * 1024
_MAX_KEY: Final = 4 * 1024 * 1024
_ED25519_BYTES: Final = 64
LIMITS: Final = Limits(address_space=512 << 20, files=64, processes=16, file_size=0)
_ARMOR: Final = re.compile(rb"-----BEGIN PGP [A-Z ]+-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.*?)\r?\n=", re.DOTALL)

Verdict = Literal["good", "bad", "unknown-key"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKeys:
    """Contents of the operator's key files: keyrings of OpenPGP, public keys of Ed25519."""

    keyrings: tuple[bytes, ...]
    public_keys: tuple[bytes, ...]

    @property
    def are_any(self) -> bool:
        return bool(self.keyrings or self.public_keys)


def read_trusted_keys(directory: str) -> TrustedKeys:
    """The keys in a directory; none if it is not there. :class:`NodeError` for a file that is not safe.

    Only root, or the caller, may be able to change what is trusted.
    """
    keyrings, public_keys = [], []
    for name in sorted(_names(directory)):
        path = os.path.join(directory, name)
        if name.endswith(".gpg"):
            keyrings.append(_read_key(path))
        elif name.endswith(".asc"):
            keyrings.append(_dearmor(_read_key(path), path))
        elif name.endswith(".pem"):
            public_keys.append(_read_key(path))
    return TrustedKeys(keyrings=tuple(keyrings), public_keys=tuple(public_keys))


def check_signature(document: bytes, signature: bytes, keys: TrustedKeys, account: Account) -> Verdict:
    """Whether ``signature`` is one of ``document`` by a trusted key. NodeError if a program lacks."""
    raw = raw_ed25519(signature)
    if raw is not None:
        verdicts = (_openssl(document, raw, key, account) for key in keys.public_keys)
        return "good" if any(verdicts) else ("bad" if keys.public_keys else "unknown-key")
    found: list[Verdict] = [_gpgv(document, signature, ring, account) for ring in keys.keyrings]
    for verdict in ("good", "bad"):
        if verdict in found:
            return verdict
    return "unknown-key"


def _names(directory: str) -> Sequence[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise NodeError(f"the trusted keys in {directory} cannot be read: {error.strerror}") from None


def _read_key(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            if state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o022:
                raise NodeError(f"the trusted key {path} can be changed by others than root")
            return file.read(_MAX_KEY)
    except OSError as error:
        raise NodeError(f"the trusted key {path} cannot be read: {error.strerror}") from None


def _dearmor(data: bytes, path: str) -> bytes:
    match = _ARMOR.search(data)
    if match is None:
        raise NodeError(f"the trusted key {path} is not in OpenPGP's armor")
    return binascii.a2b_base64(match[1])


def raw_ed25519(signature: bytes) -> bytes | None:
    """The 64 bytes of a signature that is nothing else, plain or in base64."""
    if len(signature) == _ED25519_BYTES:
        return signature
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(b"".join(signature.split()), validate=True)
        return raw if len(raw) == _ED25519_BYTES else None
    return None


def _openssl(document: bytes, signature: bytes, key: bytes, account: Account) -> bool:
    with in_memory(document, signature, key) as (data, sig, public):
        words = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin"]
        words += ["-inkey", _path(public), "-in", _path(data), "-sigfile", _path(sig)]
        return _status(words, (data, sig, public), account, package="openssl") == 0


def _gpgv(document: bytes, signature: bytes, keyring: bytes, account: Account) -> Verdict:
    with in_memory(document, signature, keyring) as (data, sig, ring):
        words = ["gpgv", "--keyring", _path(ring), _path(sig), _path(data)]
        status = _status(words, (data, sig, ring), account, package="gpgv")
    # 1: a bad signature; 2: everything else, such as a key that is not in the keyring.
    return "good" if status == 0 else "bad" if status == 1 else "unknown-key"


def _status(words: list[str], fds: Sequence[int], account: Account, *, package: str) -> int:
    try:
        done = run(
            [*launcher(account, limits=LIMITS), *words],
            timeout=30,
            accept=range(256),
            pass_fds=fds,
        )
    except ProcessError as error:
        raise NodeError(f"{words[0]} could not check a signature: {error.reason}") from None
    if done.status == 127:
        raise NodeError(f"{words[0]} is not installed", hint=f"apt-get install {package}")
    return done.status


@contextlib.contextmanager
def in_memory(*contents: bytes) -> Iterator[tuple[int, ...]]:
    """A descriptor for each, which any program that inherits it can read."""
    with contextlib.ExitStack() as stack:
        fds = []
        for content in contents:
            fd = os.memfd_create("signature", os.MFD_CLOEXEC)
            stack.callback(os.close, fd)
            os.fchmod(fd, 0o444)
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            fds.append(fd)
        yield tuple(fds)


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
