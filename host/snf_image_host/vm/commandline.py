"""qemu's command line: small pure parts, put together in one place.

No value that comes from outside enters an option string: descriptors are numbers, devices are JSON, and
the kernel's words are an argument of their own. No file is named: everything is a descriptor.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from snf_image_contract.job import MEDIUM_SIZE, PARAMETER_SERIAL, disk_serial
from snf_image_host.vm import devices

UsedAccelerator = Literal["kvm", "tcg"]
Slots = Literal["read-write", "read-only"]

TRANSLATION_BUFFER: Final = 256
"""MiB that TCG may use for translated code; left alone it reserves a gibibyte."""
_SECTOR: Final = 512
_DENIED: Final = ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")
_CPU: Final[dict[UsedAccelerator, str]] = {
    # Nested virtualisation is of no use to the helper, and a way to attack the host's kernel.
    "kvm": "host,vmx=off,svm=off",
    # What costs time in emulation and gives the helper nothing: five levels of page tables, vectors of 32
    # bytes and saving them at each switch, a check of each access of the kernel to memory of programs, and
    # copying by single bytes, which is fast on a real processor only.
    "tcg": "max,la57=off,svm=off,xsave=off,avx=off,avx2=off,smap=off,erms=off",
}
# What the machine type pc would have beyond need; memory is kept from dumps and from merging.
_MACHINE: Final = "pc,usb=off,vmport=off,hpet=off,smbus=off,sata=off,mem-merge=off,dump-guest-core=off"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ColdDisk:
    """A disk that is there from the start; ``fd`` is inherited. ``serial`` None: the floppy drive."""

    fd: int
    serial: str | None
    is_block: bool
    read_only: bool
    direct: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """What the command line says. All ``*_fd`` are descriptors that qemu inherits.

    ``memory`` in MiB. ``root_fd`` None: no root disk (the probe needs none). ``disks``: foreign helpers
    only, the shipped one gets its disks while it runs. ``slots``: it has devices for the first disk and the
    medium from the start, with nothing behind them yet; how the first disk will be used. ``incoming``: it
    does not boot, it is going to be told over QMP where a saved state is.
    """

    qemu: str
    accelerator: UsedAccelerator
    memory: int
    cpus: int
    kernel_fd: int
    initrd_fd: int
    kernel_words: str
    root_fd: int | None
    qmp_fd: int
    serial_fds: tuple[int, ...]
    debug_port: bool = False
    disks: tuple[ColdDisk, ...] = ()
    slots: Slots | None = None
    incoming: bool = False

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptors that qemu must inherit."""
        root = () if self.root_fd is None else (self.root_fd,)
        cold = tuple(disk.fd for disk in self.disks)
        return (self.kernel_fd, self.initrd_fd, self.qmp_fd, *self.serial_fds, *root, *cold)


def qemu_argv(spec: VmSpec) -> tuple[str, ...]:
    """The whole command line of qemu."""
    return (
        spec.qemu,
        *_nothing_by_itself(),
        *_computer(spec),
        *_kernel(spec),
        *_control(spec.qmp_fd),
        *_serial_ports(spec),
        *_device_options(devices.random_device()),
        *([] if spec.root_fd is None else _root(spec.root_fd)),
        *_cold_disks(spec.disks),
        *([] if spec.slots is None else _slots(read_only=spec.slots == "read-only")),
        *(["-incoming", "defer"] if spec.incoming else []),
    )


class KernelWords(Protocol):
    """What a helper image asks for its kernel."""

    @property
    def cmdline(self) -> str: ...
    @property
    def cmdline_tcg(self) -> str: ...


def kernel_words(
    image: KernelWords, accelerator: UsedAccelerator, *, debug: bool, extra: Sequence[str] = ()
) -> str:
    """The kernel's command line: the image's own words, ours, and a panic that ends the VM at once.

    Of words that contradict each other the last counts. ``debug``: what the kernel does is to be seen,
    although the image's words may ask it to be quiet.
    """
    emulated = image.cmdline_tcg.split() if accelerator == "tcg" else []
    debugging = ["snf_image_debug_helper", "loglevel=6"] if debug else []
    return " ".join(
        [*image.cmdline.split(), *emulated, "snf_image_activate_helper", *debugging, *extra, "panic=-1"]
    )


def _nothing_by_itself() -> list[str]:
    """No default device, no network, no screen, no user configuration; system calls filtered (R-HLP-3)."""
    return [
        "-nodefaults",
        "-no-user-config",
        "-nic",
        "none",
        "-vga",
        "none",
        "-display",
        "none",
        "-monitor",
        "none",
        "-parallel",
        "none",
        "-sandbox",
        ",".join(["on", *(f"{kind}=deny" for kind in _DENIED)]),
    ]


def _computer(spec: VmSpec) -> list[str]:
    tcg = f"tcg,tb-size={TRANSLATION_BUFFER}"
    return [
        "-name",
        "snf-image-helper",
        "-machine",
        _MACHINE,
        "-accel",
        tcg if spec.accelerator == "tcg" else "kvm",
        "-cpu",
        _CPU[spec.accelerator],
        "-smp",
        str(spec.cpus),
        "-m",
        f"{spec.memory}M",
        "-rtc",
        "base=utc",
        # A guest that restarts has failed: qemu ends, and QMP tells why.
        "-no-reboot",
        "-object",
        "rng-builtin,id=rng",
    ]


def _kernel(spec: VmSpec) -> list[str]:
    return [
        "-kernel",
        f"/proc/self/fd/{spec.kernel_fd}",
        "-initrd",
        f"/proc/self/fd/{spec.initrd_fd}",
        "-append",
        spec.kernel_words,
    ]


def _control(fd: int) -> list[str]:
    return ["-chardev", f"socket,id=qmp,fd={fd}", "-mon", "chardev=qmp,mode=control"]


def _serial_ports(spec: VmSpec) -> list[str]:
    """1 console, 2 result, 3 events, and 4 a terminal for the debug shell, if it is asked for (R-HLP-7)."""
    words: list[str] = []
    for number, fd in enumerate(spec.serial_fds, start=1):
        words += ["-chardev", f"socket,id=serial{number},fd={fd}", "-serial", f"chardev:serial{number}"]
    if spec.debug_port:
        words += ["-chardev", "pty,id=debug", "-serial", "chardev:debug"]
    return words


def _root(fd: int) -> list[str]:
    controller, disk = devices.root_disk()
    file = devices.file_node(fdset=1, is_block=False)
    node = devices.raw_node(node=devices.ROOT_NODE, file=file, mode=devices.Mode(read_only=True))
    return [
        *_descriptor(fd, fdset=1),
        *_json_option("-blockdev", node),
        *_device_options(controller),
        *_device_options(disk),
    ]


def _cold_disks(disks: Sequence[ColdDisk]) -> list[str]:
    words: list[str] = []
    address = devices.FIRST_DISK_ADDRESS
    for index, disk in enumerate(disks):
        name, fdset = f"cold-{index}", index + 2
        words += _descriptor(disk.fd, fdset=fdset)
        mode = devices.Mode(read_only=disk.read_only, direct=disk.direct, discard=not disk.read_only)
        file = devices.file_node(fdset=fdset, is_block=disk.is_block)
        words += _json_option("-blockdev", devices.raw_node(node=name, file=file, mode=mode))
        if disk.serial is None:
            words += _device_options(devices.floppy(node=name))
            continue
        words += _device_options(devices.virtio_disk(node=name, serial=disk.serial, address=address))
        address += 1
    return words


def _slots(*, read_only: bool) -> list[str]:
    """In each a disk comes into its place while the guest runs, which is quicker than adding a device.

    ``read_only``: the first disk will be.
    """
    words: list[str] = []
    disk = devices.virtio_disk(
        node=devices.FIRST_DISK_NODE, serial=disk_serial(0), address=devices.FIRST_DISK_ADDRESS
    )
    medium = devices.virtio_disk(
        node=devices.MEDIUM_NODE, serial=PARAMETER_SERIAL, address=devices.MEDIUM_ADDRESS
    )
    for device, size, mode in (
        (disk, _SECTOR, devices.Mode(read_only=read_only)),
        (medium, MEDIUM_SIZE, devices.Mode(read_only=True)),
    ):
        node = devices.raw_node(node=device["drive"], file=devices.empty_node(size), mode=mode)
        words += [*_json_option("-blockdev", node), *_device_options(device)]
    return words


def _descriptor(fd: int, *, fdset: int) -> list[str]:
    return ["-add-fd", f"fd={fd},set={fdset}"]


def _device_options(device: devices.Json) -> list[str]:
    return _json_option("-device", device)


def _json_option(option: str, value: devices.Json) -> list[str]:
    return [option, json.dumps(value)]
