"""That the source is the one it should be: digests of its bytes as they were published (D-4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from snf_image_host.deployment import ImageSource
from snf_image_host.errors import ImageError, UserError, VerificationError
from snf_image_host.reporter import Reporter
from snf_image_host.sources import checksums, signatures
from snf_image_host.sources.neighbours import Neighbours
from snf_image_host.vm.account import Account


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """What is known of the source before it is read. ``expected``: names, digests, where they are from."""

    shown: str
    expected: tuple[tuple[str, str, str], ...] = ()

    @property
    def algorithms(self) -> frozenset[str]:
        """Names of the digests that :meth:`check` wants."""
        return frozenset(name for name, _, _ in self.expected)

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
    is_signed = False
    for document, origin, digests in collected.checksum_files():
        expected += [(name, digest, origin) for name, digest in digests.items()]
        is_signed = collected.has_good_signature(document, origin)
        if is_signed:
            break
    if asked.signature is not None and not is_signed:
        raise UserError(
            "--signature is that of a checksum file, and there is none",
            hint="sign the output of sha256sum, and give both",
        )
    if asked.policy == "require" and not is_signed:
        raise ImageError(
            f"the image {source.shown} is not signed by a trusted key, which IMAGE_VERIFY=require wants",
            hint="SHA256SUMS and SHA256SUMS.sig beside the image would do, with the key in TRUSTED_KEYS_DIR",
        )
    return Verifier(shown=source.shown, expected=tuple(expected))


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
