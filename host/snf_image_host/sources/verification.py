"""That the source is the one it should be: digests of its bytes as they were published (D-4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from snf_image_host.deployment import ImageSource
from snf_image_host.errors import VerificationError


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


def open_verifier(source: ImageSource) -> Verifier:
    """Collect what the request says."""
    asked = source.verification
    given = (("sha256", source.sha256, "--sha256"), ("sha512", asked.sha512, "--sha512"))
    expected = tuple((name, digest.lower(), origin) for name, digest, origin in given if digest is not None)
    return Verifier(shown=source.shown, expected=expected)
