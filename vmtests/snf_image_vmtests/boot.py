"""Proofs from inside: a deployed system is booted and logged into on its console."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from snf_image_vmtests.deployment import ADDRESS, INJECTED, MAC, MIB, SWAP_DISK_MIB, Deployed
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.qemu_command import DiskImage, Hardware
from snf_image_vmtests.vm import LoginRefusedError, Vm, VmError

_POWER_OFF_SECONDS = 90.0


def prove_boot(deployed: Deployed, evidence: Evidence) -> None:
    """The new password opens the console and the old does not; the system says of itself what was asked.

    The disk is changed by this.
    """
    disks = [DiskImage(path=deployed.disk)]
    if deployed.swap_disk is not None:
        disks.append(DiskImage(path=deployed.swap_disk))
    macs = (MAC,) if deployed.cell.network != "none" else ()
    hardware = Hardware(memory=512, cpus=2, disks=tuple(disks), macs=macs)
    account = deployed.fixture.account("root")
    with Vm("debian", hardware, evidence) as vm:
        if account.old_password is not None and deployed.cell.gives_password:
            with _refused(vm, account.name):
                vm.login(account.name, account.old_password)
        password = deployed.cell.password if deployed.cell.gives_password else account.old_password
        vm.login(account.name, password or "")
        _prove_system(deployed, vm)
        vm.screenshot()
        vm.send("poweroff")
        vm.wait_for_power_off(seconds=_POWER_OFF_SECONDS)


@contextlib.contextmanager
def _refused(vm: Vm, user: str) -> Iterator[None]:
    try:
        yield
    except LoginRefusedError:
        return
    raise VmError(f"{vm.name}: {user} could log in with the old password")


def _prove_system(deployed: Deployed, vm: Vm) -> None:
    cell = deployed.cell
    # Whatever failed while the system came up would be in this list.
    vm.succeed(
        "systemctl is-system-running --wait || { systemctl --failed --no-pager; exit 1; }", seconds=120
    )
    if cell.hostname is not None:
        assert vm.succeed("hostname") == cell.hostname
        vm.succeed(f"getent hosts {cell.hostname}")
    swaps = vm.succeed("swapon --show=SIZE --bytes --noheadings").split()
    if cell.swap is None:
        assert swaps == []
    else:
        partition = cell.swap_partition
        megabytes = SWAP_DISK_MIB if partition is None else partition[1]
        # The first page holds the signature.
        assert [int(size) for size in swaps] == [megabytes * MIB - 4096], f"swap is {swaps}"
    (size,) = vm.succeed("df --output=size --block-size=1M / | tail -n 1").split()
    swap = cell.swap_partition[1] if cell.swap_partition is not None else 0
    # What ext4 needs for itself is less than a twelfth.
    assert int(size) > (cell.disk_size - swap) * 11 / 12, f"/ has only {size} MiB"
    if cell.files:
        for path, (content, _, _, _) in INJECTED.items():
            assert vm.succeed(f"wc -c <{path}").strip() == str(len(content.encode()))
    if cell.network.startswith("static"):
        assert ADDRESS in vm.succeed("ip -brief address show")
    vm.succeed("sshd -t")
    vm.succeed("systemctl is-active ssh")
