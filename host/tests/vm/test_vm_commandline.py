"""qemu's command line, word for word."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from snf_image_contract.job import MEDIUM_SIZE
from snf_image_host.vm import Account, Limits, launcher
from snf_image_host.vm.commandline import ColdDisk, Slots, VmSpec, kernel_words, qemu_argv
from snf_image_host.vm.medium import disk_letters

SPEC = VmSpec(
    qemu="qemu-system-x86_64",
    accelerator="tcg",
    memory=512,
    cpus=1,
    kernel_fd=10,
    initrd_fd=11,
    kernel_words="console=ttyS0 a=b,c",
    root_fd=12,
    qmp_fd=13,
    serial_fds=(14, 15, 16),
)

GOLDEN = [
    "qemu-system-x86_64",
    "-nodefaults -no-user-config -nic none -vga none -display none -monitor none -parallel none",
    "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "-name snf-image-helper",
    "-machine pc,usb=off,vmport=off,hpet=off,smbus=off,sata=off,mem-merge=off,dump-guest-core=off",
    "-accel tcg,tb-size=256 -cpu max,la57=off,svm=off,xsave=off,avx=off,avx2=off,smap=off,erms=off",
    "-smp 1 -m 512M -rtc base=utc -no-reboot",
    "-object rng-builtin,id=rng",
    "-kernel /proc/self/fd/10 -initrd /proc/self/fd/11 -append",
    ["console=ttyS0 a=b,c"],
    "-chardev socket,id=qmp,fd=13 -mon chardev=qmp,mode=control",
    "-chardev socket,id=serial1,fd=14 -serial chardev:serial1",
    "-chardev socket,id=serial2,fd=15 -serial chardev:serial2",
    "-chardev socket,id=serial3,fd=16 -serial chardev:serial3",
    "-device",
    ['{"driver": "virtio-rng-pci", "rng": "rng", "addr": "0x3"}'],
    "-add-fd fd=12,set=1 -blockdev",
    [
        (
            '{"driver": "raw", "node-name": "helper-root", "read-only": true, "discard": "ignore", '
            '"cache": {"direct": false, "no-flush": false}, '
            '"file": {"driver": "file", "filename": "/dev/fdset/1", "locking": "off"}}'
        )
    ],
    "-device",
    ['{"driver": "virtio-scsi-pci", "id": "scsi", "addr": "0x2", "num_queues": 1}'],
    "-device",
    [
        (
            '{"driver": "scsi-hd", "bus": "scsi.0", "drive": "helper-root", "serial": "snf-helper", '
            '"rerror": "report", "werror": "report"}'
        )
    ],
]


@dataclasses.dataclass(frozen=True)
class Words:
    cmdline: str = "quiet acpi=noirq"
    cmdline_tcg: str = "acpi=off"


def test_an_emulated_kernel_gets_words_of_its_own() -> None:
    """Last, because of two that contradict each other the kernel takes the last."""
    ours = "snf_image_activate_helper panic=-1"
    assert kernel_words(Words(), "kvm", debug=False) == f"quiet acpi=noirq {ours}"
    assert kernel_words(Words(), "tcg", debug=False) == f"quiet acpi=noirq acpi=off {ours}"


def test_the_whole_command_line() -> None:
    """R-HLP-2, R-HLP-3, R-HLP-7, T-33, T-47: nothing by default, no network, three ports, filtered calls."""
    words: list[str] = []
    for part in GOLDEN:
        words += part.split() if isinstance(part, str) else part
    assert list(qemu_argv(SPEC)) == words
    assert set(SPEC.inherited) == {10, 11, 12, 13, 14, 15, 16}


def test_what_kvm_changes() -> None:
    """D-1: the accelerator and the processor, nothing else; no nested virtualisation."""
    tcg, kvm = qemu_argv(SPEC), qemu_argv(dataclasses.replace(SPEC, accelerator="kvm"))
    changed = [(old, new) for old, new in zip(tcg, kvm, strict=True) if old != new]
    assert changed == [
        ("tcg,tb-size=256", "kvm"),
        ("max,la57=off,svm=off,xsave=off,avx=off,avx2=off,smap=off,erms=off", "host,vmx=off,svm=off"),
    ]


def test_the_fourth_port_is_there_only_if_asked_for() -> None:
    """R-HLP-7: a debug shell's terminal."""
    assert "chardev:debug" not in qemu_argv(SPEC)
    assert qemu_argv(dataclasses.replace(SPEC, debug_port=True)).count("chardev:debug") == 1


def test_no_option_string_takes_a_value_from_outside() -> None:
    """T-28: commas and equal signs in the kernel's words are not qemu's business."""
    words = kernel_words(Words(cmdline="a=1,b=2  c"), "kvm", debug=False, extra=["rules_dev=/dev/fd0"])
    assert words == "a=1,b=2 c snf_image_activate_helper rules_dev=/dev/fd0 panic=-1"
    argv = qemu_argv(dataclasses.replace(SPEC, kernel_words=words))
    assert [word for word in argv if "a=1,b=2" in word] == [words]


def test_the_debug_word() -> None:
    """R-HLP-11."""
    assert (
        kernel_words(Words(cmdline=""), "kvm", debug=True)
        == "snf_image_activate_helper snf_image_debug_helper loglevel=6 panic=-1"
    )


@pytest.mark.parametrize("mode", ["read-write", "read-only"])
def test_slots_for_the_first_disk_and_the_medium(mode: Slots) -> None:
    """R-HLP-4: devices with the serials that the helper looks for, and nothing behind them yet."""
    argv = qemu_argv(dataclasses.replace(SPEC, slots=mode))
    added = argv[len(qemu_argv(SPEC)) :]
    nodes = [json.loads(value) for option, value in itertools.pairwise(added) if option == "-blockdev"]
    devices = [json.loads(value) for option, value in itertools.pairwise(added) if option == "-device"]
    assert argv[: len(qemu_argv(SPEC))] == qemu_argv(SPEC)
    assert [node["file"]["driver"] for node in nodes] == ["null-co", "null-co"]
    assert [node["read-only"] for node in nodes] == [mode == "read-only", True]
    assert [node["file"]["size"] for node in nodes] == [512, MEDIUM_SIZE]
    assert [(device["serial"], device["addr"]) for device in devices] == [
        ("snf-disk-0", "0x4"),
        ("snf-params", "0x1f"),
    ]


def test_cold_disks_for_foreign_helpers() -> None:
    """R-HLP-4, R-HLP-5: in order, raw stated, block devices as such; the floppy takes no slot."""
    disks = (
        ColdDisk(fd=20, serial="snf-disk-0", is_block=True, read_only=False, direct=True),
        ColdDisk(fd=21, serial="snf-disk-1", is_block=False, read_only=True),
        ColdDisk(fd=22, serial=None, is_block=False, read_only=True),
    )
    argv = qemu_argv(dataclasses.replace(SPEC, disks=disks))
    tail = argv[argv.index("fd=20,set=2") - 1 :]
    nodes = [json.loads(value) for option, value in itertools.pairwise(tail) if option == "-blockdev"]
    devices = [json.loads(value) for option, value in itertools.pairwise(tail) if option == "-device"]
    assert [node["file"]["driver"] for node in nodes] == ["host_device", "file", "file"]
    assert [node["driver"] for node in nodes] == ["raw"] * 3
    assert [node["cache"]["direct"] for node in nodes] == [True, False, False]
    assert [node["file"]["filename"] for node in nodes] == ["/dev/fdset/2", "/dev/fdset/3", "/dev/fdset/4"]
    assert [(device["driver"], device.get("addr")) for device in devices] == [
        ("virtio-blk-pci", "0x4"),
        ("virtio-blk-pci", "0x5"),
        ("floppy", None),
    ]


@pytest.mark.parametrize(
    ("position", "letters"), [(0, "a"), (7, "h"), (8, "i"), (9, "j"), (25, "z"), (26, "aa"), (701, "zz")]
)
def test_disk_letters_have_no_gap(position: int, letters: str) -> None:
    """T-39: the ninth disk is i, the tenth j."""
    assert disk_letters(position) == letters


def test_the_launcher_drops_everything_before_the_program_runs() -> None:
    """R-HLP-2, T-47, D-1: user, groups, capabilities, new privileges; the only group is KVM's."""
    account = Account(uid=2100000007, gid=2100000007, switch=True)
    words = launcher(account, groups=(106,), limits=Limits(address_space=4096, files=64, processes=16))
    assert " ".join(words) == (
        "prlimit --core=0 --as=4096 --nofile=64 --nproc=16 -- "
        "setpriv --no-new-privs --pdeathsig TERM --reuid 2100000007 --regid 2100000007 --groups 106 "
        "--inh-caps=-all --ambient-caps=-all --bounding-set=-all --"
    )
    assert "--clear-groups" in launcher(account)


def test_without_root_only_new_privileges_are_dropped() -> None:
    """D-7: an ordinary user can neither change groups nor count only qemu's processes."""
    words = launcher(Account(uid=1000, gid=1000, switch=False), limits=Limits(processes=16))
    assert " ".join(words) == "prlimit --core=0 -- setpriv --no-new-privs --pdeathsig TERM --"
