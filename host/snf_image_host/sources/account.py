"""Who the programs run as that fetch and decode (D-7, R-FETCH-4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from snf_image_host.deployment import HelperSettings, SourceSettings
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account, account_for


@contextlib.contextmanager
def source_account(
    settings: SourceSettings, reporter: Reporter, *, user: str | None = None
) -> Iterator[Account]:
    """An account while the context lasts: ``user`` if the operator set one, else a uid of its own as root."""
    asked = HelperSettings(
        directory="", user=user, uid_range=settings.uid_range, runtime_dir=settings.runtime_dir
    )
    with account_for(asked, reporter) as account:
        yield account
