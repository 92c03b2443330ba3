"""What partition types mean, in MBR bytes and in GPT GUIDs."""

from __future__ import annotations

import enum
from typing import Final


class Purpose(enum.StrEnum):
    """Purposes for which a partition is never enlarged (R-GROW-2), as they are named in messages."""

    SWAP = "swap"
    ESP = "EFI system"
    BIOS_BOOT = "BIOS boot"
    PREP = "PReP boot"
    MSR = "Microsoft reserved"
    RECOVERY = "Windows recovery"


GPT_SWAP: Final = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
GPT_BASIC_DATA: Final = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
GPT_FREEBSD_UFS: Final = "516E7CB6-6ECF-11D6-8FF8-00022D09712B"
GPT_FREEBSD_ZFS: Final = "516E7CBA-6ECF-11D6-8FF8-00022D09712B"
GPT_OPENBSD: Final = "824CC7A0-36A8-11E3-890A-952519AD3F61"
GPT_NETBSD_FFS: Final = "49F48D5A-B10E-11DC-B99B-0019D1879648"

MBR_SWAP: Final = 0x82
MBR_EXTENDED: Final = (0x05, 0x0F, 0x85)
MBR_NEW_CONTAINER: Final = 0x0F
MBR_EBR_LINK: Final = 0x05
MBR_PROTECTIVE: Final = 0xEE
MBR_NTFS: Final = 0x07
MBR_LINUX: Final = 0x83
MBR_FREEBSD: Final = 0xA5
MBR_OPENBSD: Final = 0xA6
MBR_NETBSD: Final = 0xA9

_PURPOSES: Final = {
    GPT_SWAP: Purpose.SWAP,
    "516E7CB5-6ECF-11D6-8FF8-00022D09712B": Purpose.SWAP,  # FreeBSD
    "49F48D32-B10E-11DC-B99B-0019D1879648": Purpose.SWAP,  # NetBSD
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": Purpose.ESP,
    "21686148-6449-6E6F-744E-656564454649": Purpose.BIOS_BOOT,
    "83BD6B9D-7F41-11DC-BE0B-001560B84F0F": Purpose.BIOS_BOOT,  # FreeBSD
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B": Purpose.PREP,
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": Purpose.MSR,
    "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC": Purpose.RECOVERY,
    "0x82": Purpose.SWAP,
    "0xef": Purpose.ESP,
    "0x41": Purpose.PREP,
    "0x27": Purpose.RECOVERY,
}


def mbr_type(value: int) -> str:
    """An MBR type byte as text, for example ``0x83``."""
    return f"0x{value:02x}"


def purpose(partition_type: str) -> Purpose | None:
    """The purpose that forbids enlarging, None for partitions that may grow."""
    return _PURPOSES.get(partition_type)
