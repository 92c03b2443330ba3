"""A detached signature of the image itself: checked on its bytes as they pass (D-4)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from snf_image_host.errors import NodeError, VerificationError
from snf_image_host.sources.ed25519 import KEY_BYTES, Ed25519Verification
from snf_image_host.sources.reading import ByteSource
from snf_image_host.sources.signatures import LIMITS, TrustedKeys, Verdict, in_memory, raw_ed25519
from snf_image_host.vm.account import Account
from snf_image_host.vm.launcher import launcher
from snf_image_process import PIPE, ProcessError, start

_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
"""What comes before the 32 bytes of an Ed25519 key in the DER form of a public key (RFC 8410)."""
_ENDING_SECONDS: Final = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageSignature:
    """What a file ``origin`` says. ``demanded``: a key that is not trusted is an error, not a warning."""

    origin: str
    signature: bytes
    keys: TrustedKeys
    demanded: bool


class _Check(Protocol):
    def update(self, part: memoryview) -> None: ...

    def verdict(self) -> Verdict: ...

    def abandon(self) -> None: ...

    def close(self) -> None: ...


class SignedSource:
    """The same bytes, on their way also to those who check the signature."""

    def __init__(
        self,
        source: ByteSource,
        signature: ImageSignature,
        account: Callable[[], Account],
        warn: Callable[[str], None],
    ) -> None:
        """To be called in the main thread. :class:`NodeError` if a program cannot be started."""
        self.size = source.size
        self._source = source
        self._asked = signature
        self._warn = warn
        self._is_settled = False
        raw = raw_ed25519(signature.signature)
        self._check: _Check = (
            _OpenPgp(signature, account()) if raw is None else _Ed25519(raw, signature.keys.public_keys)
        )

    def read_into(self, view: memoryview) -> int:
        count = self._source.read_into(view)
        if count:
            self._check.update(view[:count])
        return count

    def abandon(self) -> None:
        self._source.abandon()
        self._check.abandon()

    def demand(self) -> None:
        """After the last byte: :class:`VerificationError` unless the signature is good, or proves nothing."""
        if self._is_settled:
            return
        self._is_settled = True
        verdict = self._check.verdict()
        if verdict == "bad":
            raise VerificationError(
                f"the signature {self._asked.origin} is not one of this image by a trusted key",
                hint="fetch image and signature again, or ask its maker",
            )
        if verdict == "unknown-key":
            text = f"the signature {self._asked.origin} is by no key in TRUSTED_KEYS_DIR"
            if self._asked.demanded:
                raise VerificationError(text)
            self._warn(f"{text}; it proves nothing")

    def close(self) -> None:
        self._check.close()


class _Ed25519:
    """All trusted keys at once: a signature does not say by whose key it is."""

    def __init__(self, signature: bytes, keys: tuple[bytes, ...]) -> None:
        self._running = [Ed25519Verification(signature, _raw_key(key)) for key in keys]

    def update(self, part: memoryview) -> None:
        for verification in self._running:
            verification.update(part)

    def verdict(self) -> Verdict:
        if not self._running:
            return "unknown-key"
        return "good" if any(verification.is_good() for verification in self._running) else "bad"

    def abandon(self) -> None:
        pass  # it waits for nothing

    def close(self) -> None:
        pass


class _OpenPgp:
    """gpgv, unprivileged, reads the image from a pipe."""

    def __init__(self, asked: ImageSignature, account: Account) -> None:
        self._gone = False
        with in_memory(asked.signature, *asked.keys.keyrings) as fds:
            words = [*launcher(account, limits=LIMITS), "gpgv"]
            for ring in fds[1:]:
                words += ["--keyring", f"/proc/self/fd/{ring}"]
            try:
                self._running = start([*words, f"/proc/self/fd/{fds[0]}", "-"], stdin=PIPE, pass_fds=fds)
            except ProcessError as error:
                raise NodeError(f"gpgv cannot be started: {error.reason}") from None
        assert self._running.stdin is not None  # noqa: S101 - it was asked for
        self._stdin = self._running.stdin

    def update(self, part: memoryview) -> None:
        try:
            while part and not self._gone:
                part = part[os.write(self._stdin.fileno(), part) :]
        except BrokenPipeError:
            self._gone = True  # it knows enough; why is in its status

    def verdict(self) -> Verdict:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        status = self._running.wait(_ENDING_SECONDS)
        if status == 127:
            raise NodeError("gpgv is not installed", hint="apt-get install gpgv")
        if status is None or status < 0:
            raise NodeError("gpgv could not check the signature of the image")
        # 1: a bad signature; 2: everything else, such as a key that is not in any keyring.
        return "good" if status == 0 else "bad" if status == 1 else "unknown-key"

    def abandon(self) -> None:
        self._gone = True
        self._running.stop()

    def close(self) -> None:
        self._running.__exit__()


@contextlib.contextmanager
def signed(
    source: ByteSource,
    signature: ImageSignature | None,
    account: Callable[[], Account],
    warn: Callable[[str], None],
) -> Iterator[tuple[ByteSource, Callable[[], None]]]:
    """``source`` while it is checked, and what to call after its last byte; itself without a signature."""
    if signature is None:
        yield source, lambda: None
        return
    checked = SignedSource(source, signature, account, warn)
    try:
        yield checked, checked.demand
    finally:
        checked.close()


def _raw_key(pem: bytes) -> bytes:
    """The 32 bytes in a public key as openssl writes it."""
    body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-----"))
    with contextlib.suppress(binascii.Error):
        der = base64.b64decode(body, validate=True)
        if der.startswith(_PREFIX) and len(der) == len(_PREFIX) + KEY_BYTES:
            return der[len(_PREFIX) :]
    raise NodeError("a *.pem file in TRUSTED_KEYS_DIR is no public key of Ed25519")
