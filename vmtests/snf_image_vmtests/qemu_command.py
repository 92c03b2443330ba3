"""QEMU's command line, from small parts."""

from __future__ import annotations

import dataclasses
import os
from typing import Final, Literal


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskImage:
    """A disk of a VM. ``overlay``: writes go to a temporary file and the image stays as it is."""

    path: str
    format: Literal["raw", "qcow2"] = "raw"
    serial: str = ""
    read_only: bool = False
    overlay: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """A kernel that QEMU loads itself, instead of a boot loader on a disk."""

    kernel: str
    initrd: str
    words: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a VM consists of; ``memory`` in mebibytes.

    ``macs``: network interfaces with these addresses, on networks that lead nowhere.
    """

    memory: int = 512
    cpus: int = 1
    disks: tuple[DiskImage, ...] = ()
    boot: DirectBoot | None = None
    macs: tuple[str, ...] = ()
    screen: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Unix sockets in a short private directory, and the file that gets everything the console says."""

    directory: str
    console_log: str

    @property
    def console(self) -> str:
        return os.path.join(self.directory, "console")

    @property
    def qmp(self) -> str:
        return os.path.join(self.directory, "qmp")


# On a processor that offers five-level page tables, emulated by QEMU 7.2, Debian's kernel 6.1.192 takes good
# addresses of its own for bad ones: mountinfo shows `xxx` instead of `/dev`, and whatever systemd mounts or
# confines fails. cmpxchg16b can leave garbage in the flags, and an interrupt just behind it then brings down
# trixie's kernel 6.12, whose memory allocator uses it if it is offered.
_CPU: Final = "max,la57=off,svm=off,cx16=off"


def command_line(hardware: Hardware, channels: Channels) -> list[str]:
    """The whole command. The VM starts paused, so that whoever reads its console misses nothing.

    qemu dies with the thread that starts it: that must be the main one.
    """
    return [
        "setpriv", "--pdeathsig", "TERM", "--",
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-S",
        # graphics=off: the firmware speaks on the serial port, too.
        "-machine", "pc,graphics=off", "-accel", "tcg", "-cpu", _CPU,
        "-m", str(hardware.memory), "-smp", str(hardware.cpus), "-display", "none",
        *(["-device", "VGA"] if hardware.screen else []),
        *_channel_arguments(channels),
        *_boot_arguments(hardware.boot),
        *(word for index, mac in enumerate(hardware.macs) for word in _network_arguments(index, mac)),
        *(word for index, disk in enumerate(hardware.disks) for word in _disk_arguments(index, disk)),
    ]  # fmt: skip


def _channel_arguments(channels: Channels) -> list[str]:
    log = channels.console_log.replace(",", ",,")
    return [
        "-chardev", f"socket,id=console,path={channels.console},server=on,wait=off,logfile={log}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,path={channels.qmp},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip


def _boot_arguments(boot: DirectBoot | None) -> list[str]:
    if boot is None:
        return []
    return ["-kernel", boot.kernel, "-initrd", boot.initrd, "-append", boot.words]


def _network_arguments(index: int, mac: str) -> list[str]:
    return [
        "-netdev", f"user,id=net{index},restrict=on",
        "-device", f"virtio-net-pci,netdev=net{index},mac={mac},romfile=",
    ]  # fmt: skip


def _disk_arguments(index: int, disk: DiskImage) -> list[str]:
    path = disk.path.replace(",", ",,")
    drive = f"file={path},format={disk.format},if=none,id=disk{index},file.locking=off"
    if disk.read_only:
        drive += ",readonly=on"
    if disk.overlay:
        drive += ",snapshot=on"
    serial = f",serial={disk.serial}" if disk.serial else ""
    boot = ",bootindex=1" if index == 0 else ""
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{index}{serial}{boot}"]
