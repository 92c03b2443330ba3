"""That the source is the one it should be: digests of its bytes as they were published (D-4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from snf_image_host.deployment import ImageSource
from snf_image_host.errors import ImageError, UserError, VerificationError
from snf_image_host.reporter import Reporter
from snf_image_host.sources import checksums, signatures
from snf_image_host.sources.image_signature import ImageSignature
from snf_image_host.sources.neighbours import Neighbours
from snf_image_host.vm.account import Account


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """What is known of the source before it is read. ``expected``: names, digests, where they are from.

    ``signature``: one of the image itself, that must be checked on all of its bytes.
    """

    shown: str
    expected: tuple[tuple[str, str, str], ...] = ()
    signature: ImageSignature | None = None

    @property
    def algorithms(self) -> frozenset[str]:
        """Names of the digests that :meth:`check` wants."""
        return frozenset(name for name, _, _ in self.expected)

    @property
    def reads_source(self) -> bool:
        """Whether something is wanted of the bytes as they were published."""
        return bool(self.expected) or self.signature is not None

    def check(self, digests: Mapping[str, str]) -> None:
        """:class:`VerificationError` if one of the digests is another than expected."""
        for name, expected, origin in self.expected:
            if digests[name] != expected:
                raise VerificationError(
                    f"the image {self.shown} has {name} {digests[name]}, {origin} says {expected}",
                    hint="fetch the image again, or ask its maker which digest is right",
                )


def open_verifier(
    source: ImageSource, neighbours: Neighbours, account: Callable[[], Account], reporter: Reporter
) -> Verifier:
    """Collect what the request says, and what lies beside the image as far as the policy wants it.

    :class:`UserError` for a file that was named and cannot be read, :class:`ImageError` if the policy
    requires a signature and there is no good one: all before a byte is written.
    """
    asked = source.verification
    given = (("sha256", source.sha256, "--sha256"), ("sha512", asked.sha512, "--sha512"))
    expected = [(name, digest.lower(), origin) for name, digest, origin in given if digest is not None]
    collected = _Collecting(source, neighbours, account, reporter)
    is_signed = are_any = False
    for document, origin, digests in collected.checksum_files():
        are_any = True
        expected += [(name, digest, origin) for name, digest in digests.items()]
        is_signed = collected.has_good_signature(document, origin)
        if is_signed:
            break
    # One that is given is of the checksum file, if there is any.
    signature = None if is_signed else collected.image_signature(given=not are_any)
    if asked.policy == "require" and not is_signed and signature is None:
        raise ImageError(
            f"the image {source.shown} is not signed by a trusted key, which IMAGE_VERIFY=require wants",
            hint="a signature of it, or of SHA256SUMS, beside it would do, with the key in TRUSTED_KEYS_DIR",
        )
    return Verifier(shown=source.shown, expected=tuple(expected), signature=signature)


class _Collecting:
    """Looks for a checksum file and its signature."""

    def __init__(
        self, source: ImageSource, neighbours: Neighbours, account: Callable[[], Account], reporter: Reporter
    ) -> None:
        self._source = source
        self._asked = source.verification
        self._neighbours = neighbours
        self._account = account
        self._reporter = reporter

    def checksum_files(self) -> Iterator[tuple[bytes, str, Mapping[str, str]]]:
        """Each document with a line for the image, its name, and the digests in it."""
        name = self._neighbours.name
        if self._asked.checksums is not None:
            document = self._neighbours.named(self._asked.checksums, checksums.MAX_SIZE)
            digests = checksums.digests_of(name, document)
            if not digests:
                raise UserError(f"{self._asked.checksums} has no digest for {name}, or several that differ")
            yield document, self._asked.checksums, digests
        elif self._asked.policy != "off":
            for pattern in checksums.BESIDE:
                beside = pattern.format(name)
                found = self._neighbours.beside(beside, checksums.MAX_SIZE)
                if found is not None and (digests := checksums.digests_of(name, found)):
                    yield found, beside, digests

    def has_good_signature(self, document: bytes, origin: str) -> bool:
        """:class:`VerificationError` if there is one, but not of this document."""
        keys = signatures.read_trusted_keys(self._asked.trusted_keys)
        signature = self._signature(origin) if keys.are_any or self._asked.signature is not None else None
        if signature is None:
            return False
        verdict = signatures.check_signature(document, signature, keys, self._account())
        if verdict == "good":
            return True
        if verdict == "bad":
            raise VerificationError(f"the signature of {origin} is not one of these bytes by a trusted key")
        if self._asked.signature is not None:
            raise VerificationError(f"the signature of {origin} is by no key in TRUSTED_KEYS_DIR")
        self._reporter.warn(f"the signature of {origin} is by no key in TRUSTED_KEYS_DIR; it proves nothing")
        return False

    def image_signature(self, *, given: bool) -> ImageSignature | None:
        """One of the image itself: that of the request if it is ``given``, else one beside the image."""
        asked = self._asked
        keys = signatures.read_trusted_keys(asked.trusted_keys)
        if given and asked.signature is not None:
            signature = self._neighbours.named(asked.signature, signatures.MAX_SIZE)
            return ImageSignature(origin=asked.signature, signature=signature, keys=keys, demanded=True)
        if asked.policy == "off" or not keys.are_any:
            return None
        for suffix in signatures.SUFFIXES:
            name = self._neighbours.name + suffix
            found = self._neighbours.beside(name, signatures.MAX_SIZE)
            if found is not None:
                demanded = asked.policy == "require"
                return ImageSignature(origin=name, signature=found, keys=keys, demanded=demanded)
        return None

    def _signature(self, origin: str) -> bytes | None:
        if self._asked.signature is not None:
            return self._neighbours.named(self._asked.signature, signatures.MAX_SIZE)
        if self._asked.policy == "off":
            return None
        for suffix in signatures.SUFFIXES:
            found = self._neighbours.beside(origin + suffix, signatures.MAX_SIZE)
            if found is not None:
                return found
        return None
