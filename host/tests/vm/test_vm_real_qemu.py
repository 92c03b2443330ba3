"""The real qemu with a helper of a hundred bytes: real-mode code in the shape of a Linux kernel.

It writes to the serial ports, waits for disks by looking at the PCI bus, and powers off or misbehaves; it
boots in a quarter of a second without KVM.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snf_image_contract.events import Succeeded
from snf_image_contract.job import CONTRACT_VERSION, ChangePassword, Job
from snf_image_contract.secret import Secret
from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import HelperError, NodeError
from snf_image_host.reporter import Reporter
from snf_image_host.vm import Account, Choice, HelperVm, check_kvm, start_helper
from snf_image_host.vm.disks import DiskAdder
from snf_image_host.vm.kvm import KvmAccess
from snf_image_host.vm.verdict import Stopped
from snf_image_host.vm.watch import Watch
from snf_image_process import PIPE, Deadline, start

if TYPE_CHECKING:
    from tests.vm.conftest import Disk, Image, Recorder

pytestmark = pytest.mark.requires("qemu")

CONSOLE, RESULT, EVENTS = 0x3F8, 0x2F8, 0x3E8
FIRST_DISK_ADDRESS = 4
SECRET = "correct horse battery staple"


class TinyHelper:
    """Assembles the program. Every step runs after the one before."""

    ORIGIN = 0x80  # of the code in the setup segment, behind the header

    def __init__(self) -> None:
        self._code = bytearray()

    def send(self, port: int, text: bytes, *, forever: bool = False) -> TinyHelper:
        code = self._code
        code += b"\xe9" + struct.pack("<H", len(text))  # jmp over the text
        at = self.ORIGIN + len(code)
        code += text
        again = len(code)
        code += b"\xbe" + struct.pack("<H", at) + b"\xb9" + struct.pack("<H", len(text))  # mov si, cx
        loop = len(code)
        code += b"\xba" + struct.pack("<H", port + 5) + b"\xec\xa8\x20\x74\xfb"  # until the port is ready
        code += b"\xba" + struct.pack("<H", port) + b"\x2e\xac\xee"  # mov dx; cs lodsb; out
        code += b"\xe2" + struct.pack("<b", loop - len(code) - 2)  # loop
        if forever:
            code += b"\xe9" + struct.pack("<h", again - len(code) - 3)
        return self

    def say(self, *events: dict[str, Any], first: int = 0) -> TinyHelper:
        for seq, event in enumerate(events, start=first):
            self.send(EVENTS, json.dumps({"seq": seq, **event}).encode() + b"\n")
        return self

    def hello(self) -> TinyHelper:
        return self.say({"kind": "hello", "contract_version": CONTRACT_VERSION, "build": "build-1"})

    def wait_for_device(self, address: int) -> TinyHelper:
        """Poll the PCI configuration space until there is a device."""
        self._code += (
            b"\x66\xb8" + struct.pack("<I", 0x80000000 | address << 11) + b"\xba\xf8\x0c\x66\xef"
            b"\xba\xfc\x0c\x66\xed\x66\x83\xf8\xff"  # in eax; cmp eax, -1
        )
        self._code += b"\x74" + struct.pack("<b", -(6 + 5 + 5 + 4 + 2))
        return self

    def wait_for_job(self) -> TinyHelper:
        """Until the host has said that the slots are filled, or anything else that ends a line."""
        status, data = struct.pack("<H", EVENTS + 5), struct.pack("<H", EVENTS)
        again = len(self._code)
        self._code += b"\xba" + status + b"\xec\xa8\x01\x74\xf8"  # until there is a byte
        self._code += b"\xba" + data + b"\xec\x3c\x0a"  # in al; cmp al, line feed
        self._code += b"\x75" + struct.pack("<b", again - len(self._code) - 2)
        return self

    def power_off(self) -> TinyHelper:
        self._code += b"\xba\x04\x06\xb8\x00\x20\xef"  # ACPI: sleep state 5
        return self.hang()

    def restart(self) -> TinyHelper:
        self._code += b"\xba\xf9\x0c\xb0\x06\xee"
        return self.hang()

    def hang(self) -> TinyHelper:
        self._code += b"\xfa\xf4\xeb\xfd"
        return self

    def kernel(self) -> bytes:
        """A file that qemu takes for a Linux kernel: its setup part is the program."""
        sectors = 16
        boot, setup = bytearray(512), bytearray(512 * sectors)
        boot[0x1F1] = sectors
        boot[0x1FE:] = b"\x55\xaa"
        setup[:2] = b"\xeb" + bytes([self.ORIGIN - 2])
        setup[2:8] = b"HdrS\x06\x02"
        setup[0x11] = 1  # loaded high
        struct.pack_into("<I", setup, 0x14, 0x100000)
        struct.pack_into("<II", setup, 0x2C, 0x37FFFFFF, 0)
        struct.pack_into("<I", setup, 0x38, 2048)
        assert self.ORIGIN + len(self._code) <= len(setup)
        setup[self.ORIGIN : self.ORIGIN + len(self._code)] = self._code
        return bytes(boot + setup) + bytes(512)


def good(disks: int) -> TinyHelper:
    """Hello; disks and medium; one task; success; off."""
    helper = TinyHelper().send(CONSOLE, b"tiny\r\n").hello()
    helper.wait_for_job().say({"kind": "job-accepted"}, first=1)
    for address in range(FIRST_DISK_ADDRESS, FIRST_DISK_ADDRESS + disks):
        helper.wait_for_device(address)
    helper.say({"kind": "succeeded"}, first=2)
    return helper.send(RESULT, b"SUCCESS\n").power_off()


StartTiny = Callable[..., HelperVm]


@pytest.fixture
def start_tiny(
    settings: HelperSettings, image: Callable[[str], Image], reporter: Reporter, tmp_path: Path
) -> Iterator[StartTiny]:
    """Starts the real qemu with a tiny helper, by default as ourselves."""
    vms: list[HelperVm] = []

    def begin(helper: TinyHelper, *, account: Account | None = None, **changed: Any) -> HelperVm:
        for old in ("kernel", "initrd", "root"):
            (tmp_path / old).unlink(missing_ok=True)
        built = image("")
        Path(built.kernel).write_bytes(helper.kernel())
        Path(built.root).write_bytes(bytes(65536))
        # Not readable by whoever qemu runs as: descriptors must do.
        for path in (built.kernel, built.initrd, built.root):
            os.chmod(path, 0o400)
        vm = start_helper(
            dataclasses.replace(settings, qemu="qemu-system-x86_64", memory=128, **changed),
            built,
            reporter,
            str(tmp_path / "evidence"),
            account=account,
            choice=Choice(accelerator="tcg"),
        )
        vms.append(vm)
        return vm

    yield begin
    for vm in vms:
        vm.close()


def test_a_whole_job(
    start_tiny: StartTiny, job: Job, disks: tuple[Disk, ...], recorder: Recorder, tmp_path: Path
) -> None:
    """R-HLP-4, R-HLP-9: disks and medium are added to the running VM, and its clean end is seen as such."""
    vm = start_tiny(good(len(disks)))
    vm.wait_ready()
    outcome = vm.run_job(job, disks)
    assert isinstance(outcome.events[-1], Succeeded)
    assert "HELPER: tiny" in recorder.console
    assert recorder.infos[-1] == "helper VM ended, status 0"


def test_nine_disks_keep_their_order(start_tiny: StartTiny, job: Job, tmp_path: Path) -> None:
    """T-39, T-40: nine disks at rising addresses under their serials, whatever they are on the host."""

    @dataclasses.dataclass(frozen=True)
    class Plain:
        fd: int
        index: int
        read_only: bool = False
        size: int = 65536
        is_block: bool = False

    vm = start_tiny(good(9))
    vm.wait_ready()
    qmp = vm.qemu.qmp
    adder = DiskAdder(qmp)
    for index in range(9):
        path = tmp_path / f"d{index}"
        path.write_bytes(bytes(65536))
        with open(path, "r+b") as file:
            adder.add_disk(Plain(fd=file.fileno(), index=index))
    devices = [device for bus in qmp.execute("query-pci") for device in bus["devices"]]
    block = [(device["slot"], device["qdev_id"]) for device in devices if "disk" in device["qdev_id"]]
    assert block == [(4 + index, f"disk-{index}-device") for index in range(9)]
    serials = [
        qmp.execute("qom-get", {"path": f"/machine/peripheral/{name}", "property": "serial"})
        for _, name in block
    ]
    assert serials == [f"snf-disk-{index}" for index in range(9)]


def test_the_machine_has_no_network_and_no_usb(start_tiny: StartTiny) -> None:
    """T-33, R-HLP-3: the bus holds the bridge, root, random device, two slots for disks, and nothing else."""
    vm = start_tiny(good(0))
    vm.wait_ready()
    qmp = vm.qemu.qmp
    devices = [device for bus in qmp.execute("query-pci") for device in bus["devices"]]
    classes = sorted((device["slot"], device["class_info"]["class"]) for device in devices)
    # Host bridge; ISA bridge, IDE (part of the bridge, empty), power management; SCSI; random numbers; slots.
    slots = [(4, 0x100), (31, 0x100)]
    assert classes == [(0, 0x600), (1, 0x101), (1, 0x601), (1, 0x680), (2, 0x100), (3, 0xFF), *slots]
    assert not [device for device in devices if device["class_info"]["class"] >> 8 == 2]
    assert qmp.execute("query-rx-filter") == []  # every network interface has one
    assert {chardev["label"] for chardev in qmp.execute("query-chardev")} >= {"serial1", "serial2", "serial3"}


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.requires("root")
def test_qemu_has_no_privileges(
    start_tiny: StartTiny, settings: HelperSettings, job: Job, disks: tuple[Disk, ...]
) -> None:
    """R-HLP-2, T-47, D-7: a user of its own, no group, no capability, no new privileges, filtered calls."""
    vm = start_tiny(good(len(disks)))
    vm.wait_ready()
    pid = vm.qemu.running.pid
    status = _status(pid)
    first, last = settings.uid_range
    assert len(set(status["Uid"].split())) == 1
    assert first <= int(status["Uid"].split()[0]) <= last
    assert set(status["Gid"].split()) == set(status["Uid"].split())
    assert status["Groups"] == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max core file size        0                    0" in limits
    assert os.getsid(pid) == pid  # its own session
    assert "-runas" not in vm.qemu.running.argv
    assert isinstance(vm.run_job(job, disks).events[-1], Succeeded)


@pytest.mark.requires("root")
def test_parallel_vms_share_no_user(start_tiny: StartTiny) -> None:
    """D-7, R-HLP-14: two deployments, two users."""
    one, other = start_tiny(good(0)), start_tiny(good(0))
    assert one.account.uid != other.account.uid


def test_no_secret_is_in_argv_or_environment(
    start_tiny: StartTiny, job: Job, disks: tuple[Disk, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-6, R-SEC-1: looked for in /proc while the VM has the job, and in everything that is kept."""
    monkeypatch.setenv("OSP_IMG_PASSWD", SECRET)
    job = dataclasses.replace(job, change_password=ChangePassword(password=Secret(SECRET)))
    vm = start_tiny(good(len(disks)))
    pid = vm.qemu.running.pid
    seen = []

    def look(watch: Watch, deadline: Deadline) -> Stopped:
        seen.append(Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes())
        return follow(watch, deadline)

    follow = Watch.follow
    monkeypatch.setattr(Watch, "follow", look)
    vm.run_job(job, disks)
    assert b"-sandbox" in seen[0]
    assert SECRET.encode() not in seen[0]
    for kept in (tmp_path / "evidence").iterdir():
        assert SECRET.encode() not in kept.read_bytes()


def test_a_guest_that_restarts_has_failed(start_tiny: StartTiny, job: Job, disks: tuple[Disk, ...]) -> None:
    """R-HLP-9, T-45: qemu's status is 0, but the guest did not power itself off."""
    helper = TinyHelper().hello().wait_for_job().send(RESULT, b"SUCCESS\n").restart()
    with pytest.raises(HelperError, match="the helper restarted itself"):
        start_tiny(helper).run_job(job, disks)


def test_a_guest_that_hangs_is_ended(start_tiny: StartTiny, job: Job, disks: tuple[Disk, ...]) -> None:
    """R-HLP-10: the real qemu ends by SIGTERM, with status 0, and that is not taken for success."""
    helper = TinyHelper().hello().wait_for_job().send(RESULT, b"SUCCESS\n").hang()
    with pytest.raises(HelperError, match="it was ended by SIGTERM"):
        start_tiny(helper, soft_timeout=0.5).run_job(job, disks)


def test_a_stopped_qemu_is_killed(
    start_tiny: StartTiny, job: Job, disks: tuple[Disk, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-HLP-10: a process that does not react to SIGTERM."""
    vm = start_tiny(TinyHelper().hello().hang(), soft_timeout=0.3, hard_timeout=0.3)
    vm.wait_ready()
    pid = vm.qemu.running.pid
    follow = Watch.follow

    def stopped(watch: Watch, deadline: Deadline) -> Stopped:
        os.kill(pid, signal.SIGSTOP)
        return follow(watch, deadline)

    monkeypatch.setattr(Watch, "follow", stopped)  # the moment between job and deadline
    with pytest.raises(HelperError, match="was killed"):
        vm.run_job(job, disks)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("port", [CONSOLE, RESULT, EVENTS])
def test_a_guest_that_floods_a_port(
    port: int, start_tiny: StartTiny, job: Job, disks: tuple[Disk, ...], recorder: Recorder
) -> None:
    """R-MON-9, R-HLP-8: the events end the deployment, the other ports harm nobody until its time is up."""
    helper = TinyHelper().hello().wait_for_job()
    helper.send(port, b"\x1b[2J\xff flood ", forever=True)
    with pytest.raises(HelperError, match=r"rules of its conversation|ended by SIGTERM"):
        start_tiny(helper, soft_timeout=1.0).run_job(job, disks)
    assert all(line.isprintable() and len(line) <= 4096 for line in recorder.console)


def test_a_kernel_that_qemu_refuses(start_tiny: StartTiny, tmp_path: Path) -> None:
    """R-HLP-10: could not start, with the real qemu's own words."""
    with pytest.raises(NodeError, match="could not start: qemu-system-x86_64: exit status 1") as failure:
        start_tiny(TinyHelper(), cpus=4096)
    assert any("CPU" in line for line in failure.value.details)


def test_the_debug_shell_is_a_terminal_of_its_own(start_tiny: StartTiny, recorder: Recorder) -> None:
    """R-HLP-7: a pseudo-terminal under the filter and limits, and only if it is asked for."""
    start_tiny(good(0), debug=True)
    told = next(info for info in recorder.infos if "debug shell" in info)
    terminal = next(word for word in told.split() if word.startswith("/dev/pts/"))
    assert os.path.exists(terminal)


def test_a_foreign_helper_boots_with_its_disks(
    start_tiny: StartTiny, job: Job, disks: tuple[Disk, ...], tmp_path: Path
) -> None:
    """R-HLP-5, R-MON-8: cold disks, in order, and a floppy that needs no driver of ours."""
    for medium in ("auto", "floppy"):
        helper = TinyHelper().wait_for_device(FIRST_DISK_ADDRESS + 1).send(EVENTS, b"TASK_START:AddSwap\n")
        helper.send(EVENTS, b"TASK_END:AddSwap\n").send(RESULT, b"SUCCESS\n").power_off()
        vm = start_tiny(helper, protocol="text", param_medium=medium)
        outcome = vm.run_job(job, disks)
        assert [event.KIND for event in outcome.events] == ["task-start", "task-end"]


def test_the_vm_dies_with_its_parent(
    tmp_path: Path, eventually: Callable[[Callable[[], bool]], None], settings: HelperSettings
) -> None:
    """R-HLP-13: also when the host process is killed and can clean up nothing."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(TinyHelper().hello().hang().kernel())
    program = f"""
import dataclasses, sys, time
from types import SimpleNamespace
from snf_image_host.deployment import HelperSettings
from snf_image_host.reporter import Reporter
from snf_image_host.vm import start_helper
image = SimpleNamespace(kernel={str(kernel)!r}, initrd={str(kernel)!r}, root={str(kernel)!r}, build="build-1",
                        contract_version=2, cmdline="", cmdline_tcg="")
settings = HelperSettings(directory="", accelerator="tcg", memory=128, runtime_dir={settings.runtime_dir!r})
vm = start_helper(settings, image, Reporter(), {str(tmp_path / "evidence")!r})
vm.wait_ready()
print(vm.qemu.running.pid, flush=True)
time.sleep(60)
"""
    with start([sys.executable, "-c", program], stdout=PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert os.path.exists(f"/proc/{pid}")
        os.kill(parent.pid, signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{pid}") or _status(pid)["State"].startswith("Z"))


def test_an_accelerator_that_qemu_cannot_use_is_told(
    settings: HelperSettings, image: Callable[[str], Image]
) -> None:
    """T-49, D-25: a trial under an unusable KVM ends with a verdict, and does not take ten seconds."""
    built = image("")
    Path(built.kernel).write_bytes(TinyHelper().send(RESULT, b"PROBE\n").power_off().kernel())
    real = dataclasses.replace(settings, qemu="qemu-system-x86_64", memory=128, user="nobody")
    begun = time.monotonic()
    account = Account(uid=65534, gid=65534, switch=os.geteuid() == 0)
    verdict = check_kvm(real, built, account, access=KvmAccess(allowed=True))
    assert time.monotonic() - begun < 11
    if verdict.works or "early boot" in verdict.reason:
        assert os.access("/dev/kvm", os.F_OK)
    else:
        assert "qemu does not start under KVM" in verdict.reason
