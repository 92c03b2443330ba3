"""A small document from a URL, whole and in memory: parameters, answer files, checksums."""

from __future__ import annotations

from snf_image_host.deployment import FetchPolicy
from snf_image_host.errors import UserError
from snf_image_host.fetching.transfer import open_transfer
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account


def fetch_document(url: str, limit: int, policy: FetchPolicy, account: Account, reporter: Reporter) -> bytes:
    """What ``url`` leads to, at most ``limit`` bytes; errors as of :func:`open_transfer`."""
    data = bytearray(limit + 1)
    at = 0
    with open_transfer(url, policy, account, reporter) as transfer:
        if transfer.size is not None and transfer.size > limit:
            raise UserError(f"{transfer.shown} has {transfer.size} bytes, at most {limit} are taken")
        while at <= limit and (count := transfer.read_into(memoryview(data)[at:])):
            at += count
        if at > limit:
            raise UserError(f"{transfer.shown} has more than {limit} bytes")
    return bytes(data[:at])
