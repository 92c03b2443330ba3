"""The harness says what happened: nothing to boot, a QEMU that dies, one that never starts."""

import os
import signal
import time

import pytest

from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.qemu_command import DiskImage, Hardware
from snf_image_vmtests.vm import Vm, VmError

pytestmark = [pytest.mark.requires("qemu"), pytest.mark.timeout(120, method="signal")]


def _empty_disk(tmp_path: object) -> Hardware:
    path = os.path.join(str(tmp_path), "empty.raw")
    with open(path, "wb") as file:
        file.truncate(1024 * 1024)
    return Hardware(memory=64, disks=(DiskImage(path=path),))


def test_an_empty_disk_says_so_and_every_other_wait_ends_at_once(
    evidence: Evidence, tmp_path: object
) -> None:
    with Vm("empty", _empty_disk(tmp_path), evidence) as vm:
        begun = time.monotonic()
        with pytest.raises(VmError, match="the console said 'No bootable device'") as caught:
            vm.wait_for("login: ", seconds=100)
        assert time.monotonic() - begun < 90
        # What was on the console is in the error.
        assert "  | " in str(caught.value)
        vm.screenshot()
    assert os.path.getsize(evidence.path("empty-screen.png")) > 0
    assert os.path.getsize(evidence.path("empty-console.log")) > 0


def test_the_words_that_end_waits_can_be_waited_for(evidence: Evidence, tmp_path: object) -> None:
    with Vm("empty", _empty_disk(tmp_path), evidence) as vm:
        assert "SeaBIOS" in vm.wait_for("No bootable device", seconds=60)


def test_a_killed_qemu_is_told_with_its_status(evidence: Evidence, tmp_path: object) -> None:
    with Vm("killed", _empty_disk(tmp_path), evidence) as vm:
        with open(evidence.path("killed-qemu.stderr"), "a", encoding="ascii") as file:
            file.write("last words of qemu\n")
        os.kill(vm.pid, signal.SIGKILL)
        with pytest.raises(VmError, match=r"status -9, its standard error: last words of qemu"):
            vm.wait_for("login: ", seconds=30)


def test_a_qemu_that_does_not_start_surfaces_its_standard_error(evidence: Evidence) -> None:
    hardware = Hardware(disks=(DiskImage(path="/nonexistent/disk.raw"),))
    with pytest.raises(VmError, match=r"/nonexistent/disk\.raw"), Vm("unborn", hardware, evidence):
        pass


def test_leaving_the_context_leaves_no_process_and_no_socket(evidence: Evidence, tmp_path: object) -> None:
    with Vm("gone", _empty_disk(tmp_path), evidence) as vm:
        pid, sockets = vm.pid, vm.sockets
        assert os.path.exists(f"/proc/{pid}")
        assert len(os.path.join(sockets, "console")) < 100
    assert not os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(sockets)
