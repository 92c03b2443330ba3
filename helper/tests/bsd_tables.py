"""The tables of all three BSDs, of those too that the helper does not offer yet."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.bsd import freebsd, netbsd, openbsd
from snf_image_helper.families import Family

_TABLES: Final = {
    OsFamily.FREEBSD: freebsd.FAMILY,
    OsFamily.NETBSD: netbsd.FAMILY,
    OsFamily.OPENBSD: openbsd.FAMILY,
}


def bsd_table(name: OsFamily) -> Family:
    return _TABLES[name]
