"""QEMU's command line: what every VM of the tests has, and what each part adds."""

import itertools

from snf_image_vmtests.qemu_command import Channels, DirectBoot, DiskImage, Hardware, command_line

CHANNELS = Channels(directory="/s", console_log="/e/a,b.log")


def _after(argv: list[str], word: str) -> list[str]:
    return [following for before, following in itertools.pairwise(argv) if before == word]


def test_qemu_dies_with_its_parent_starts_paused_and_has_no_tcp_port() -> None:
    argv = command_line(Hardware(), CHANNELS)
    assert argv[:4] == ["setpriv", "--pdeathsig", "TERM", "--"]
    assert "-S" in argv
    assert not [word for word in argv if "tcp:" in word or "hostfwd" in word]
    assert "-netdev" not in argv


def test_the_console_is_logged_by_qemu_itself_and_commas_in_names_survive() -> None:
    (console, qmp) = _after(command_line(Hardware(), CHANNELS), "-chardev")
    assert console == "socket,id=console,path=/s/console,server=on,wait=off,logfile=/e/a,,b.log"
    assert qmp == "socket,id=qmp,path=/s/qmp,server=on,wait=off"


def test_disks_in_order_with_serial_overlay_and_read_only() -> None:
    disks = (DiskImage(path="/a,b", serial="s0", overlay=True), DiskImage(path="/c", read_only=True))
    argv = command_line(Hardware(disks=disks), CHANNELS)
    assert _after(argv, "-drive") == [
        "file=/a,,b,format=raw,if=none,id=disk0,file.locking=off,snapshot=on",
        "file=/c,format=raw,if=none,id=disk1,file.locking=off,readonly=on",
    ]
    assert "virtio-blk-pci,drive=disk0,serial=s0,bootindex=1" in argv
    assert "virtio-blk-pci,drive=disk1" in argv


def test_a_kernel_of_ones_own_and_networks_that_lead_nowhere() -> None:
    boot = DirectBoot(kernel="/k", initrd="/i", words="quiet")
    argv = command_line(Hardware(boot=boot, macs=("aa:00:00:12:34:56",), screen=False), CHANNELS)
    assert (_after(argv, "-kernel"), _after(argv, "-initrd"), _after(argv, "-append")) == (
        ["/k"], ["/i"], ["quiet"],
    )  # fmt: skip
    assert _after(argv, "-netdev") == ["user,id=net0,restrict=on"]
    assert "virtio-net-pci,netdev=net0,mac=aa:00:00:12:34:56,romfile=" in argv
    assert "VGA" not in argv


def test_the_processor_offers_no_page_tables_that_confuse_the_kernel() -> None:
    """With them, mountinfo shows `xxx` for `/dev`; a test of the inspection VM looks for that in a guest."""
    (cpu,) = _after(command_line(Hardware(), CHANNELS), "-cpu")
    assert "la57=off" in cpu.split(",")


def test_the_processor_lacks_an_instruction_that_is_badly_emulated() -> None:
    """The kernel of Debian trixie uses it if it is there, and every few boots end in a panic."""
    (cpu,) = _after(command_line(Hardware(), CHANNELS), "-cpu")
    assert "cx16=off" in cpu.split(",")
