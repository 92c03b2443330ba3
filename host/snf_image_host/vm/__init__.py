"""The helper VM: qemu without privileges or network, its ports, its disks, its end."""

from snf_image_host.vm.accelerator import Choice, Verdict, check_kvm, choose_accelerator
from snf_image_host.vm.account import Account, account_for
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_host.vm.machine import HelperVm, Outcome, start_helper

__all__ = [
    "Account",
    "Choice",
    "HelperVm",
    "Limits",
    "Outcome",
    "Verdict",
    "account_for",
    "check_kvm",
    "choose_accelerator",
    "launcher",
    "start_helper",
]
