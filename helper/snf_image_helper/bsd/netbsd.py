"""What each task does for NetBSD."""

from __future__ import annotations

from typing import Final

from snf_image_contract.names import OsFamily
from snf_image_helper.bsd.family import bsd_family
from snf_image_helper.bsd.network.netbsd import configure_network
from snf_image_helper.families import Family

FAMILY: Final[Family] = bsd_family(OsFamily.NETBSD, configure_network)
