"""How slowly a server may send: fewer bytes than that, and a transfer would last as long as it likes."""

from __future__ import annotations

from typing import Final

from snf_image_host.deployment import FetchPolicy
from snf_image_host.errors import NodeError


class Pace:
    """Watches one transfer, resumed or not, for a server that only drips (R-FETCH-4).

    Only the time that is spent waiting for the server counts: a disk or a decoder that takes the bytes
    slowly is not its fault. A window is as long as silence may be (COPY_IDLE_TIMEOUT), so that a pause
    that is allowed is not taken for dripping. No limit if either variable is 0.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._rate: Final = policy.min_rate
        self._window: Final = policy.idle_timeout
        self._waited = 0.0
        self._received = 0

    def add(self, received: int, waited: float, shown: str) -> None:
        """``received`` bytes came after ``waited`` seconds. :class:`NodeError` at the end of a bad window."""
        self._received += received
        self._waited += waited
        if not self._window or self._waited < self._window:
            return
        if self._received < self._rate * self._waited:
            raise NodeError(
                f"{shown}: only {self._received} bytes came in {self._waited:.1f} seconds, "
                f"and FETCH_MIN_RATE demands {self._rate} a second",
                hint="the server or the way to it is too slow: try again later or fetch it from elsewhere; "
                "the operator can set FETCH_MIN_RATE lower",
            )
        self._waited = 0.0
        self._received = 0
