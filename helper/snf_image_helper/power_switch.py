"""How an emulated helper switches itself off: its kernel was told not to read ACPI's tables.

Reading them takes a tenth of an emulated start, and all that would come of it is this switch.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

PM1_CNT: Final = 0x604
"""Where the firmware of qemu's PCs puts the PM1 control register (SeaBIOS: ``PORT_ACPI_PM_BASE`` + 4)."""
SLEEP: Final = 1 << 13
"""SLP_EN with a type of 0, which is S5 there (ACPI 6.5, 4.8.3.2.1)."""
# mov edx, edi; mov eax, esi; out dx, ax; ret. A write to /dev/port is of single bytes, which is not the same.
_OUT_WORD: Final = b"\x89\xfa\x89\xf0\x66\xef\xc3"


def switch_off() -> None:
    """Does not return on a machine that has the switch; OSError if the port must not be used."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ioperm(ctypes.c_ulong(PM1_CNT), ctypes.c_ulong(2), 1):
        number = ctypes.get_errno()
        raise OSError(number, "ioperm")
    out_word(PM1_CNT, SLEEP)


def out_word(port: int, value: int) -> None:
    """The processor's instruction; a port that is not ours is a SIGSEGV."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_OUT_WORD)
        start = ctypes.c_char.from_buffer(page)
        ctypes.CFUNCTYPE(None, ctypes.c_ushort, ctypes.c_ushort)(ctypes.addressof(start))(port, value)
        del start
