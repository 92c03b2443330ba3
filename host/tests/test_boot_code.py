"""The boot code of generated partition tables: its source, and what it does under a real BIOS."""

from __future__ import annotations

import importlib.resources
import os
import struct
import time
from pathlib import Path

import pytest

from snf_image_contract.names import ImageFormat
from snf_image_host.partition_header import HEADER_SIZE, boot_code, partition_header
from snf_image_process import PIPE, run, start

SECTOR = 512
LIMIT = 60.0
GREETING = b"the partition was started from drive "


def assembled(source: str, directory: Path) -> bytes:
    """The flat 16-bit program of an assembler source."""
    (directory / "code.S").write_text(source)
    run(["as", "--32", "code.S", "-o", "code.o"], timeout=30, cwd=str(directory))
    run(["objcopy", "-O", "binary", "code.o", "code.bin"], timeout=30, cwd=str(directory))
    return (directory / "code.bin").read_bytes()


@pytest.mark.requires("binutils")
def test_the_source_makes_these_bytes(tmp_path: Path) -> None:
    """R-FMT-4: the source is included, and it is the source of what is shipped."""
    source = importlib.resources.files("snf_image_host").joinpath("boot_code.S").read_text()
    assert assembled(source, tmp_path) == boot_code()


def partition_boot_sector() -> bytes:
    """Writes GREETING and the drive number in DL plus "0" - 0x80 to the first serial port, then halts."""
    text = GREETING + b"\0"
    code = bytes.fromhex(
        "31c0"  # xor ax, ax
        "8ed8"  # mov ds, ax
        "88d3"  # mov bl, dl
        "80eb50"  # sub bl, 0x80 - '0'
        "fc"  # cld
        "baf803"  # mov dx, 0x03f8
        "be207c"  # mov si, 0x7c20: the text
        "ac"  # next: lodsb
        "84c0"  # test al, al
        "7403"  # jz done
        "ee"  # out dx, al
        "ebf8"  # jmp next
        "88d8"  # done: mov al, bl
        "ee"  # out dx, al
        "f4"  # hlt
        "ebfd"  # jmp $-1
    )
    return (code.ljust(0x20, b"\x90") + text).ljust(510, b"\0") + b"\x55\xaa"


def booted(disk: Path, awaited: bytes) -> bytes:
    """What comes out of the serial port until ``awaited`` is there."""
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-accel", "tcg", "-m", "16"]
    argv += ["-machine", "pc,graphics=off", "-display", "none", "-serial", "stdio"]
    argv += ["-drive", f"file={disk},format=raw,if=ide,snapshot=on"]
    seen = b""
    with start(argv, stdin=PIPE, stdout=PIPE) as qemu:
        assert qemu.stdout is not None
        os.set_blocking(qemu.stdout.fileno(), False)
        end = time.monotonic() + LIMIT
        while awaited not in seen and time.monotonic() < end and qemu.poll() is None:
            seen += qemu.stdout.read() or b""
            time.sleep(0.05)
    return seen


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A header with a tiny, bootable "file system" behind it."""
    path = tmp_path / "disk"
    dump = partition_boot_sector() + bytes(1 << 20)
    path.write_bytes(partition_header(ImageFormat.NTFSDUMP, len(dump)) + dump)
    return path


def change(disk: Path, offset: int, data: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.requires("qemu")
def test_the_active_partition_is_started(disk: Path) -> None:
    """R-FMT-4: under SeaBIOS, with the drive's number in DL."""
    assert GREETING + b"0" in booted(disk, GREETING + b"0")


@pytest.mark.requires("qemu")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_active_one_may_be_any_of_the_four(disk: Path, number: int) -> None:
    """R-FMT-4."""
    entry = struct.pack("<B3xB3xII", 0x80, 0x83, 2048, 1)
    change(disk, 446, bytes(64))
    change(disk, 446 + 16 * number, entry)
    assert GREETING + b"0" in booted(disk, GREETING + b"0")


@pytest.mark.requires("qemu")
@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (446, b"\0", b"No active partition"),
        (446 + 16, b"\x80", b"Several active partitions"),
        (446 + 8, struct.pack("<I", 0xF0000000), b"Read error"),
        (HEADER_SIZE + 510, b"\0", b"Partition is not bootable"),
    ],
)
def test_what_cannot_be_started_gives_a_line(disk: Path, offset: int, data: bytes, message: bytes) -> None:
    """R-FMT-4: none or several active ones, a read error; and then it stops."""
    change(disk, offset, data)
    seen = booted(disk, message)
    assert message in seen
    assert GREETING not in seen
